"""``ports.renting.Leases`` without a market: every lease is one of the same host, in this process.

The host behind it may be the real one or ``FakeHost``. It keeps the port's promises that callers trip over: streams
are cut when a lease ends, an ended lease says why, and a provider that vanished is an error and not silence.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import Resources
from dockage.domain.units import GIB
from dockage.ports.hosting import ContainerHost
from dockage.ports.peers import Stream
from dockage.ports.renting import LeaseInfo, Progress

from .link import MemoryStream, Pipe

ROOM = Resources(cpu_milli=64_000, memory_bytes=64 * GIB, disk_bytes=100 * GIB)
PROVIDER = NodeKey(hashlib.sha256(b"a provider").digest())


def memory_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one stream, with the back-pressure and the breaks of a real one."""
    there, back = Pipe(frozenset()), Pipe(frozenset())
    return MemoryStream(back, there, lambda: None), MemoryStream(there, back, lambda: None)


@dataclass
class _Lease:
    info: LeaseInfo
    streams: list[MemoryStream] = field(default_factory=list)


class FakeLeases:
    """``room`` is what the market has at all; ``obtained`` and ``released`` tell a test what was asked."""

    def __init__(
        self,
        host: ContainerHost,
        tasks: asyncio.TaskGroup,
        new_id: Callable[[], LeaseId],
        room: Resources = ROOM,
    ) -> None:
        self._host, self._tasks, self._new_id, self.room = host, tasks, new_id, room
        self._leases: dict[LeaseId, _Lease] = {}
        self._ended: dict[LeaseId, str] = {}
        self.obtained: list[tuple[str, Resources, dict[str, str]]] = []
        self.released: list[LeaseId] = []
        self.out_of_reach: set[LeaseId] = set()
        """Leases whose provider does not answer."""

    # -- ports.renting.Leases --------------------------------------------------------------------------------
    async def obtain(
        self, deployment: str, need: Resources, wishes: Mapping[str, str], progress: Progress
    ) -> LeaseInfo:
        self.obtained.append((deployment, need, dict(wishes)))
        held = next((one for one in self._leases.values() if one.info.deployment == deployment), None)
        limits = need if held is None else held.info.limits + need
        if lacking := limits.lacking(self.room):
            raise UsageError("market.nothing-fits", f"no offer has enough {', '.join(lacking)}")
        progress(f"a lease for {deployment}")
        id_ = self._new_id() if held is None else held.info.id
        await self._host.prepare(id_, limits)
        info = LeaseInfo(id_, deployment, PROVIDER, "running", limits, 1234, "")
        if held is None:
            self._leases[id_] = _Lease(info)
        else:
            held.info = info
        return info

    async def rename(self, lease: LeaseId, deployment: str) -> LeaseInfo:
        if lease not in self._leases:
            raise Unavailable("lease.ended", f"the lease {lease.hex()[:8]} has ended")
        held = self._leases[lease]
        held.info = held.info._replace(deployment=deployment)
        return held.info

    async def release(self, lease: LeaseId) -> None:
        self.released.append(lease)
        await self.end(lease, "released by the tenant")

    def all(self) -> Sequence[LeaseInfo]:
        return [one.info for one in self._leases.values()]

    async def engine(self, lease: LeaseId) -> Stream:
        return self._open(lease, lambda stream: self._host.serve_engine(lease, stream))

    async def tunnel(self, lease: LeaseId, container: str, port: int) -> Stream:
        return self._open(lease, lambda stream: self._host.serve_tunnel(lease, container, port, stream))

    async def datagrams(self, lease: LeaseId, container: str, port: int) -> Stream:
        return self._open(lease, lambda stream: self._host.serve_datagrams(lease, container, port, stream))

    async def layers(self, lease: LeaseId) -> Stream:
        return self._open(lease, lambda stream: self._host.serve_layers(lease, stream))

    # -- what a test does ----------------------------------------------------------------------------
    async def end(self, lease: LeaseId, reason: str) -> None:
        """The provider ends it: streams break, everything in it is removed."""
        gone = self._leases.pop(lease, None)
        if gone is None:
            return
        self._ended[lease] = reason
        for stream in gone.streams:
            stream.abort()
        await self._host.teardown(lease)

    def begin_end(self, lease: LeaseId, reason: str) -> None:
        """Its end is asked for and not confirmed yet: it serves nothing any more, and is not over."""
        held = self._leases[lease]
        held.info = held.info._replace(state="ending", reason=reason)
        for stream in held.streams:
            stream.abort()

    def vanish(self, lease: LeaseId) -> None:
        """The provider's line is cut."""
        self.out_of_reach.add(lease)
        for stream in self._leases[lease].streams:
            stream.abort()

    def _open(self, lease: LeaseId, serve: Callable[[Stream], Awaitable[None]]) -> Stream:
        held = self._leases.get(lease)
        if held is None or held.info.state == "ending":
            why = held.info.reason if held else self._ended.get(lease, "it never was")
            raise Unavailable("lease.ended", f"the lease {lease.hex()[:8]} is not running: {why}")
        if lease in self.out_of_reach:
            raise Unavailable("peer.unreachable", "the provider does not answer")
        ours, theirs = memory_pair()
        held.streams.append(ours)
        self._tasks.create_task(self._serve(serve, held, ours, theirs))
        return ours

    async def _serve(
        self,
        serve: Callable[[Stream], Awaitable[None]],
        held: _Lease,
        ours: MemoryStream,
        theirs: MemoryStream,
    ) -> None:
        try:
            await serve(theirs)
        except DockageError:
            pass  # as the real link does: a failed call ends with its stream
        finally:
            theirs.abort()
            held.streams.remove(ours)
