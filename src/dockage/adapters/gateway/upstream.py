"""The way to a replica: a tunnel over the peer link with the tenant's grant, counted, and kept for the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dockage.domain.deployment import Site
from dockage.domain.errors import Unavailable
from dockage.ports.hosting import OpenPeer
from dockage.ports.peers import Stream
from dockage.protocol.streams import AnyHeader, Datagrams, Tunnel, encode_header
from dockage.wire.quick import Pushing, Sink

from .live import Backend, Count

DIAL = 2.0
"""Seconds. A provider that is connected answers in one round trip; one that is not takes a look-up, too."""
IDLE_MAX = 32
"""Kept connections to one port of one replica."""
IDLE_SEC = 20.0
"""Seconds for which one is kept; servers close them after 5 (node.js) to 75 (nginx)."""


class Silent(Exception):
    """The replica said nothing at all: another one may be asked."""


class Released(Silent):
    """We ended it ourselves, for another one is up: that is no miss."""


class Unreached(Unavailable):
    """Its provider could not be spoken with: whatever the replica does, we do not see it."""


class Upstream:
    """A Stream into the container. The header goes out with the first bytes, in one write."""

    __slots__ = ("_count", "_head", "fresh", "place", "stream")

    def __init__(
        self, stream: Stream, head: bytes, count: Count, place: tuple[str, int], *, fresh: bool = True
    ) -> None:
        self.stream, self._head, self._count = stream, head, count
        self.place, self.fresh = place, fresh
        """*fresh*: never used, so a failure is the replica's and not age's."""

    async def read(self, limit: int) -> bytes:
        data = await self.stream.read(limit)
        self._count.out += len(data)
        return data

    async def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        await self.stream.write(head + data if head else data)
        self._count.into += len(data)

    async def finish(self) -> None:
        if self._head:
            await self.write(b"")
        await self.stream.finish()

    def abort(self) -> None:
        self.stream.abort()

    # -- without waiting -------------------------------------------------------------------------------
    def ask(self, data: bytes, sink: Sink) -> bool:
        """On a kept connection; *sink* is offered the answer. False: nothing was sent."""
        stream = cast("Pushing", self.stream)
        stream.sink = sink
        if stream.offer(data):
            self._count.into += len(data)
            return True
        stream.sink = None
        return False

    def heard(self, data: bytes) -> None:
        """That was the whole answer."""
        cast("Pushing", self.stream).sink = None
        self._count.out += len(data)

    def hand_over(self) -> None:
        """From now on it is read by who waits."""
        cast("Pushing", self.stream).sink = None


class Upstreams:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.open_peer: OpenPeer | None = None

    async def open(self, backend: Backend, site: Site, count: Count, *, kept: bool) -> Upstream:
        """*kept*: an idle connection will do. Raises Unavailable."""
        container = backend.container(site)
        if container is None:
            raise Unavailable("tunnel.container", "the replica has no such service")
        place = (container, site.port)
        if kept and (stream := self._idle(backend, place)) is not None:
            return Upstream(stream, b"", count, place, fresh=False)
        kind = Datagrams if site.mode == "udp" else Tunnel
        header = kind(backend.replica.lease, container, site.port, backend.replica.grant)
        return Upstream(await self.dial(backend), framed(header), count, place)

    def ready(self, backend: Backend, site: Site, count: Count) -> Upstream | None:
        """A kept connection on which can be asked without waiting."""
        place = (backend.container(site) or "", site.port)
        stream = self._idle(backend, place)
        if stream is None or hasattr(stream, "offer"):
            return None if stream is None else Upstream(stream, b"", count, place, fresh=False)
        backend.idle[place].append((self._now(), stream))
        return None

    async def dial(self, backend: Backend) -> Stream:
        """Raises Unreached."""
        if self.open_peer is None:
            raise Unreached("peer.unreachable", "this gateway is not connected yet")
        try:
            return await self.open_peer(backend.replica.provider, DIAL)
        except Unavailable as error:
            raise Unreached(error.code, error.message) from error

    def keep(self, backend: Backend, upstream: Upstream) -> None:
        """For the next request, if the replica still stands."""
        idle = backend.idle.setdefault(upstream.place, [])
        if backend.down or backend.gone or len(idle) >= IDLE_MAX:
            upstream.abort()
        else:
            idle.append((self._now(), upstream.stream))

    def _idle(self, backend: Backend, place: tuple[str, int]) -> Stream | None:
        idle, oldest = backend.idle.get(place), self._now() - IDLE_SEC
        while idle:
            since, stream = idle.pop()
            if since >= oldest:
                return stream
            stream.abort()
        return None


def framed(header: AnyHeader) -> bytes:
    body = encode_header(header)
    return len(body).to_bytes(4, "big") + body
