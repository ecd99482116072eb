"""``spend`` and ``earnings`` over time: as a table, CSV, JSON or a plot. Counterpart: ``domain/history.py``.

The rule: the rows are never rounded, so that their sum is the bill.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import click

from . import format as show
from .client import Json
from .errors import UsageError
from .session import Session
from .table import table

F = TypeVar("F", bound=Callable[..., Any])

STEPS = {"minute": 60, "hour": 3600, "day": 86_400}
SHOWN_SEC = 86_400
"""A table or a plot without --since; a file has everything."""
_AGES = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGE = re.compile(r"(\d{1,9})([mhdw])")


class Period(NamedTuple):
    """Which rows, and how they are to be shown."""

    since: int
    """Unix seconds; 0: all there are."""
    step: str
    form: str
    """ "table", "csv", "json" or "plot"."""


class WhenType(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if match := _AGE.fullmatch(str(value).strip()):
            return max(0, now() - int(match[1]) * _AGES[match[2]])
        try:
            return max(0, int(datetime.fromisoformat(str(value).strip()).timestamp()))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age (90m, 24h, 7d) nor a date (2026-11-01)", param, ctx)


def now() -> int:
    return time.time_ns() // 1_000_000_000


def history_options(function: F) -> F:
    """``--since --step --csv --plot``; read them with ``period``."""
    for option in (
        click.option("--plot", is_flag=True, help="Draw price and use over time in the terminal."),
        click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a row for each lease and step."),
        click.option(
            "--step",
            type=click.Choice(list(STEPS)),
            help="Of the history: an hour, if nothing else is said. Minutes are kept for 4 hours, hours for 92 days.",
        ),
        click.option(
            "--since", type=WhenType(), metavar="WHEN", help="The history since: 24h, 7d, 2026-11-01."
        ),
    ):
        function = option(function)
    return function


def period(session: Session, since: int | None, step: str | None, as_csv: bool, plot: bool) -> Period | None:
    """None if none of the options was given. Raises UsageError("cli.form")."""
    if since is None and step is None and not (as_csv or plot):
        return None
    forms = [name for name, on in (("csv", as_csv), ("plot", plot), ("json", session.json)) if on]
    if len(forms) > 1:
        raise UsageError("cli.form", f"one of --{' and --'.join(forms)}: not both")
    form = forms[0] if forms else "table"
    if since is None:
        since = now() - SHOWN_SEC if form in ("table", "plot") else 0
    return Period(since, step or _fitting(since, form), form)


def _fitting(since: int, form: str) -> str:
    """A plot wants some dozens of points."""
    age = now() - since
    if form != "plot" or 4 * 3600 < age <= 14 * 86_400:
        return "hour"
    return "minute" if age <= 4 * 3600 else "day"


def present(session: Session, of: Period, path: str, peer: str) -> None:
    """Ask for ``POST /v1/<path>/history`` and show it; *peer* is what the other side is called."""
    body = {"since_sec": of.since, "step_sec": STEPS[of.step]}
    answer = session.client.post(path, "history", body=body)
    match of.form:
        case "csv":
            click.echo(to_csv(answer, peer), nl=False)
        case "plot":
            from . import plot

            click.echo(plot.draw(answer, now(), colour=sys.stdout.isatty()))
        case _:
            session.show(answer, listing(answer, peer))


def to_csv(answer: Json, peer: str) -> str:
    """A header and plain integers, their units in the names; the time is UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [*answer["fields"]["usage"], *answer["fields"]["lines"]]
    writer.writerow(["start", "step_sec", "lease", "deployment", peer, *fields, "due_msat"])
    for row in answer["rows"]:
        numbers = [*row["usage"].values(), *row["lines"].values()]
        where = (row["lease"], row["deployment"], row["peer"])
        writer.writerow([_utc(row["start_sec"]), answer["step_sec"], *where, *numbers, row["due_msat"]])
    return out.getvalue()


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listing(answer: Json, peer: str) -> str:
    if not answer["rows"]:
        return "nothing was used in that time"
    named = () if peer == "tenant" else ("DEPLOYMENT",)  # who sells does not know what it is called
    numbers = ("CPU", "MEMORY", "DISK", "NET IN / OUT", "COST")
    head = ("FROM", "LEASE", *named, peer.upper(), *numbers)
    rows = [_row(row, peer) for row in answer["rows"]]
    total = f"{show.plural(len(rows), 'row')}, together {show.sat(answer['due_msat'])}"
    return f"{table(head, rows, right=numbers)}\n\n{total}"


def _row(row: Json, peer: str) -> tuple[str, ...]:
    used = row["usage"]
    name = () if peer == "tenant" else (row["deployment"],)
    return (
        datetime.fromtimestamp(row["start_sec"]).astimezone().strftime("%Y-%m-%d %H:%M"),
        show.short(row["lease"]),
        *name,
        show.short(row["peer"]),
        show.cpu_time(used["cpu_ns"]),
        show.space_time(used["memory_mib_ms"]),
        show.space_time(used["disk_mib_ms"]),
        show.traffic(used),
        show.sat(row["due_msat"]),
    )
