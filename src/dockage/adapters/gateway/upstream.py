"""The way to a replica: a tunnel over the peer link with the tenant's grant, counted, and kept for the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dockage.domain.errors import Unavailable
from dockage.ports.hosting import OpenPeer
from dockage.ports.peers import Stream
from dockage.protocol.streams import AnyHeader, Datagrams, Tunnel, encode_header
from dockage.wire.quick import Pushing, Sink

from .live import Backend, Place, Way

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

    __slots__ = ("_head", "_pushing", "_stream", "backend", "count", "fresh", "is_pushing",
                 "kept_at", "place")  # fmt: skip

    def __init__(self, stream: Stream, head: bytes, way: Way, backend: Backend, place: Place) -> None:
        self._stream, self._head = stream, head
        self._pushing, self.is_pushing = cast("Pushing", stream), hasattr(stream, "offer")
        """The same: whether what is below can be done."""
        self.count, self.backend, self.place = way.live.count, backend, place
        self.fresh, self.kept_at = True, 0.0
        """*fresh*: never used, so a failure is the replica's and not age's."""

    async def read(self, limit: int) -> bytes:
        data = await self._stream.read(limit)
        self.count.out += len(data)
        return data

    async def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        await self._stream.write(head + data if head else data)
        self.count.into += len(data)

    async def finish(self) -> None:
        if self._head:
            await self.write(b"")
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()

    @property
    def is_quiet(self) -> bool:
        """A server that ends what is idle may say so first (408): that would be the next client's answer."""
        return not self.is_pushing or self._pushing.is_quiet

    # -- without waiting -------------------------------------------------------------------------------
    def ask(self, data: bytes, sink: Sink) -> bool:
        """On a kept connection; *sink* is offered the answer. False: nothing was sent."""
        self._pushing.sink = sink
        if self._pushing.offer(data):
            self.count.into += len(data)
            return True
        self._pushing.sink = None
        return False

    def heard(self, data: bytes) -> None:
        """That was the whole answer."""
        self._pushing.sink = None
        self.count.out += len(data)

    def hand_over(self) -> None:
        """From now on it is read by who waits."""
        self._pushing.sink = None


class Upstreams:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.open_peer: OpenPeer | None = None

    async def open(self, way: Way, backend: Backend, *, kept: bool) -> Upstream:
        """*kept*: an idle connection will do. Raises Unavailable."""
        place = backend.place(way.site)
        if place is None:
            raise Unavailable("tunnel.container", "the replica has no such service")
        if kept and (upstream := self._idle(way, backend, place, self._now())) is not None:
            return upstream
        kind = Datagrams if way.site.mode == "udp" else Tunnel
        header = kind(backend.replica.lease, *place, backend.replica.grant)
        return Upstream(await self.dial(backend), framed(header), way, backend, place)

    def ready(self, way: Way, backend: Backend, now: float) -> Upstream | None:
        """A kept connection on which can be asked without waiting."""
        place = backend.place(way.site)
        upstream = place and self._idle(way, backend, place, now)
        if upstream is None or upstream.is_pushing:
            return upstream
        self.keep(upstream, now)
        return None

    async def dial(self, backend: Backend) -> Stream:
        """Raises Unreached."""
        if self.open_peer is None:
            raise Unreached("peer.unreachable", "this gateway is not connected yet")
        try:
            return await self.open_peer(backend.replica.provider, DIAL)
        except Unavailable as error:
            raise Unreached(error.code, error.message) from error

    def keep(self, upstream: Upstream, now: float) -> None:
        """For the next request, if the replica still stands."""
        backend = upstream.backend
        idle = backend.idle.setdefault(upstream.place, [])
        if backend.misses or backend.gone or len(idle) >= IDLE_MAX:
            upstream.abort()
        else:
            upstream.fresh, upstream.kept_at = False, now
            idle.append(upstream)

    def _idle(self, way: Way, backend: Backend, place: Place, now: float) -> Upstream | None:
        idle = backend.idle.get(place)
        while idle:
            upstream = idle.pop()
            if upstream.kept_at >= now - IDLE_SEC and upstream.is_quiet:
                upstream.count = way.live.count
                return upstream
            upstream.abort()
        return None


def framed(header: AnyHeader) -> bytes:
    body = encode_header(header)
    return len(body).to_bytes(4, "big") + body
