"""A provider's machine: containers that use cores, memory, disk and bytes, are frozen, crash and come back.

Counterpart: ``adapters/host``. The one rule: it knows the truth (``used``), which the checkers hold against the
bill; a reading shows only what a real machine shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from dockage.domain.checks import Beside, Counted, Look, Probe
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, MILLISECOND, Instant
from dockage.domain.usage import Reading, Usage


@dataclass(slots=True)
class Room:
    """What one lease has on the machine."""

    limits: Resources
    busy: float
    """Share of its cores that the containers use."""
    filled: float
    """Share of its memory and disk."""
    rate: int
    """Tunnel bytes a second, each way; half as many go to the internet."""
    touched: Instant
    frozen: bool = False
    used: Usage = field(default_factory=Usage)
    """The truth, over restarts."""
    base: Usage = field(default_factory=Usage)
    """Of it, before this boot: kernel counters begin anew."""
    runs: int = 0


WALL_NS = 500 * MILLISECOND
STEAL_MOST = 0.3
"""Of a core, that an honest machine may lose for a moment: a hypervisor, a busy neighbour."""


class Host:
    def __init__(self, name: str, random: Random) -> None:
        self._name, self._random, self._busy = name, random, Random(name)
        self._boot = 0
        self.given = 1.0
        """Share of what it sold that its containers can really get."""
        self.rooms: dict[LeaseId, Room] = {}
        self.history: dict[LeaseId, Usage] = {}
        """The truth about every lease that was ever here."""

    def prepare(self, lease: LeaseId, limits: Resources, now: Instant) -> None:
        room = self.rooms.get(lease)
        if room is None:
            busy, filled = self._random.uniform(0.05, 1.0), self._random.uniform(0.1, 0.9)
            self.rooms[lease] = Room(limits, busy, filled, self._random.randrange(200_000), now)
        else:
            self._catch_up(lease, room, now)
            room.limits = limits

    def pause(self, lease: LeaseId, now: Instant) -> None:
        self._freeze(lease, now, frozen=True)

    def thaw(self, lease: LeaseId, now: Instant) -> None:
        self._freeze(lease, now, frozen=False)

    def _freeze(self, lease: LeaseId, now: Instant, *, frozen: bool) -> None:
        room = self.rooms.get(lease)
        if room is not None:
            self._catch_up(lease, room, now)
            room.frozen = frozen

    def teardown(self, lease: LeaseId) -> None:
        self.rooms.pop(lease, None)

    def reboot(self, now: Instant) -> None:
        """The kernel starts again: counters at 0, containers come back by themselves."""
        for lease, room in self.rooms.items():
            self._catch_up(lease, room, now)
            room.base = room.used
        self._boot += 1

    def restart_meter(self, now: Instant) -> None:
        """The daemon starts again: its own counters of tunnel bytes at 0."""
        for lease, room in self.rooms.items():
            self._catch_up(lease, room, now)
            room.base = replace_tunnel(room.base, room.used)
            room.runs += 1

    def read(self, lease: LeaseId, now: Instant) -> Reading | None:
        room = self.rooms.get(lease)
        if room is None:
            return None
        self._catch_up(lease, room, now)
        used, base = room.used, room.base
        return Reading(
            boottime_ns=now,
            boot=f"{self._name}/{self._boot}",
            run=f"{self._name}/{self._boot}/{room.runs}",
            cpu_ns=used.cpu_ns - base.cpu_ns,
            memory_bytes=int(room.limits.memory_bytes * room.filled),
            disk_bytes=int(room.limits.disk_bytes * room.filled),
            tunnel_in_bytes=used.net_in_bytes - base.net_in_bytes,
            tunnel_out_bytes=used.net_out_bytes - base.net_out_bytes,
            internet_out_bytes=used.internet_out_bytes - base.internet_out_bytes,
            replica_out_bytes=used.replica_out_bytes - base.replica_out_bytes,
            containers=0 if room.frozen else 1,
        )

    def look(self, lease: LeaseId, now: Instant) -> Look | None:
        """What the tenant sees from inside: the truth, on a machine that is busy now and then."""
        room = self.rooms.get(lease)
        if room is None or room.frozen:
            return None
        self._catch_up(lease, room, now)
        cpu = room.used.cpu_ns - room.base.cpu_ns
        memory = int(room.limits.memory_bytes * room.filled)
        counted = Counted("web", f"{self._name}/{self._boot}", cpu, memory)
        return Look((counted,), probe=self._probe(room))

    def _probe(self, room: Room) -> Probe:
        """A container more: it gets what the other leaves, and at least half."""
        there = room.limits.cpu_milli / 1000 * self.given * (1 - self._busy.uniform(0, STEAL_MOST))
        wanted = room.limits.cpu_milli / 1000 * room.busy
        ours = max(there - wanted, there / 2)
        around = int(WALL_NS * (min(wanted, there - ours) + 2 * min(wanted, there)))
        cpu = int(WALL_NS * ours)
        return Probe(WALL_NS, cpu, cpu // 1000, beside=Beside(around, 3 * WALL_NS, 1024))

    def _catch_up(self, lease: LeaseId, room: Room, now: Instant) -> None:
        ms = now // MILLISECOND - room.touched // MILLISECOND
        moving = 0 if room.frozen else ms
        memory = int(room.limits.memory_bytes * room.filled)
        disk = int(room.limits.disk_bytes * room.filled)
        carried = room.rate * moving // 1000
        room.used += Usage(
            cpu_ns=int(room.limits.cpu_milli * min(room.busy, self.given)) * moving * 1000,
            memory_mib_ms=-(-memory * ms // MIB),
            disk_mib_ms=-(-disk * ms // MIB),
            net_in_bytes=carried,
            net_out_bytes=carried,
            internet_out_bytes=carried // 2,
            replica_out_bytes=carried // 4,
            cpu_reserved_ns=room.limits.reserved.cpu_milli * ms * 1000,
            memory_reserved_mib_ms=-(-room.limits.reserved.memory_bytes * ms // MIB),
        )
        room.touched = now
        self.history[lease] = room.used


def replace_tunnel(base: Usage, used: Usage) -> Usage:
    return Usage(
        cpu_ns=base.cpu_ns,
        net_in_bytes=used.net_in_bytes,
        net_out_bytes=used.net_out_bytes,
        internet_out_bytes=base.internet_out_bytes,
        replica_out_bytes=base.replica_out_bytes,
    )
