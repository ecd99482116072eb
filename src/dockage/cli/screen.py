"""The picture of ``dockage top``: lines that fit the terminal, whatever its size.

Pure, but for the time. Columns are left out from the least important on until a line fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from . import format as show
from .top import SORTS, Look, Row, ordered

GAP = "  "
NAME_MAX = 28
HELP = "q quit  c m d n p b t sort  r reverse  o containers  ↑↓ scroll  h help"
MORE_HELP = (
    "q         quit",
    "c m d n   sort by CPU, memory, disk, bytes sent",
    "p b t     sort by price now, bill, time",
    "← →       sort by the column before or after",
    "r         turn the order round",
    "o         leases alone, or with their containers",
    "↑ ↓       scroll; also j k, page up and down, home and end",
    "h ?       this help",
    "",
    "NOW is the pace of the last seconds; of a container, its CPU and memory alone.",
    "AT MOST is every limit used to the full, network aside.",
    "PAID covers the oldest leases with a provider first.",
)


class View(NamedTuple):
    """How the user wants to see it."""

    sort: str = "p"
    reverse: bool = False
    containers: bool = True
    first: int = 0
    """The first row shown."""
    help: bool = False


class Column(NamedTuple):
    head: str
    keep: int
    """The lowest goes first when there is no room."""
    text: Callable[[Row], str]
    sorts: str = ""
    """The key that sorts by it."""
    left: bool = False


def plain(text: str) -> str:
    """Nothing in it moves the cursor, or worse."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _number(value: float | None, text: Callable[[int], str]) -> str:
    return "" if value is None else text(round(value))


def _cpu(row: Row) -> str:
    if row.cpu_cores is None:
        return "..."
    limit = f" / {row.cpu_cores_limit:g}" if row.cpu_cores_limit is not None else ""
    return f"{row.cpu_cores:.2f}{limit}"


def _of(value: int | None, limit: int | None) -> str:
    if value is None:
        return ""
    return f"{show.size(value)} / {show.size(limit)}" if limit else show.size(value)


def _name(row: Row) -> str:
    if row.container:
        return f"  {plain(row.name)}"[:NAME_MAX]
    return plain(row.name or show.short(row.lease))[:NAME_MAX]


def _net(row: Row) -> str:
    if row.in_bytes_sec is None or row.out_bytes_sec is None:
        return ""
    return f"{show.size(round(row.in_bytes_sec))} / {show.size(round(row.out_bytes_sec))}"


COLUMNS = (
    Column("NAME", 100, _name, left=True),
    Column("LEASE", 20, lambda r: "" if r.container else show.short(r.lease), left=True),
    Column("SIDE", 15, lambda r: "" if r.container else r.side, left=True),
    Column("PEER", 10, lambda r: "" if r.container else show.short(r.peer), left=True),
    Column("STATE", 60, lambda r: r.state, left=True),
    Column("TIME", 25, lambda r: "" if r.container else show.duration(r.running_sec), "t"),
    Column("CPU", 90, _cpu, "c"),
    Column("MEMORY", 80, lambda r: _of(r.memory_bytes, r.memory_limit_bytes), "m"),
    Column("DISK", 40, lambda r: _of(r.disk_bytes, r.disk_limit_bytes), "d"),
    Column("IN / OUT A SECOND", 50, _net, "n"),
    Column("NOW", 85, lambda r: _number(r.msat_hour, show.hourly), "p"),
    Column("AT MOST", 30, lambda r: _number(r.msat_hour_max, show.hourly)),
    Column("DUE", 70, lambda r: _number(r.due_msat, show.sat), "b"),
    Column("PAID", 35, lambda r: _number(r.paid_msat, show.sat)),
)


