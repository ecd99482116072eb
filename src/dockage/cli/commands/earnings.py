"""``dockage earnings``: what this node has sold, and what it was paid."""

from __future__ import annotations

from typing import Any

import click

from dockage.cli import accounts, leases
from dockage.cli import format as show
from dockage.cli import watch as watching
from dockage.cli.client import Json
from dockage.cli.options import Command, json_option, watch_option
from dockage.cli.session import Session
from dockage.cli.table import table


@click.command(
    cls=Command,
    examples=(
        "dockage earnings",
        "dockage earnings --watch",
        "dockage earnings --since 30d --step day",
        "dockage earnings --csv --since 2026-11-01 > november.csv",
    ),
)
@click.option("-a", "--all", "everything", is_flag=True, help="Leases that have ended, too.")
@accounts.history_options
@watch_option
@json_option
@click.pass_obj
def command(session: Session, /, everything: bool, watch: bool, **history: Any) -> None:
    """Show what this node sells, and what it is paid.

    Paid sats are signed to us and safe; settled ones are on the chain, less the fees.

    With --since, --step, --csv or --plot: what was earned over time, ended leases too. The rows add up to the bills.
    """
    if past := accounts.period(session, **history):
        accounts.present(session, past, "earnings", "tenant")
        return

    def ask() -> Json:
        answer = session.client.get("earnings")
        if not everything:
            answer["leases"] = [x for x in answer["leases"] if x["state"] != "ended"]
        return answer

    watching.show(session, ask, draw, watch=watch)


def draw(answer: Json) -> str:
    shown = answer["leases"]
    parts = [listing(shown)] if shown else []
    parts += ["\n".join(leases.reasons(shown))]
    parts.append(
        f"{show.plural(answer['running'], 'lease')} running, {answer['ended']} ended; "
        f"due {show.sat(answer['due_msat'])}, "
        f"paid {show.whole_sat(answer['paid_sat'])}, of which {show.whole_sat(answer['settled_sat'])} settled on the "
        f"chain for {show.whole_sat(answer['fees_sat'])} of fees"
    )
    return "\n\n".join(part for part in parts if part)


def listing(sold: list[Json]) -> str:
    head = ("LEASE", "TENANT", "STATE", "TIME", "CONTAINERS", "CPU", "MEMORY", "DISK", "NET IN / OUT", "DUE")
    return table(head, map(_row, sold), right=head[3:])


def _row(lease: Json) -> tuple[str, ...]:
    used = lease["usage"]
    return (
        show.short(lease["lease"]),
        show.short(lease["tenant"]),
        lease["state"],
        show.duration(lease["running_sec"]),
        str(lease["containers"]),
        show.cpu_time(used["cpu_ns"]),
        show.size(lease["memory_bytes"]),
        show.size(lease["disk_bytes"]),
        show.traffic(used),
        show.sat(lease["due_msat"]),
    )
