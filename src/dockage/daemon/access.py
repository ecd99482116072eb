"""The provider's door: a stream to an engine, a tunnel or for layers is served to the lease's own tenant only; a tunnel
also to whom that tenant granted it, such as a gateway, until the tenant fences the grant's epoch. So may a deputy end
the lease."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import LeaseState
from dockage.node.deputy import BY_DEPUTY
from dockage.node.events import EndRequested
from dockage.node.provider import Provider
from dockage.ports.hosting import ContainerHost, OpenSource
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.grants import Grant, Use, open_grant
from dockage.wire.frames import write_frame

from .driver import Driver
from .fences import Fences
from .peers import Reception

STREAMS_PER_LEASE = 512
"""Served at once: engine calls, tunnels and layers together. As many again wait for their turn."""
TURN_SEC = 2.0
"""How long. Who asks in a burst is late then; to be refused, it would take the lease for dead."""
ENDED = (LeaseState.ENDING, LeaseState.ENDED)
BAD_LUCK = frozenset({"grant.expired", "grant.fenced"})
"""What an honest holder comes to show, too: it costs the stream, not the connection."""


class Access:
    def __init__(
        self,
        driver: Driver[Provider],
        host: ContainerHost,
        open_source: OpenSource,
        keys: Keys,
        clock: Clock,
        fences: Fences,
    ) -> None:
        self._driver, self._host, self._open_source = driver, host, open_source
        self._keys, self._clock, self._fences = keys, clock, fences
        self._open: Counter[LeaseId] = Counter()
        """With those that wait."""
        self._room: dict[LeaseId, asyncio.Semaphore] = {}
        self._granted: dict[LeaseId, dict[Stream, int]] = {}
        """Open streams of holders, with the epoch of the grant."""
        self._refused: Counter[str] = Counter()

    def register(self, reception: Reception) -> None:
        self._refused = reception.refused
        reception.serve_kind(streams.Engine, self._engine)
        reception.serve_kind(streams.Tunnel, self._tunnel)
        reception.serve_kind(streams.Datagrams, self._datagrams)
        reception.serve_kind(streams.Layers, self._layers)
        reception.serve_kind(streams.Fence, self._fence)
        reception.serve_kind(streams.EndLease, self._end)

    async def _engine(self, peer: NodeKey, header: streams.Engine, stream: Stream) -> None:
        self._check_tenant(peer, header.lease)
        await self._serve(header.lease, lambda: self._host.serve_engine(header.lease, stream))

    async def _tunnel(self, peer: NodeKey, header: streams.Tunnel, stream: Stream) -> None:
        with self._admitted(peer, header, stream):
            await self._serve(
                header.lease,
                lambda: self._host.serve_tunnel(header.lease, header.container, header.port, stream),
            )

    async def _datagrams(self, peer: NodeKey, header: streams.Datagrams, stream: Stream) -> None:
        with self._admitted(peer, header, stream):
            await self._serve(
                header.lease,
                lambda: self._host.serve_datagrams(header.lease, header.container, header.port, stream),
            )

    async def _layers(self, peer: NodeKey, header: streams.Layers, stream: Stream) -> None:
        self._check_tenant(peer, header.lease)
        await self._serve(
            header.lease, lambda: self._host.serve_layers(header.lease, stream, self._open_source)
        )

    async def _fence(self, peer: NodeKey, header: streams.Fence, stream: Stream) -> None:
        """Also of a lease that is over: a tenant that is cut off from us asks late."""
        self._check_tenant(peer, header.lease)
        epoch = await self._fences.lift(header.lease, header.epoch)
        for granted, its in tuple(self._granted.get(header.lease, {}).items()):
            if its < epoch:
                granted.abort()
        await write_frame(stream, streams.encode_header(streams.Fence(header.lease, epoch)))
        await stream.finish()

    async def _end(self, peer: NodeKey, header: streams.EndLease, stream: Stream) -> None:
        """By a deputy, whose tenant may be on the other side of a cut: what it believes counts no more."""
        self._open_grant(peer, header.lease, header.grant, "end")
        await self._driver.tell(EndRequested(header.lease, BY_DEPUTY))
        await write_frame(stream, streams.encode_header(header))
        await stream.finish()

    # -- who may ---------------------------------------------------------------------------------------
    def _check_tenant(self, peer: NodeKey, lease: LeaseId) -> None:
        if self._tenant(lease) != peer:
            raise PeerError("lease.unknown", "no such lease of yours here")

    def _tenant(self, lease: LeaseId) -> NodeKey | None:
        held = self._driver.state.leases.get(lease)
        return None if held is None else held.tenant

    @contextmanager
    def _admitted(
        self, peer: NodeKey, header: streams.Tunnel | streams.Datagrams, stream: Stream
    ) -> Iterator[None]:
        """The tenant itself, or who shows its grant: those streams are cut when the epoch is fenced."""
        if self._tenant(header.lease) == peer:
            yield
            return
        grant = self._open_grant(peer, header.lease, header.grant, "tunnel")
        if not grant.opens(header.port):
            raise PeerError("grant.other", "the grant is for other ports")
        opened = self._granted.setdefault(header.lease, {})
        opened[stream] = grant.epoch
        try:
            yield
        finally:
            del opened[stream]
            if not opened and self._granted.get(header.lease) is opened:
                del self._granted[header.lease]

    def _open_grant(self, peer: NodeKey, lease: LeaseId, blob: bytes, use: Use) -> Grant:
        if not blob:
            raise PeerError("lease.unknown", "no such lease of yours here")
        try:
            now, fence = self._clock.now(), self._fences.of(lease)
            grant = open_grant(blob, peer, lease, use, now, self._keys.verify, fence)
        except PeerError as error:
            if error.code not in BAD_LUCK:
                raise
            self._refused[error.code] += 1
            raise Unavailable(error.code, error.message) from None
        if grant.tenant != self._tenant(lease):
            raise PeerError("grant.other", "the grant is of nobody who rents here")
        return grant

    async def _serve(self, lease: LeaseId, work: Callable[[], Awaitable[None]]) -> None:
        async with self._turn(lease):
            if self._driver.state.leases[lease].state in ENDED:
                raise Unavailable("lease.ended", f"the lease {short(lease)} has ended")
            try:
                await work()
            except PeerError as error:
                # What runs inside is the doing of the tenant's users and programs: it costs this stream only.
                self._refused[error.code] += 1
                raise Unavailable(error.code, error.message) from error

    @asynccontextmanager
    async def _turn(self, lease: LeaseId) -> AsyncIterator[None]:
        if self._open[lease] >= 2 * STREAMS_PER_LEASE:
            raise _busy(lease)
        self._open[lease] += 1
        room = self._room.setdefault(lease, asyncio.Semaphore(STREAMS_PER_LEASE))
        try:
            if room.locked():
                await _in_turn(room, lease)
            else:
                await room.acquire()
            try:
                yield
            finally:
                room.release()
        finally:
            self._open[lease] -= 1
            if not self._open[lease]:
                del self._open[lease], self._room[lease]


async def _in_turn(room: asyncio.Semaphore, lease: LeaseId) -> None:
    try:
        async with asyncio.timeout(TURN_SEC):
            await room.acquire()
    except TimeoutError:
        raise _busy(lease) from None


def _busy(lease: LeaseId) -> Unavailable:
    return Unavailable("lease.busy", f"{STREAMS_PER_LEASE} streams of {short(lease)} are open already")