def table(rows: Sequence[Row], width: int | None = None) -> tuple[list[str], list[Column]]:
    """Head and a line a row, no wider than *width*; and the columns that it has."""
    cells = {column: [column.head, *map(column.text, rows)] for column in COLUMNS}
    widths = {column: max(map(len, texts)) for column, texts in cells.items()}
    kept = list(COLUMNS)
    while width is not None and len(kept) > 1 and _total(widths[c] for c in kept) > width:
        kept.remove(min(kept, key=lambda column: column.keep))
    lines = [
        GAP.join(
            cells[c][n].ljust(widths[c]) if c.left else cells[c][n].rjust(widths[c]) for c in kept
        ).rstrip()
        for n in range(len(rows) + 1)
    ]
    return [line[:width] for line in lines], kept


def _total(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + len(GAP) * (len(each) - 1)


def summary(look: Look) -> list[str]:
    """One line for what we spend, one for what we earn; those that there are."""
    rented = [row for row in look.leases if row.side == "rented"]
    sold = [row for row in look.leases if row.side == "sold"]
    lines = []
    if rented or look.due_msat or not (sold or look.earned_msat):
        lines.append(_side("renting", rented, look.due_msat, look.paid_sat))
    if sold or look.earned_msat:
        lines.append(_side("selling", sold, look.earned_msat, look.income_sat))
    return lines


def _side(word: str, rows: Sequence[Row], due: int, paid: int) -> str:
    now, most = sum(row.msat_hour or 0 for row in rows), sum(row.msat_hour_max or 0 for row in rows)
    return (
        f"{word} {show.plural(len(rows), 'lease')}, {show.plural(sum(r.containers for r in rows), 'container')}: "
        f"{show.hourly(now)} now, at most {show.hourly(most)}; due {show.sat(due)}, paid {show.whole_sat(paid)}"
    )


class Frame(NamedTuple):
    lines: list[str]
    head: int
    """Which of them is the head of the table; -1 if there is none."""
    view: View
    """As it could be honoured: one cannot scroll past the end."""


def frame(look: Look, view: View, width: int, height: int, trouble: str = "") -> Frame:
    """Exactly what fits into *width* by *height* characters."""
    top = [plain(trouble)] if trouble else summary(look)
    if view.help:
        return Frame([line[:width] for line in (*top, "", *MORE_HELP)][:height], -1, view)
    rows = ordered(look, view.sort, reverse=view.reverse, containers=view.containers)
    top = top if height > len(top) + 3 else []
    room = max(1, height - len(top) - 2)
    first = max(0, min(view.first, len(rows) - room))
    lines, _ = table(rows, width)
    body = lines[1:][first : first + room] or ["nothing runs"]
    shown = [*top, lines[0], *body]
    shown += [""] * (height - 1 - len(shown))
    foot = HELP if len(rows) <= room else f"{first + 1}-{first + len(body)} of {len(rows)}  {HELP}"
    word = f"by {SORTS[view.sort][0]}{' reversed' if view.reverse else ''}  "
    all_lines = [line[:width] for line in (*shown[: height - 1], word + foot)]
    return Frame(all_lines[-height:], len(top), view._replace(first=first))


# -- keys --------------------------------------------------------------------------------------------
def pressed(view: View, key: str, page: int) -> View | None:
    """The view after *key*; None to leave. *page*: rows that are shown at once."""
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page, "home": -(1 << 30)}
    steps["end"] = 1 << 30
    sorts = list(SORTS)
    at = sorts.index(view.sort)
    match key:
        case "q" | "Q" | "escape":
            return view._replace(help=False) if view.help else None
        case "h" | "?":
            return view._replace(help=not view.help)
        case "r":
            return view._replace(reverse=not view.reverse)
        case "o":
            return view._replace(containers=not view.containers, first=0)
        case "left" | "right":
            return view._replace(sort=sorts[(at + (1 if key == "right" else -1)) % len(sorts)])
        case _ if key in SORTS:
            return view._replace(sort=key)
        case _ if key in steps:
            return view._replace(first=max(0, view.first + steps[key]))
        case _:
            return view
