"""From raw readings to cumulative usage.

A meter reports *cumulative* totals, never deltas: a lost, repeated or reordered statement then
costs nothing, and rounding can never add up. Counters telescope, so their rate of sampling does
not matter; gauges are integrated over the time between two samples, and a gap longer than
``GAP_MAX`` is charged nothing (research: metering.md §1.4).
"""

from __future__ import annotations

import msgspec

from .resources import Resources
from .units import MIB, MILLISECOND, SECOND, Duration

GAP_MAX = Duration(3 * SECOND)
"""A gauge is never extrapolated over a longer gap: the meter slept, so the tenant pays nothing for it."""


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Totals since the lease began. Every field is a non-negative integer and never falls.

    Space is in MiB times milliseconds, so that 64 bits last: a terabyte held for a year is 2^55, and in KiB it
    would no longer fit."""

    cpu_ns: int = 0
    memory_mib_ms: int = 0
    """Working set (usage less inactive file cache), integrated."""
    disk_mib_ms: int = 0
    """Blocks held by volumes and writable layers, integrated."""
    net_in_bytes: int = 0
    """Payload bytes through the tunnel, tenant to container."""
    net_out_bytes: int = 0
    """Payload bytes through the tunnel, container to tenant."""
    internet_out_bytes: int = 0
    """Bytes a container sent to the internet by itself (IP layer)."""
    replica_out_bytes: int = 0
    """Bytes that the lease's containers sent to each other, or to the deployment's other replicas by themselves
    (IP layer)."""
    cpu_reserved_ns: int = 0
    """Core-nanoseconds that were kept free for the lease, used or not."""
    memory_reserved_mib_ms: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in self.__struct_fields__))

    def covers(self, earlier: Usage) -> bool:
        """True if no total went backwards since *earlier*."""
        return all(getattr(self, f) >= getattr(earlier, f) for f in self.__struct_fields__)


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine shows at one moment: raw counters and gauges, and which epoch they belong to."""

    boottime_ns: int
    """CLOCK_BOOTTIME when it was read: never steps, counts suspend."""
    boot: str
    """The kernel's boot id: cgroup counters start from 0 in a new one."""
    run: str
    """The metering process's own id: tunnel counters start from 0 in a new one."""
    cpu_ns: int
    memory_bytes: int
    disk_bytes: int
    tunnel_in_bytes: int = 0
    tunnel_out_bytes: int = 0
    internet_out_bytes: int = 0
    replica_out_bytes: int = 0
    containers: int = 0
    """How many containers run now (for display, not for the bill)."""
    until_ns: int = 0
    """CLOCK_BOOTTIME: gauges stand for the time up to here, if that is later than when they were read."""

    @property
    def end_ns(self) -> int:
        return max(self.boottime_ns, self.until_ns)


class Meter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The running integral: usage so far and the reading it was brought up to."""

    usage: Usage = Usage()
    last: Reading | None = None
    rest: tuple[int, int, int] = (0, 0, 0)
    """Byte-milliseconds of memory, disk and reserved memory that do not fill a MiB millisecond yet: carried to
    the next reading, for a rounding in each tick would add up."""


def full_use(limits: Resources, time: Duration) -> Usage:
    """The most that a lease of *limits* can use in *time*, network aside."""
    ms, kept = time // MILLISECOND, limits.reserved
    return Usage(
        cpu_ns=limits.cpu_milli * ms * 1000,
        memory_mib_ms=limits.memory_bytes * ms // MIB,
        disk_mib_ms=limits.disk_bytes * ms // MIB,
        cpu_reserved_ns=kept.cpu_milli * ms * 1000,
        memory_reserved_mib_ms=kept.memory_bytes * ms // MIB,
    )


def advance(meter: Meter, reading: Reading, limits: Resources, gap_max: Duration = GAP_MAX) -> Meter:
    """Bring *meter* up to *reading*. The first reading opens the meter and bills nothing. Of *limits* only what is
    reserved is billed by itself."""
    last, reserved = meter.last, limits.reserved
    if last is None:
        return Meter(meter.usage, reading)
    if reading.boot == last.boot and reading.boottime_ns < last.boottime_ns:
        return meter  # an older reading that arrived late: the newer one already covers it
    elapsed_ms = _elapsed_ms(last, reading, gap_max)
    used = meter.usage
    held = (reading.memory_bytes, reading.disk_bytes, reserved.memory_bytes)
    grown = [divmod(rest + size * elapsed_ms, MIB) for rest, size in zip(meter.rest, held, strict=True)]
    (memory, memory_rest), (disk, disk_rest), (kept, kept_rest) = grown
    return Meter(
        Usage(
            cpu_ns=used.cpu_ns + _grown(last.cpu_ns, reading.cpu_ns, same=reading.boot == last.boot),
            memory_mib_ms=used.memory_mib_ms + memory,
            disk_mib_ms=used.disk_mib_ms + disk,
            net_in_bytes=used.net_in_bytes
            + _grown(last.tunnel_in_bytes, reading.tunnel_in_bytes, same=reading.run == last.run),
            net_out_bytes=used.net_out_bytes
            + _grown(last.tunnel_out_bytes, reading.tunnel_out_bytes, same=reading.run == last.run),
            internet_out_bytes=used.internet_out_bytes
            + _grown(last.internet_out_bytes, reading.internet_out_bytes, same=reading.boot == last.boot),
            replica_out_bytes=used.replica_out_bytes
            + _grown(last.replica_out_bytes, reading.replica_out_bytes, same=reading.boot == last.boot),
            cpu_reserved_ns=used.cpu_reserved_ns + reserved.cpu_milli * elapsed_ms * 1000,
            memory_reserved_mib_ms=used.memory_reserved_mib_ms + kept,
        ),
        reading,
        (memory_rest, disk_rest, kept_rest),
    )


def _elapsed_ms(last: Reading, reading: Reading, gap_max: Duration) -> int:
    """Milliseconds to integrate gauges over. Both instants are floored, so the floors telescope too."""
    if reading.boot != last.boot or reading.end_ns - last.end_ns > gap_max:
        return 0
    return max(0, reading.end_ns // MILLISECOND - last.end_ns // MILLISECOND)


def _grown(before: int, now: int, *, same: bool) -> int:
    """How far a counter moved. In a new epoch, or when it fell, it started again from 0."""
    return now - before if same and now >= before else now
