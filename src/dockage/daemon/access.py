"""The provider's door: a stream to an engine, a tunnel or for layers is served to the lease's own tenant only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import LeaseState
from dockage.node.provider import Provider
from dockage.ports import ContainerHost, OpenSource, Stream
from dockage.protocol import streams

from .driver import Driver
from .peers import Reception

STREAMS_PER_LEASE = 512
"""Open at once: engine calls, tunnels and layers together."""


class Access:
    def __init__(self, driver: Driver[Provider], host: ContainerHost, open_source: OpenSource) -> None:
        self._driver, self._host, self._open_source = driver, host, open_source
        self._open: Counter[LeaseId] = Counter()
        self._refused: Counter[str] = Counter()

    def register(self, reception: Reception) -> None:
        self._refused = reception.refused
        reception.serve_kind(streams.Engine, self._engine)
        reception.serve_kind(streams.Tunnel, self._tunnel)
        reception.serve_kind(streams.Datagrams, self._datagrams)
        reception.serve_kind(streams.Layers, self._layers)

    async def _engine(self, peer: NodeKey, header: streams.Engine, stream: Stream) -> None:
        await self._serve(peer, header.lease, lambda: self._host.serve_engine(header.lease, stream))

    async def _tunnel(self, peer: NodeKey, header: streams.Tunnel, stream: Stream) -> None:
        await self._serve(
            peer,
            header.lease,
            lambda: self._host.serve_tunnel(header.lease, header.container, header.port, stream),
        )

    async def _datagrams(self, peer: NodeKey, header: streams.Datagrams, stream: Stream) -> None:
        await self._serve(
            peer,
            header.lease,
            lambda: self._host.serve_datagrams(header.lease, header.container, header.port, stream),
        )

    async def _layers(self, peer: NodeKey, header: streams.Layers, stream: Stream) -> None:
        await self._serve(
            peer,
            header.lease,
            lambda: self._host.serve_layers(header.lease, stream, self._open_source),
        )

    async def _serve(self, peer: NodeKey, lease: LeaseId, work: Callable[[], Awaitable[None]]) -> None:
        held = self._driver.state.leases.get(lease)
        if held is None or held.tenant != peer:
            raise PeerError("lease.unknown", "no such lease of yours here")
        if held.state is LeaseState.ENDED or held.state is LeaseState.ENDING:
            raise Unavailable("lease.ended", f"the lease {short(lease)} has ended")
        with self._counted(lease):
            try:
                await work()
            except PeerError as error:
                # What runs inside is the doing of the tenant's users and programs: it costs this stream only.
                self._refused[error.code] += 1
                raise Unavailable(error.code, error.message) from error

    @contextmanager
    def _counted(self, lease: LeaseId) -> Iterator[None]:
        if self._open[lease] >= STREAMS_PER_LEASE:
            raise Unavailable("lease.busy", f"{STREAMS_PER_LEASE} streams of {short(lease)} are open already")
        self._open[lease] += 1
        try:
            yield
        finally:
            self._open[lease] -= 1
            if not self._open[lease]:
                del self._open[lease]
