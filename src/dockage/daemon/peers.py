"""Where bytes of peers become events and wishes become messages: the edge of the minds.

Everything a peer says is decoded, bounded, rate-limited and signature-checked here, before a mind sees it.
A breach is counted by its code and costs the peer the connection; the minds' states are unchanged.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import structlog

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.ports.machine import Keys
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.messages import (
    MESSAGE_MAX,
    SIGNING_CONTEXT,
    AnyMessage,
    decode_envelope,
    encode_body,
    encode_envelope,
    must_be_signed,
)
from dockage.protocol.streams import HEADER_MAX, AnyHeader, Messages, decode_header, encode_header
from dockage.wire.ahead import Ahead
from dockage.wire.bucket import Bucket
from dockage.wire.bundle import Budget, Bundle
from dockage.wire.frames import next_frame, read_frame, write_frame
from dockage.wire.limits import PEERS

from .tasks import Jobs

log = structlog.get_logger("dockage.peers")

TOGETHER_MAX = 32
"""Messages in one write to a peer."""
_HEADER = encode_header(Messages())
BUNDLED = (streams.Tunnel, streams.Datagrams)
"""What goes in bundles: short and many. What is long has the link's own fairness among streams."""


class Handler(Protocol):
    async def __call__(self, peer: NodeKey, message: AnyMessage, body: bytes, signature: bytes) -> None:
        """Raises PeerError for what the message's content does not allow."""


Server = Callable[[NodeKey, Any, Stream], Awaitable[None]]
"""Serves one stream of the kind it was registered for; the header is of that kind."""


class Opener(Protocol):
    async def __call__(self, peer: NodeKey, timeout: float = ...) -> Stream: ...


class Postman:
    """Sends: one long-lived stream to each peer, so that messages keep their order."""

    def __init__(self, open_stream: Opener, keys: Keys, jobs: Jobs) -> None:
        self._open, self._keys, self._jobs = open_stream, keys, jobs
        self._outboxes: dict[NodeKey, deque[bytes]] = {}
        self._streams: OrderedDict[NodeKey, Stream] = OrderedDict()

    def send(self, peer: NodeKey, message: AnyMessage) -> None:
        """Best effort: whoever needs an answer asks again."""
        body = encode_body(message)
        signature = self._keys.sign(SIGNING_CONTEXT + body) if must_be_signed(message) else b""
        outbox = self._outboxes.get(peer)
        if outbox is None:
            if len(self._outboxes) < PEERS.sending:
                self._begin(peer, deque([encode_envelope(body, signature)], PEERS.outbox))
        else:
            outbox.append(encode_envelope(body, signature))

    def _begin(self, peer: NodeKey, outbox: deque[bytes]) -> None:
        if self._jobs.start(lambda: self._deliver(peer, outbox), f"send to {short(peer)}"):
            self._outboxes[peer] = outbox

    async def _deliver(self, peer: NodeKey, outbox: deque[bytes]) -> None:
        """Runs while there is something to send; what cannot be delivered is dropped with the outbox."""
        try:
            while outbox:
                frames = [outbox.popleft() for _ in range(min(len(outbox), TOGETHER_MAX))]
                try:
                    async with asyncio.timeout(PEERS.send_sec):
                        await self._write(peer, frames)
                except TimeoutError:
                    raise Unavailable("peer.slow", f"{short(peer)} takes no messages") from None
        except BaseException:
            self._forget(peer)  # it may end in the middle of a frame
            raise
        finally:
            self._outboxes.pop(peer, None)  # no wait since the last look into it: nothing is left behind

    async def _write(self, peer: NodeKey, frames: Sequence[bytes]) -> None:
        stream = self._streams.get(peer)
        if stream is not None:
            self._streams.move_to_end(peer)
            try:
                return await write_frame(stream, *frames)
            except Unavailable:
                self._forget(peer)  # the connection was replaced meanwhile: once more on a new one
        stream = await self._open(peer, PEERS.dial_sec)
        self._keep(peer, stream)
        await write_frame(stream, _HEADER, *frames)

    def _keep(self, peer: NodeKey, stream: Stream) -> None:
        self._streams[peer] = stream
        if len(self._streams) > PEERS.streams:
            self._forget(next(iter(self._streams)))

    def _forget(self, peer: NodeKey) -> None:
        stream = self._streams.pop(peer, None)
        if stream is not None:
            stream.abort()


