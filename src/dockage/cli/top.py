"""What ``dockage top`` knows: one row a lease, ours and those we sell, and one for each container of ours.

Pure: two looks at the same lease give its pace, a tariff gives a container's share. Counterpart: ``screen.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .client import Json
from .containers import Use
from .pace import Pace

HOUR_SEC = 3600
TRAFFIC_OUT = ("net_out_bytes", "internet_out_bytes", "replica_out_bytes")


class Row(NamedTuple):
    """A figure that is not known (yet) is None."""

    side: str
    """ "rented" or "sold"."""
    lease: str
    container: str
    """Its id; "" for the lease itself."""
    name: str
    """The container, or the deployment, or "" where only the tenant knows it."""
    peer: str
    state: str
    running_sec: int
    containers: int
    cpu_cores: float | None
    cpu_cores_limit: float | None
    memory_bytes: int
    memory_limit_bytes: int
    disk_bytes: int | None
    disk_limit_bytes: int | None
    in_bytes_sec: float | None
    out_bytes_sec: float | None
    msat_hour: int | None
    """At the pace of the last seconds; of a container, its CPU and memory alone."""
    msat_hour_max: int | None
    due_msat: int | None
    paid_msat: int | None
    """What is paid covers the oldest leases of the pair first."""


class Look(NamedTuple):
    """One moment of a node."""

    leases: tuple[Row, ...]
    containers: tuple[Row, ...]
    due_msat: int
    """Of all that was ever rented, and of what was ever sold."""
    earned_msat: int
    paid_sat: int
    income_sat: int

    def value(self, at_ms: int) -> Json:
        """As ``--json`` prints it."""
        return {
            "at_ms": at_ms,
            "leases": [row._asdict() for row in self.leases],
            "containers": [row._asdict() for row in self.containers],
            "spent": {"due_msat": self.due_msat, "paid_sat": self.paid_sat},
            "earned": {"due_msat": self.earned_msat, "paid_sat": self.income_sat},
        }


class Watcher:
    """Fed with the node's answers, again and again."""

    def __init__(self) -> None:
        self._leases, self._containers = Pace(), Pace()

    def look(
        self, spend: Json, earnings: Json | None, channels: Iterable[Json], uses: Iterable[Use] = ()
    ) -> Look:
        channels, sells = list(channels), earnings or {"leases": [], "due_msat": 0, "paid_sat": 0}
        sides = [("rented", x) for x in spend["leases"]] + [("sold", x) for x in sells["leases"]]
        paces = self._leases.look(
            {f"{side} {x['lease']}": (x["stated_at_ms"], _counters(x)) for side, x in sides}
        )
        paid = _paid(sides, channels)
        rows = tuple(
            _lease(side, x, paces.get(f"{side} {x['lease']}"), paid[side, x["lease"]])
            for side, x in sides
            if x["state"] != "ended"
        )
        return Look(
            rows,
            self._parts(spend["leases"], tuple(uses)),
            spend["due_msat"],
            sells["due_msat"],
            spend["paid_sat"],
            sells["paid_sat"],
        )

    def _parts(self, leases: Iterable[Json], uses: tuple[Use, ...]) -> tuple[Row, ...]:
        known = {lease["lease"]: lease for lease in leases}
        paces = self._containers.look({x.id: (x.at_ms, (x.cpu_ns, x.received, x.sent)) for x in uses})
        mine = [use for use in uses if use.lease in known]
        return tuple(_container(known[use.lease], use, paces.get(use.id)) for use in mine)


def _counters(lease: Json) -> tuple[int, ...]:
    used = lease["usage"]
    out = sum(used[field] for field in TRAFFIC_OUT)
    return used["cpu_ns"], used["net_in_bytes"], out, lease["due_msat"]


