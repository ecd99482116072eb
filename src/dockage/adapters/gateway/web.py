"""HTTP/1.1 from the public, or from our face, to a replica: choose, ask, try another one while nothing came back.

One connection is one task and one request at a time. The rule: what may have done something is never sent twice, and
half an answer is never shown as a whole one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random

import structlog

from dockage.domain.deployment import Site
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId
from dockage.protocol import forwarding as http
from dockage.protocol.forwarding import HEAD_MAX, Chunks, Framing, RequestHead, ResponseHead
from dockage.wire.frames import PIECE
from dockage.wire.splice import SocketStream, splice

from .live import Backend, Live, Served
from .upstream import Upstream, Upstreams

log = structlog.get_logger("dockage.gateway")

BODY_KEPT = 64 << 10
"""A body up to this is read before it is sent, so that it can be sent again."""
HEAD_SEC = 10.0
"""For a head that has begun."""
IDLE_SEC = 75.0
"""Between two requests, as nginx has it."""
ANSWER_SEC = 120.0
"""For the head of an answer. A replica that fell out is noticed long before."""
SLOW_SEC = 60.0
"""For a client to take, or to send, the next piece."""
HOLD_SEC = 30.0
"""How long a request waits for a replica while none serves: scaled to zero, or being moved."""
WAITERS_MAX = 256
"""Of one deployment."""

PAGES = {
    400: "This request is not one that can be answered.",
    404: "Nothing is served under this name here.",
    431: "The head of this request is too long.",
    502: "The service did not answer.",
    503: "The service is not available now. Please try again in a moment.",
    504: "The service took too long to answer.",
}


class Silent(Exception):
    """The replica said nothing at all: another one may be asked."""


class Refused(Exception):
    """The client gets a page of ours with this status, and then the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Door(asyncio.StreamReaderProtocol):
    """A connection of the public. When the client leaves, what is asked for it ends, as nginx does it: an endless
    answer would else run on unseen."""

    def __init__(self, serve: Callable[[Door, asyncio.StreamReader, asyncio.StreamWriter], None]) -> None:
        self.upstream: Upstream | None = None
        reader = asyncio.StreamReader(limit=HEAD_MAX)
        super().__init__(reader, lambda r, w: serve(self, r, w))

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if self.upstream is not None:
            self.upstream.abort()


class Web:
    def __init__(self, served: Served, upstreams: Upstreams, rand: Random) -> None:
        self._served, self._upstreams, self._rand = served, upstreams, rand
        self.now = asyncio.get_running_loop().time

    async def serve(
        self,
        door: Door,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        trusted: bool,
        scheme: str = "http",
    ) -> None:
        """One connection to its end. *trusted*: it is our face's, which says who the client is."""
        peer = writer.get_extra_info("peername")
        client = str(peer[0]) if isinstance(peer, tuple) else ""
        visit = Visit(self, door, reader, writer, client, scheme, trusted=trusted)
        try:
            while await visit.once():
                pass
        except (OSError, TimeoutError, Unavailable, asyncio.IncompleteReadError):
            pass  # the client is gone, or too slow
        finally:
            writer.close()

    def find(self, host: str) -> tuple[Live, Site]:
        found = self._served.find(host)
        if found is None or found[1].mode != "terminate":
            raise Refused(404)
        if found[0].paused:
            raise Refused(503)
        return found

    async def choose(self, live: Live, site: Site, tried: set[LeaseId]) -> Backend | None:
        backend = live.choose(site, tried, self._rand)
        if backend is None and not tried and not live.serves(site):
            backend = await self._held(live, site)
        return backend

    async def _held(self, live: Live, site: Site) -> Backend | None:
        """Nobody serves: the tenant is told, and the client waits."""
        if live.waiters >= WAITERS_MAX:
            return None
        live.waiters += 1
        if live.waiters == 1:
            live.move()
        try:
            async with asyncio.timeout(HOLD_SEC):
                while not (live.serves(site) or live.paused):
                    await live.changed.wait()
        except TimeoutError:
            return None
        finally:
            live.waiters -= 1
        return live.choose(site, (), self._rand)

    async def open(self, live: Live, site: Site, backend: Backend, *, kept: bool) -> Upstream:
        try:
            return await self._upstreams.open(backend, site, live.count, kept=kept)
        except Unavailable as error:
            live.missed(backend)
            raise Silent from error

    def answered(self, live: Live, backend: Backend) -> None:
        live.answered(backend, self.now())

    def keep(self, backend: Backend, upstream: Upstream) -> None:
        self._upstreams.keep(backend, upstream)


