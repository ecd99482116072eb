"""Tables of leases, for ``spend``, ``ps`` and ``why``; and how fast money goes, from two looks at the same lease."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from . import format as show
from .client import Json
from .pace import Pace
from .table import table

HOUR_SEC = 3600

Rates = dict[str, int]
"""Lease: msat per hour."""


class RateNow:
    """Fed with each answer of /v1/spend while it is watched."""

    def __init__(self) -> None:
        self._pace = Pace()

    def look(self, leases: Iterable[Json], now: float | None = None) -> Rates:
        """What each lease costs per hour at the pace of the last seconds; none before the second statement."""
        things = {x["lease"]: (int(x["stated_at_ms"]), (int(x["due_msat"]),)) for x in leases}
        return {id: int(rates[0] * HOUR_SEC) for id, rates in self._pace.look(things, now).items()}


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
        lease["deployment"] + (f" ({lease['service']})" if lease["service"] != "engine" else ""),
        show.short(lease["provider"]),
        lease["state"],
        show.duration(lease["running_sec"]),
        show.cpu_time(used["cpu_ns"]),
        show.size(lease["memory_bytes"]),
        show.size(lease["disk_bytes"]),
        show.traffic(used),
        show.sat(lease["due_msat"]),
        show.hourly(pace),
        show.hourly(lease["msat_hour_max"]),
    )


def reasons(leases: Sequence[Json]) -> list[str]:
    """A line for each lease that has one, or whose end is announced."""
    ends = [f"{show.short(x['lease'])}: {end(x['ending'])}" for x in leases if x.get("ending")]
    return ends + [
        f"{show.short(x['lease'])}: {said}{why(x[kind])}"
        for x in leases
        for kind, said in (("reason", ""), ("dispute", "nothing is paid: "), ("warning", "warning: "))
        if x.get(kind)
    ]


def end(of: Json) -> str:
    """An announced end, for people."""
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(of["at_sec"]))
    return f"ends at {at}, in {show.duration(of['in_sec'])}: {why(of)}"


def why(reason: Json) -> str:
    return f"{reason['text']} ({reason['code']})"