def _paid(sides: Iterable[tuple[str, Json]], channels: Iterable[Json]) -> dict[tuple[str, str], int]:
    """Payment is the pair's; what there is goes to its oldest leases first."""
    roles = {"paying": "rented", "earning": "sold"}
    left: dict[tuple[str, str], int] = {}
    for channel in channels:
        pair = (roles[channel["role"]], channel["peer"])
        left[pair] = left.get(pair, 0) + 1000 * int(channel["paid_sat"])
    found = {}
    for side, lease in sides:
        pair = (side, _peer(lease))
        found[side, lease["lease"]] = covered = min(left.get(pair, 0), int(lease["due_msat"]))
        left[pair] = left.get(pair, 0) - covered
    return found


def _peer(lease: Json) -> str:
    return str(lease["provider"] if "provider" in lease else lease["tenant"])


def _lease(side: str, lease: Json, pace: tuple[float, ...] | None, paid: int) -> Row:
    cpu, into, out, due = pace or (None, None, None, None)
    limits = lease["limits"]
    return Row(
        side=side,
        lease=lease["lease"],
        container="",
        name=lease.get("deployment", ""),
        peer=_peer(lease),
        state=lease["state"],
        running_sec=lease["running_sec"],
        containers=lease["containers"],
        cpu_cores=None if cpu is None else cpu / 1e9,
        cpu_cores_limit=limits["cpu_milli"] / 1000,
        memory_bytes=lease["memory_bytes"],
        memory_limit_bytes=limits["memory_bytes"],
        disk_bytes=lease["disk_bytes"],
        disk_limit_bytes=limits["disk_bytes"],
        in_bytes_sec=into,
        out_bytes_sec=out,
        msat_hour=None if due is None else int(due * HOUR_SEC),
        msat_hour_max=lease["msat_hour_max"],
        due_msat=lease["due_msat"],
        paid_msat=paid,
    )


def _container(lease: Json, use: Use, pace: tuple[float, ...] | None) -> Row:
    cpu, into, out = pace or (None, None, None)
    return Row(
        side="rented",
        lease=use.lease,
        container=use.id,
        name=use.name,
        peer=_peer(lease),
        state=use.state,
        running_sec=0,
        containers=1,
        cpu_cores=None if cpu is None else cpu / 1e9,
        cpu_cores_limit=None,
        memory_bytes=use.memory,
        memory_limit_bytes=use.memory_limit,
        disk_bytes=None,
        disk_limit_bytes=None,
        in_bytes_sec=into,
        out_bytes_sec=out,
        msat_hour=None if cpu is None else _share(lease["tariff"], cpu, use.memory),
        msat_hour_max=None,
        due_msat=None,
        paid_msat=None,
    )


def _share(tariff: Mapping[str, int], cpu_ns_sec: float, memory: int) -> int:
    """msat an hour of CPU and memory at this pace."""
    from dockage.domain.pricing import Tariff, price
    from dockage.domain.units import MIB
    from dockage.domain.usage import Usage

    hour = Usage(cpu_ns=int(cpu_ns_sec * HOUR_SEC), memory_mib_ms=memory * HOUR_SEC * 1000 // MIB)
    return price(hour, Tariff(**{name.removesuffix("_msat"): value for name, value in tariff.items()}))


# -- order -------------------------------------------------------------------------------------------
SORTS: dict[str, tuple[str, str]] = {
    "c": ("cpu", "cpu_cores"),
    "m": ("memory", "memory_bytes"),
    "d": ("disk", "disk_bytes"),
    "n": ("net", "out_bytes_sec"),
    "p": ("price", "msat_hour"),
    "b": ("bill", "due_msat"),
    "t": ("time", "running_sec"),
}
"""Key: what it sorts by, and the field."""


def ordered(look: Look, key: str, *, reverse: bool = False, containers: bool = True) -> list[Row]:
    """The most first; each lease is followed by its containers, in the same order."""
    _, field = SORTS[key]

    def weight(row: Row) -> Any:
        value = getattr(row, field)
        return (value or 0) * (1 if reverse else -1), row.side, row.name, row.lease, row.container

    found: list[Row] = []
    for lease in sorted(look.leases, key=weight):
        found.append(lease)
        if containers and lease.side == "rented":
            found += sorted((c for c in look.containers if c.lease == lease.lease), key=weight)
    return found