class Visit:
    """One client's connection."""

    def __init__(
        self,
        web: Web,
        door: Door,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: str,
        scheme: str,
        *,
        trusted: bool,
    ) -> None:
        self._web, self._door, self._reader, self._writer = web, door, reader, writer
        self._client, self._scheme, self._trusted = client, scheme, trusted
        self._spoke = False
        """Something of an answer went out."""

    async def once(self) -> bool:
        """One request. Whether the connection goes on."""
        self._spoke = False
        try:
            request = await self._request()
            return request is not None and await self._serve(request)
        except Refused as refused:
            status = refused.status
        except PeerError:
            status = 400
        if self._spoke:
            self._writer.transport.abort()
            return False
        await self._page(status)
        return False

    # -- the request -----------------------------------------------------------------------------------
    async def _request(self) -> RequestHead | None:
        limit = asyncio.timeout(IDLE_SEC)
        try:
            async with limit:
                first = await self._reader.read(1)
                if not first:
                    return None
                limit.reschedule(self._web.now() + HEAD_SEC)
                rest = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Refused(431) from None
        return http.parse_request(first + rest)

    async def _serve(self, request: RequestHead) -> bool:
        live, site = self._web.find(request.host)
        if request.expects:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(request.framing)
        head = http.request_bytes(request, self._client, self._scheme, trusted=self._trusted)
        repeats = request.may_repeat and body is not None
        tried: set[LeaseId] = set()
        while (backend := await self._web.choose(live, site, tried)) is not None:
            try:
                return await self._attempt(live, site, backend, request, head, body, repeats)
            except Silent:
                tried.add(backend.replica.lease)
                if not repeats:
                    break
        raise Refused(502 if tried else 503)

    async def _body(self, framing: Framing) -> bytes | None:
        """None: it is to be passed on as it comes."""
        if framing.chunked or framing.length > BODY_KEPT:
            return None
        if framing.length == 0:
            return b""
        async with asyncio.timeout(SLOW_SEC):
            return await self._reader.readexactly(framing.length)

    # -- a replica -------------------------------------------------------------------------------------
    async def _attempt(
        self,
        live: Live,
        site: Site,
        backend: Backend,
        request: RequestHead,
        head: bytes,
        body: bytes | None,
        repeats: bool,
    ) -> bool:
        live.entered(site, backend, self._web.now())
        try:
            while True:
                upstream = await self._web.open(live, site, backend, kept=repeats)
                try:
                    return await self._talk(live, backend, upstream, request, head, body, repeats)
                except Silent:
                    if upstream.fresh:
                        live.missed(backend)
                        raise
                    backend.drop_idle()  # the kept ones were too old: once more, on a new one
        finally:
            live.left(site, backend)

    async def _talk(
        self,
        live: Live,
        backend: Backend,
        upstream: Upstream,
        request: RequestHead,
        head: bytes,
        body: bytes | None,
        repeats: bool,
    ) -> bool:
        """Ask on *upstream* and pass the answer on. Raises Silent while nothing came back."""
        self._door.upstream = upstream
        kept = False
        try:
            if body is None:
                return await self._both_ways(live, backend, upstream, request, head)
            response, rest = await self._ask(live, backend, upstream, request, head + body, repeats)
            if response.status == 101:
                await self._switch(upstream, request, response, rest)
                return False
            goes_on = await self._answer(upstream, request, response, rest)
            kept = response.keep_alive and goes_on is not None
            return request.keep_alive and bool(goes_on)
        finally:
            self._door.upstream = None
            if kept:
                self._web.keep(backend, upstream)
            else:
                upstream.abort()

    async def _ask(
        self,
        live: Live,
        backend: Backend,
        upstream: Upstream,
        request: RequestHead,
        data: bytes,
        repeats: bool,
    ) -> tuple[ResponseHead, bytes]:
        if repeats:
            backend.waiting.add(upstream)
        try:
            await upstream.write(data)
            return await self._response(live, backend, upstream, request)
        except Unavailable:
            raise (Refused(502) if self._spoke else Silent()) from None
        finally:
            backend.waiting.discard(upstream)

    async def _response(
        self, live: Live, backend: Backend, upstream: Upstream, request: RequestHead
    ) -> tuple[ResponseHead, bytes]:
        """The head of the final answer, or of a 101, and what came behind it."""
        buffer = b""
        try:
            async with asyncio.timeout(ANSWER_SEC):
                while True:
                    while (end := buffer.find(b"\r\n\r\n") + 4) < 4:
                        if len(buffer) > HEAD_MAX:
                            raise Refused(502)
                        piece = await upstream.read(PIECE)
                        if not piece:
                            raise Refused(502) if buffer else Silent()
                        buffer += piece
                    self._web.answered(live, backend)
                    response = http.parse_response(buffer[:end], request.method)
                    buffer = buffer[end:]
                    if response.status >= 200 or response.status == 101:
                        return response, buffer
                    if response.status != 100:
                        self._spoke = True
                        self._writer.write(http.response_bytes(response, keep_alive=True))
        except TimeoutError:
            raise Refused(504) from None
        except PeerError as error:
            raise Refused(502) from error

    async def _both_ways(
        self, live: Live, backend: Backend, upstream: Upstream, request: RequestHead, head: bytes
    ) -> bool:
        """A long body goes up while the answer comes down; an early answer ends the upload."""
        try:
            async with asyncio.TaskGroup() as tasks:
                upload = tasks.create_task(self._upload(upstream, request.framing, head))
                response, rest = await self._response(live, backend, upstream, request)
                early = not upload.done()
                whole = await self._answer(upstream, request, response, rest, last=early)
                upload.cancel()
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, Unavailable):
                error = Refused(502) if self._spoke else Silent()
            raise error from None
        return bool(whole) and not early and request.keep_alive

    async def _upload(self, upstream: Upstream, framing: Framing, head: bytes) -> None:
        with suppress(Unavailable):  # the answer may be there already, and says more
            await upstream.write(head)
            async for piece in self._incoming(framing):
                await upstream.write(piece)

    # -- the answer ------------------------------------------------------------------------------------
    async def _answer(
        self,
        upstream: Upstream,
        request: RequestHead,
        response: ResponseHead,
        rest: bytes,
        *,
        last: bool = False,
    ) -> bool | None:
        """To the client. True: both connections are where the next message begins; False: only the replica's is;
        None: neither is."""
        stays = request.keep_alive and not response.framing.until_close and not last
        head = http.response_bytes(response, keep_alive=stays)
        self._spoke = True
        framing = response.framing
        if framing.length >= 0 and len(rest) >= framing.length:  # most answers: all of it is here
            self._writer.write(head + rest[: framing.length])
            await self._drain()
            return stays if len(rest) == framing.length else None
        self._writer.write(head)
        try:
            clean = await self._pass_on(upstream, framing, rest)
        except (Unavailable, PeerError):
            self._writer.transport.abort()  # half an answer
            return None
        return stays if clean else None

    async def _pass_on(self, upstream: Upstream, framing: Framing, rest: bytes) -> bool:
        """The body; whether the replica sent nothing beyond it."""
        left, chunks = framing.length, Chunks()
        piece = rest or await upstream.read(PIECE)
        while piece:
            size = (
                chunks.feed(piece) if framing.chunked else min(left, len(piece)) if left >= 0 else len(piece)
            )
            self._writer.write(piece if size == len(piece) else piece[:size])
            await self._drain()
            left -= size if left >= 0 else 0
            if chunks.done or left == 0:
                return size == len(piece)
            piece = await upstream.read(PIECE)
        if not framing.until_close:
            raise Unavailable("http.cut", "the replica ended in the middle of an answer")
        return False

    async def _incoming(self, framing: Framing) -> AsyncIterator[bytes]:
        """The pieces of the request's body, as they come."""
        left, chunks = framing.length, Chunks()
        while left > 0 or (framing.chunked and not chunks.done):
            async with asyncio.timeout(SLOW_SEC):
                piece = await self._reader.read(min(PIECE, left) if left > 0 else PIECE)
            if not piece:
                raise asyncio.IncompleteReadError(b"", None)
            if framing.chunked:
                if chunks.feed(piece) < len(piece):
                    raise Refused(400)  # requests in a row behind an open one are not for us
            else:
                left -= len(piece)
            yield piece

    async def _switch(
        self, upstream: Upstream, request: RequestHead, response: ResponseHead, rest: bytes
    ) -> None:
        """A WebSocket, say: from here on they are bytes, each direction to its own end."""
        if not request.upgrade or response.upgrade.lower() != request.upgrade.lower():
            raise Refused(502)
        self._spoke = True
        self._door.upstream = None
        self._writer.write(http.response_bytes(response, keep_alive=False) + rest)
        await self._drain()
        await splice(SocketStream(self._reader, self._writer), upstream)

    async def _drain(self) -> None:
        if self._writer.transport.get_write_buffer_size():  # else it is gone already
            async with asyncio.timeout(SLOW_SEC):
                await self._writer.drain()

    async def _page(self, status: int) -> None:
        body = f"{status} {PAGES[status]}\n".encode()
        again = "retry-after: 2\r\n" if status == 503 else ""
        self._writer.write(
            f"HTTP/1.1 {status} \r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
            f"cache-control: no-store\r\n{again}connection: close\r\n\r\n".encode()
            + body
        )
        with suppress(OSError):
            await self._drain()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
