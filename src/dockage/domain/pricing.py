"""What usage costs: one tariff, one sum, one division.

A charge is always ``price(total usage)``. Rounding each tick down instead lost 5.9 % of the revenue
in a measured run (research: style.md §0.3).
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from operator import mul

import msgspec
from msgspec.structs import astuple

from .resources import Resources
from .units import GIB, HOUR, MIB, MILLISECOND, Duration, Msat
from .usage import Usage, full_use


class Tariff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices in msat per coarse unit, as printed on an offer. Each is a visible line; each may be 0."""

    cpu_hour: int = 0
    """Per core-hour used."""
    memory_gib_hour: int = 0
    disk_gib_hour: int = 0
    net_in_gib: int = 0
    net_out_gib: int = 0
    internet_out_gib: int = 0
    replica_out_gib: int = 0
    """Between a deployment's own containers."""
    cpu_reserved_hour: int = 0
    """Per core-hour kept free for the lease."""
    memory_reserved_gib_hour: int = 0

    @property
    def is_free(self) -> bool:
        return not any(getattr(self, f) for f in self.__struct_fields__)

    def exceeds(self, other: Tariff) -> bool:
        """True if any line is dearer than in *other*: a cheap core does not make up for dear traffic."""
        return any(getattr(self, f) > getattr(other, f) for f in self.__struct_fields__)

    @property
    def is_sane(self) -> bool:
        """False for a peer's nonsense: a negative price, or one past the whole bitcoin supply."""
        return all(0 <= getattr(self, f) <= 2_100_000_000_000_000_000 for f in self.__struct_fields__)


_CPU_UNIT = HOUR
_SPACE_UNIT = GIB // MIB * (HOUR // MILLISECOND)
_SCALE = _CPU_UNIT * GIB
# One common denominator, so that a price is rounded once and not once per resource.
_SPACE_FACTOR = _SCALE // _SPACE_UNIT
assert _SPACE_FACTOR * _SPACE_UNIT == _SCALE


FIELDS = {
    "cpu": "cpu_ns",
    "memory": "memory_mib_ms",
    "disk": "disk_mib_ms",
    "net_in": "net_in_bytes",
    "net_out": "net_out_bytes",
    "internet_out": "internet_out_bytes",
    "replica_out": "replica_out_bytes",
    "cpu_reserved": "cpu_reserved_ns",
    "memory_reserved": "memory_reserved_mib_ms",
}
"""What each line of a bill is a price for: its field of ``Usage``."""


