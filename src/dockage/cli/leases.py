"""Tables of leases, for ``spend``, ``ps`` and ``why``; and how fast money goes, from two looks at the same lease."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from . import format as show
from .client import Json
from .table import table

HOUR_SEC = 3600
WINDOW_SEC = 10.0
"""The rate *now* is that of so many seconds: shorter jumps with every tick, longer hides a change."""
LOOKS_MAX = 64

Rates = dict[str, int]
"""Lease: msat per hour."""


class RateNow:
    """Fed with each answer of /v1/spend while it is watched."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Rates]] = deque(maxlen=LOOKS_MAX)

    def look(self, leases: Iterable[Json], now: float | None = None) -> Rates:
        """What each lease costs per hour at the pace of the last seconds; none before the second look."""
        at = time.monotonic() if now is None else now
        due = {lease["lease"]: int(lease["due_msat"]) for lease in leases}
        while len(self._looks) > 1 and self._looks[1][0] <= at - WINDOW_SEC:
            self._looks.popleft()
        self._looks.append((at, due))
        began, before = self._looks[0]
        if at <= began:
            return {}
        return {id: int((due[id] - before[id]) * HOUR_SEC / (at - began)) for id in due if id in before}


def average(lease: Json) -> int:
    """msat per hour since it began."""
    return int(lease["due_msat"]) * HOUR_SEC // max(1, int(lease["running_sec"]))


def listing(leases: Iterable[Json], rates: Rates | None = None) -> str:
    """With *rates* the pace of now, else the average so far."""
    pace = "NOW" if rates is not None else "AVERAGE"
    head = (
        *("LEASE", "DEPLOYMENT", "PROVIDER", "STATE", "TIME", "CPU", "MEMORY", "DISK", "NET IN / OUT"),
        *("DUE", pace, "AT MOST"),
    )
    rows = [_row(lease, rates) for lease in leases]
    return table(head, rows, right=("TIME", "CPU", "MEMORY", "DISK", "NET IN / OUT", "DUE", pace, "AT MOST"))


def _row(lease: Json, rates: Rates | None) -> tuple[str, ...]:
    used = lease["usage"]
    pace = average(lease) if rates is None else rates.get(lease["lease"], 0)
    return (
        show.short(lease["lease"]),
        lease["deployment"],
        show.short(lease["provider"]),
        lease["state"],
        show.duration(lease["running_sec"]),
        show.cpu_time(used["cpu_ns"]),
        show.size(lease["memory_bytes"]),
        show.size(lease["disk_bytes"]),
        f"{show.size(used['net_in_bytes'])} / {show.size(used['net_out_bytes'] + used['internet_out_bytes'])}",
        show.sat(lease["due_msat"]),
        show.hourly(pace),
        show.hourly(lease["msat_hour_max"]),
    )


def reasons(leases: Iterable[Json]) -> list[str]:
    """A line for each lease that has one."""
    return [f"{show.short(x['lease'])}: {why(x['reason'])}" for x in leases if x["reason"]]


def why(reason: Json) -> str:
    return f"{reason['text']} ({reason['code']})"
