"""HTTP/1.1 from the public, or from our face, to a replica: choose, ask, try another one while nothing came back.

One connection is one task and one request at a time. Most requests have no body, and answers that are short and come
whole: these the task sleeps through (``quick.py``), and is woken for what turns out otherwise. The rule: what may have
done something is never sent twice, and half an answer is never shown as a whole one.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol import forwarding as http
from dockage.protocol.forwarding import HEAD_MAX, RequestHead, ResponseHead
from dockage.wire.frames import PIECE
from dockage.wire.http import INTERIM_MAX
from dockage.wire.splice import splice

from .bodies import incoming, pass_on, rest_of, whole
from .door import ANSWER_SEC, HEAD_END, Door, HeadTooLong
from .line import Search
from .live import Backend, Way
from .pages import Refused, page
from .quick import Asked, Quick
from .upstream import Released, Silent, Upstream

if TYPE_CHECKING:
    from .web import Web


class Visit:
    """One client's connection."""

    def __init__(self, web: Web, door: Door, scheme: str, *, trusted: bool) -> None:
        self._web, self._door, self._scheme, self._trusted = web, door, scheme, trusted
        self._spoke = False
        """Something of an answer went out."""
        self._quick = Quick(web, door, scheme, trusted=trusted)

    async def once(self) -> bool:
        """One request. Whether the connection goes on."""
        self._spoke = False
        try:
            head = await self._door.head()
            if (asked := self._quick.take()) is not None:
                return await self._search(asked.way, asked.request, asked.head, b"", asked)
            return bool(head) and await self._serve(http.parse_request(head))
        except Refused as refused:
            status = refused.status
        except HeadTooLong:
            status = 431
        except PeerError:
            status = 400
        if self._spoke:
            self._door.cut()
        else:
            await self._door.write(page(status))
        return False

    def end(self) -> None:
        self._quick.end()

    async def _serve(self, request: RequestHead) -> bool:
        way = self._web.find(request.host)
        if request.expects:
            self._door.put(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await whole(self._door, request.framing)
        head = http.request_bytes(request, self._door.client, self._scheme, trusted=self._trusted)
        return await self._search(way, request, head, body)

    async def _search(
        self,
        way: Way,
        request: RequestHead,
        head: bytes,
        body: bytes | None,
        asked: Asked | None = None,
    ) -> bool:
        """*asked*: somebody was already."""
        repeats = request.may_repeat and body is not None
        search = Search()
        backend = asked.upstream.backend if asked else await self._web.choose(way, search, self._door)
        while backend is not None:
            try:
                return await self._attempt(way, backend, request, head, body, repeats, asked)
            except Silent:
                search.tried.add(backend)
                if not repeats:
                    break
            asked = None
            backend = await self._web.choose(way, search, self._door)
        raise Refused(502 if search.tried else 503)

    # -- a replica -------------------------------------------------------------------------------------
    async def _attempt(
        self,
        way: Way,
        backend: Backend,
        request: RequestHead,
        head: bytes,
        body: bytes | None,
        repeats: bool,
        asked: Asked | None,
    ) -> bool:
        if asked is None:
            way.entered(backend, self._web.now())
        try:
            while True:
                asked_at = asked.at if asked else self._web.now()
                upstream = asked.upstream if asked else await self._web.open(way, backend, kept=repeats)
                is_asked, asked = asked is not None, None
                try:
                    return await self._talk(way, upstream, request, head, body, repeats, is_asked=is_asked)
                except Released:
                    raise
                except Silent:
                    if upstream.fresh:
                        way.live.missed(backend, asked_at, self._web.now())
                        raise
                    backend.drop_idle()  # the kept ones were too old: once more, on a new one
        finally:
            way.left(backend)

    async def _talk(
        self,
        way: Way,
        upstream: Upstream,
        request: RequestHead,
        head: bytes,
        body: bytes | None,
        repeats: bool,
        *,
        is_asked: bool,
    ) -> bool:
        """Ask on *upstream*, unless it is asked already, and pass the answer on. Raises Silent while nothing came."""
        door, kept = self._door, False
        if not is_asked:
            door.upstream, door.is_late = upstream, False
            door.within(ANSWER_SEC)
        try:
            if body is None:
                return await self._both_ways(way, upstream, request, head)
            data = b"" if is_asked else head + body
            response, rest = await self._ask(way, upstream, request, data, repeats)
            if response.status == 101:
                await self._switch(upstream, request, response, rest)
                return False
            goes_on = await self._answer(upstream, request, response, rest)
            kept = response.keep_alive and goes_on is not None
            return request.keep_alive and bool(goes_on)
        finally:
            door.upstream, door.deadline = None, math.inf
            if kept:
                self._web.keep(upstream, self._web.now())
            else:
                upstream.abort()

    async def _ask(
        self,
        way: Way,
        upstream: Upstream,
        request: RequestHead,
        data: bytes,
        repeats: bool,
    ) -> tuple[ResponseHead, bytes]:
        """*data* is b"" if it was sent."""
        if repeats and data:
            upstream.backend.waiting.add(upstream)
        try:
            if data:
                await upstream.write(data)
            response, rest = await self._response(way, upstream, request)
            return response, await rest_of(upstream, response.framing, rest) if repeats else rest
        except (Unavailable, Silent):
            if self._spoke:
                raise Refused(502) from None
            raise (
                Released() if repeats and upstream not in upstream.backend.waiting else self._silent()
            ) from None
        finally:
            upstream.backend.waiting.discard(upstream)

    async def _response(
        self, way: Way, upstream: Upstream, request: RequestHead
    ) -> tuple[ResponseHead, bytes]:
        """The head of the final answer, or of a 101, and what came behind it."""
        buffer = b""
        for _ in range(INTERIM_MAX + 1):
            while (end := buffer.find(HEAD_END) + 4) < 4:
                if len(buffer) > HEAD_MAX:
                    raise Refused(502)
                piece = await upstream.read(PIECE)
                if not piece:
                    raise Refused(502) if buffer else self._silent()
                buffer = buffer + piece if buffer else piece
            way.live.answered(upstream.backend, self._web.now())
            try:
                response = http.parse_response(buffer[:end], request.method)
            except PeerError as error:
                raise Refused(502) from error
            buffer = buffer[end:]
            if response.status == 101 and not _was_asked(request, response):
                raise Refused(502)
            if response.status >= 200 or response.status == 101:
                self._door.deadline = math.inf  # what comes now may take as long as it likes
                return response, buffer
            if response.status != 100:
                self._spoke = True
                self._door.put(http.response_bytes(response, keep_alive=True))
        # it would go on promising, and a client that reads nothing would have us keep it all
        raise Refused(502)

    def _silent(self) -> Exception:
        """Nothing came: whose doing that is. It speaks against the replica only if nobody else ended it."""
        if self._door.is_left:
            return Unavailable("http.left", "the client is gone")
        return Refused(504) if self._door.is_late else Silent()

    async def _both_ways(self, way: Way, upstream: Upstream, request: RequestHead, head: bytes) -> bool:
        """A long body goes up while the answer comes down; an early answer ends the upload."""
        try:
            async with asyncio.TaskGroup() as tasks:
                upload = tasks.create_task(self._upload(upstream, request, head))
                response, rest = await self._response(way, upstream, request)
                early = not upload.done()
                whole = await self._answer(upstream, request, response, rest, last=early)
                upload.cancel()
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, Unavailable):
                error = Refused(502) if self._spoke else self._silent()
            raise error from None
        return bool(whole) and not early and request.keep_alive

    async def _upload(self, upstream: Upstream, request: RequestHead, head: bytes) -> None:
        with suppress(Unavailable):  # the answer may be there already, and says more
            await upstream.write(head)
            async for piece in incoming(self._door, request.framing):
                if self._door.deadline < math.inf:
                    self._door.within(ANSWER_SEC)  # it cannot answer before it has all
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
        length = response.framing.length
        if length >= 0 and len(rest) >= length:  # most answers: all of it is here
            await self._door.write(head + rest[:length])
            return stays if len(rest) == length else None
        try:
            await self._door.write(head)
            clean = await pass_on(upstream, self._door, response.framing, rest)
        except (Unavailable, PeerError):
            self._door.cut()  # half an answer
            return None
        return stays if clean else None

    async def _switch(
        self, upstream: Upstream, request: RequestHead, response: ResponseHead, rest: bytes
    ) -> None:
        """A WebSocket, say: from here on they are bytes, each direction to its own end."""
        self._spoke = True
        self._door.upstream = None
        await self._door.write(http.response_bytes(response, keep_alive=False) + rest)
        await splice(self._door, upstream)


def _was_asked(request: RequestHead, response: ResponseHead) -> bool:
    """A request with a body asks for no other protocol (``protocol/forwarding.py``)."""
    return bool(request.upgrade) and response.upgrade.lower() == request.upgrade.lower()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