def price(usage: Usage, tariff: Tariff) -> Msat:
    """The whole charge for *usage* in msat, rounded down once: in the tenant's favour."""
    return Msat(sum(lines(usage, tariff).values()) // _SCALE)


def lines(usage: Usage, tariff: Tariff) -> dict[str, int]:
    """What each resource contributes, in msat times ``SCALE``: exact, so the lines add up to the sum."""
    return {
        "cpu": usage.cpu_ns * tariff.cpu_hour * GIB,
        "memory": usage.memory_mib_ms * tariff.memory_gib_hour * _SPACE_FACTOR,
        "disk": usage.disk_mib_ms * tariff.disk_gib_hour * _SPACE_FACTOR,
        "net_in": usage.net_in_bytes * tariff.net_in_gib * _CPU_UNIT,
        "net_out": usage.net_out_bytes * tariff.net_out_gib * _CPU_UNIT,
        "internet_out": usage.internet_out_bytes * tariff.internet_out_gib * _CPU_UNIT,
        "replica_out": usage.replica_out_bytes * tariff.replica_out_gib * _CPU_UNIT,
        "cpu_reserved": usage.cpu_reserved_ns * tariff.cpu_reserved_hour * GIB,
        "memory_reserved": usage.memory_reserved_mib_ms * tariff.memory_reserved_gib_hour * _SPACE_FACTOR,
    }


def pricer(usage: Usage) -> Callable[[Tariff], Msat]:
    """``price(usage, ...)`` for thousands of tariffs: what each unit of a price adds is worked out once, in the
    smallest numbers that give the same quotient; equal tariffs are priced once."""
    each = lines(usage, Tariff(*[1] * len(Tariff.__struct_fields__))).values()
    common = gcd(_SCALE, *each)
    weights, scale = tuple(weight // common for weight in each), _SCALE // common
    known: dict[Tariff, Msat] = {}

    def priced(tariff: Tariff) -> Msat:
        found = known.get(tariff)
        if found is None:
            found = known[tariff] = Msat(sum(map(mul, weights, astuple(tariff))) // scale)
        return found

    return priced


def parts(usage: Usage, tariff: Tariff) -> dict[str, Msat]:
    """What each resource adds to ``price``, in whole msat that add up to it: the running sum is what is rounded, so
    each part is true to 1 msat."""
    found, so_far = dict[str, Msat](), 0
    for name, value in lines(usage, tariff).items():
        found[name] = Msat((so_far + value) // _SCALE - so_far // _SCALE)
        so_far += value
    return found


def scaled(tariff: Tariff, times: int, over: int) -> Tariff:
    """Every line times *times* / *over*, rounded down: in the tenant's favour."""
    return Tariff(*(getattr(tariff, f) * times // over for f in tariff.__struct_fields__))


def by_use(base: Tariff, sold_permille: int, empty_percent: int, full_percent: int) -> Tariff:
    """Cheaper while the machine is idle, dearer as it fills up: in a straight line between the two percentages."""
    percent_permille = empty_percent * 1000 + (full_percent - empty_percent) * sold_permille
    return scaled(base, percent_permille, 100_000)


def at_rate(base: Tariff, reference_micro: int, rate_micro: int) -> Tariff:
    """*base* holds when a bitcoin costs *reference_micro* millionths of a display unit: at *rate_micro* each line
    is worth the same in that unit."""
    return scaled(base, reference_micro, rate_micro)


def ceiling(limits: Resources, tariff: Tariff, time: Duration) -> Msat:
    """The most that *limits* can cost in *time*, network aside: the worst case shown in a quote."""
    return price(full_use(limits, time), tariff)


def waiting(limits: Resources, tariff: Tariff, time: Duration) -> Msat:
    """The most that a standby can cost while nothing of it runs: its disk, and what is reserved for it."""
    full = full_use(limits, time)
    idle = Usage(
        disk_mib_ms=full.disk_mib_ms,
        cpu_reserved_ns=full.cpu_reserved_ns,
        memory_reserved_mib_ms=full.memory_reserved_mib_ms,
    )
    return price(idle, tariff)


def usual(limits: Resources, tariff: Tariff, time: Duration) -> Msat:
    """What an ordinary server comes to: a tenth of its CPU, half its memory, a tenth of its disk; what is reserved
    is reserved all the time. Only to give people an idea."""
    full = full_use(limits, time)
    return price(
        Usage(
            cpu_ns=full.cpu_ns // 10,
            memory_mib_ms=full.memory_mib_ms // 2,
            disk_mib_ms=full.disk_mib_ms // 10,
            cpu_reserved_ns=full.cpu_reserved_ns,
            memory_reserved_mib_ms=full.memory_reserved_mib_ms,
        ),
        tariff,
    )


PRESETS = {
    "fair": Tariff(
        cpu_hour=8_000,
        memory_gib_hour=4_000,
        disk_gib_hour=100,
        net_in_gib=0,
        net_out_gib=20_000,
        internet_out_gib=20_000,
    ),
    "cheap": Tariff(
        cpu_hour=4_000,
        memory_gib_hour=2_000,
        disk_gib_hour=50,
        net_in_gib=0,
        net_out_gib=10_000,
        internet_out_gib=10_000,
    ),
    "free": Tariff(),
}
"""Named tariffs. *fair* puts a small container (0.05 core, 256 MiB) near 1,000 sat a month."""