class Reception:
    """Receives: reads a stream's header and hands it to whoever serves that kind."""

    def __init__(self, keys: Keys, now: Callable[[], float]) -> None:
        self._keys, self._now = keys, now
        self.handle: Handler
        self._servers: dict[type, Server] = {}
        self._budgets: OrderedDict[NodeKey, Bucket] = OrderedDict()
        self._talking: Counter[NodeKey] = Counter()
        self._bundles: Counter[NodeKey] = Counter()
        self._bundled, self._unread = 0, Budget(PEERS.unread)
        self.refused: Counter[str] = Counter()
        """Breaches by code since the start, for ``dockage status`` and for tests."""

    def serve_kind(self, kind: type[AnyHeader], server: Server) -> None:
        self._servers[kind] = server

    async def accept(self, peer: NodeKey, stream: Stream) -> None:
        """An ``AcceptStream``. Raises PeerError, which costs the peer its connection."""
        stream = Ahead(stream)
        try:
            async with asyncio.timeout(PEERS.header_sec):
                header = decode_header(await read_frame(stream, HEADER_MAX))
            if isinstance(header, Messages):
                await self._read_messages(peer, stream)
            elif isinstance(header, streams.Bundle):
                await self._unbundle(peer, stream)
            else:
                await self._serve(peer, header, stream)
        except PeerError as error:
            self.refused[error.code] += 1
            log.info("peer.refused", peer=short(peer), code=error.code, why=error.message)
            raise
        except TimeoutError:
            stream.abort()

    async def _serve(self, peer: NodeKey, header: AnyHeader, stream: Stream) -> None:
        server = self._servers.get(type(header))
        if server is None:
            raise PeerError("stream.not-served", f"this node serves no {type(header).__name__} streams")
        await server(peer, header, stream)

    async def _unbundle(self, peer: NodeKey, stream: Stream) -> None:
        with _counted(self._bundles, peer, PEERS.bundles, "bundles of streams"):
            await Bundle(stream, self._unread, lambda inner: self._accept_inner(peer, inner)).run()

    async def _accept_inner(self, peer: NodeKey, stream: Stream) -> None:
        if self._bundled >= PEERS.bundled:
            return
        self._bundled += 1
        stream = Ahead(stream)
        try:
            async with asyncio.timeout(PEERS.header_sec):
                header = decode_header(await read_frame(stream, HEADER_MAX))
            if not isinstance(header, BUNDLED):
                raise PeerError("stream.not-served", f"no {type(header).__name__} streams go in bundles")
            await self._serve(peer, header, stream)
        except TimeoutError:
            pass
        finally:
            self._bundled -= 1

    async def _read_messages(self, peer: NodeKey, stream: Stream) -> None:
        with _counted(self._talking, peer, PEERS.message_streams, "streams for messages"):
            while (frame := await next_frame(stream, MESSAGE_MAX)) is not None:
                if not self._budget(peer).spend(self._now()):
                    raise PeerError("message.flood", f"more than {PEERS.rate} messages a second")
                await self._take(peer, frame)

    def _budget(self, peer: NodeKey) -> Bucket:
        """The peer's, not the stream's, and it outlives a connection: both cost nothing to open."""
        budget = self._budgets.pop(peer, None) or Bucket(PEERS.rate, 2 * PEERS.rate, self._now())
        self._budgets[peer] = budget
        if len(self._budgets) > PEERS.peers:
            self._budgets.popitem(last=False)
        return budget

    async def _take(self, peer: NodeKey, frame: bytes) -> None:
        message, envelope = decode_envelope(frame)
        if must_be_signed(message):
            if not self._keys.verify(peer, SIGNING_CONTEXT + envelope.body, envelope.signature):
                raise PeerError(
                    "message.forged", f"the signature of a {type(message).__name__} is not the sender's"
                )
        elif envelope.signature:
            raise PeerError("message.malformed", f"a {type(message).__name__} carries no signature")
        await self.handle(peer, message, envelope.body, envelope.signature)


@contextmanager
def _counted(open_: Counter[NodeKey], peer: NodeKey, most: int, what: str) -> Iterator[None]:
    if open_[peer] >= most:
        raise PeerError("stream.too-many", f"more than {most} {what}")
    open_[peer] += 1
    try:
        yield
    finally:
        open_[peer] -= 1
        if not open_[peer]:
            del open_[peer]
