"""HTTP/1.1 over a Stream, both ends, as the Docker Engine API needs it: endless bodies, and the hijack.

``HttpServer`` answers a client, ``HttpClient`` asks a server; the grammar is ``protocol/http1.py``'s. The rule that
keeps them right: every byte handed over is written at once (the docker CLI waits for the headers of ``/wait`` and
``/events``), no body is held in memory unless the caller asked for it with a limit, and after a 101 the connection is
a plain Stream whose two directions end independently.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.ports.peers import Stream

from .bodies import BODY_LIMIT, CHUNKED, ENDLESS, Incoming, Outgoing, read_whole
from .heads import (
    CONTINUE,
    SWITCH,
    HeaderPairs,
    Headers,
    RequestHead,
    lines_of,
    parse_request,
    parse_response,
    request_bytes,
    status_line,
)

INTERIM_MAX = 16
"""Heads (100 to 199) that a server may send before its answer."""


class Request(NamedTuple):
    method: str
    target: str
    """As it came: path and query, still percent-encoded."""
    headers: Headers

    @property
    def wants_upgrade(self) -> bool:
        return bool(self.headers.get("upgrade"))


class HttpServer:
    """Answers the requests that arrive on *stream*, one after the other."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._in = stream, Incoming(stream)
        self._asked: RequestHead | None = None
        self._waited_for = False
        """The client sends its body once we say that it may."""
        self._out: Outgoing | None = None
        self._answered = self._keep = False

    async def read_request(self) -> Request | None:
        """The next request's head; None if the client closed (or the last answer ended the connection).

        Raises PeerError("http.malformed" | "http.framing") or Unavailable: answer nothing more than the refusal,
        abort the stream.
        """
        if self._asked is not None and not await self._next_cycle():
            return None
        self._asked, self._out, self._answered, self._keep = None, None, False, False
        if not (head := await self._in.head()):
            return None
        asked = self._asked = parse_request(head)
        self._in.expect(asked.framing)
        self._waited_for, self._keep = asked.fields.expects, asked.fields.keep
        return Request(asked.method, asked.target, asked.fields.headers)

    async def _next_cycle(self) -> bool:
        return self._answered and self._keep and not self._waited_for and await self._in.drained()

    @property
    def answering(self) -> bool:
        """The head of an answer went out: too late for another one."""
        return self._out is not None

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body in pieces as they arrive."""
        await self._invite()
        async for piece in self._in.body():
            yield piece

    async def _invite(self) -> None:
        if self._waited_for:
            self._waited_for = False
            if not (self.answering or self._in.is_over):
                await self._stream.write(CONTINUE)

    async def read_body(self, limit: int = BODY_LIMIT) -> bytes:
        """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
        return await read_whole(self.body(), limit)

    async def respond(self, status: int, headers: HeaderPairs = ()) -> None:
        """The head, now. Without a content-length the body is chunked; 204, 304 and HEAD have none."""
        await self._stream.write(self._head(status, headers))

    def _head(self, status: int, headers: HeaderPairs) -> bytes:
        if self._out is not None:
            raise PeerError("http.order", "a request is answered once")
        given = [(name.lower(), value) for name, value in headers]
        length = self._framed(status, given)
        connection = Headers(given).get("connection").lower()
        self._keep = self._keep and connection != "close"
        if not (self._keep or connection):
            given.append(("connection", "close"))
        head = status_line(status) + lines_of(given) + b"\r\n"
        self._out = Outgoing(length, silent=self._is_silent(status))
        return head

    def _is_silent(self, status: int) -> bool:
        return status in (204, 304) or (self._asked is not None and self._asked.method == "HEAD")

    def _framed(self, status: int, given: list[tuple[str, str]]) -> int:
        """What the answer's body is promised to be, as ``Outgoing`` has it; *given* says so afterwards."""
        told = Headers(given).get("content-length")
        if told or self._is_silent(status):
            return int(told or 0)
        if self._asked is not None and self._asked.minor == b"0":
            return ENDLESS
        given.append(("transfer-encoding", "chunked"))
        return CHUNKED

    async def send(self, data: bytes) -> None:
        if piece := self._sending().piece(data):
            await self._stream.write(piece)

    async def end(self) -> None:
        rest = self._sending().end()
        self._answered = True
        if rest:
            await self._stream.write(rest)

    def _sending(self) -> Outgoing:
        if self._out is None or self._answered:
            raise PeerError("http.order", "no answer is under way")
        return self._out

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        """A whole response whose body is in memory, in one write: over the peer link each costs a packet of its own."""
        framing = () if status in (204, 304) else (("content-length", str(len(body))),)
        head = self._head(status, (*headers, *framing))
        self._answered = True
        await self._stream.write(head + self._sent_whole(body))

    def _sent_whole(self, body: bytes) -> bytes:
        return self._out.piece(body) if self._out is not None else b""

    async def gone(self) -> None:
        """Returns when the client is no longer there: run it beside an endless answer. Only to be called once
        the request's body has been read."""
        await self._in.gone()

    def raw(self) -> Stream:
        """Everything after the head that was read last, unparsed, for a relay; this server is over then."""
        return self._in.upgraded()

    async def upgrade(self, headers: HeaderPairs = ()) -> Stream:
        """Answer 101 and hand over the raw connection; the request must have asked for an upgrade."""
        await self._invite()
        if not await self._in.drained():
            raise PeerError("http.oversized", "the body of an upgrade request is too large")
        given = [pair for pair in headers if pair[0].lower() not in ("connection", "upgrade")]
        wanted = self._asked.fields.headers.get("upgrade") if self._asked is not None else ""
        head = SWITCH + lines_of([*given, ("connection", "Upgrade"), ("upgrade", wanted or "tcp")]) + b"\r\n"
        self._out = Outgoing(0)
        await self._stream.write(head)
        return self._in.upgraded()


class Response:
    """A response's head; its body is still on the wire. ``upgraded`` is the raw Stream after a 101."""

    def __init__(
        self, incoming: Incoming, status: int, headers: Headers, upgraded: Stream | None = None
    ) -> None:
        self._in = incoming
        self.status = status
        self.headers = headers
        self.upgraded = upgraded

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers.get('content-type') or '-'}>"

    def body(self) -> AsyncIterator[bytes]:
        return self._in.body()

    async def read_body(self, limit: int = BODY_LIMIT) -> bytes:
        """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
        return await read_whole(self.body(), limit)


class HttpClient:
    """Asks the server at the end of *stream*; read one answer's body to its end before the next request."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._in = stream, Incoming(stream)
        self._method = ""
        self._sent = self._keep = self._headed = False

    @property
    def may_ask_again(self) -> bool:
        """The last answer was read to its end, and neither side wants to part after it."""
        return self._headed and self._sent and self._keep and self._in.is_clean

    async def request(
        self,
        method: str,
        target: str,
        headers: HeaderPairs = (),
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Response:
        """Send everything, return at the response's head. ``Host`` and the framing are added.

        An early refusal (>= 400) stops the upload; any other early head waits for its end, so this is not
        for conversations in which both bodies run at once. Raises PeerError, Unavailable.
        """
        if self._method and not self.may_ask_again:
            raise Unavailable("http.closed", "the server ended this connection; open a new one")
        fields, out = _framed(method, headers, body)
        head = request_bytes(method, target, fields)
        self._method, self._sent, self._keep, self._headed = method, False, True, False
        if body is None or isinstance(body, bytes):
            await self._send_last(head + (body or b""))
            return await self._read_response()
        await self._stream.write(head)
        return await self._upload(body, out)

    async def _send_last(self, data: bytes) -> None:
        self._sent = True
        try:
            if data:
                await self._stream.write(data)
        except Unavailable:
            pass  # the answer may already be here, and says more than "broken pipe"

    async def _upload(self, body: AsyncIterator[bytes], out: Outgoing) -> Response:
        try:
            async with asyncio.TaskGroup() as tasks:
                upload = tasks.create_task(self._send_pieces(body, out))
                response = await self._read_response()
                if response.status >= 400:
                    upload.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return response

    async def _send_pieces(self, body: AsyncIterator[bytes], out: Outgoing) -> None:
        async for piece in body:
            try:
                if data := out.piece(piece):
                    await self._stream.write(data)
            except Unavailable:
                return  # as above: the response tells
        await self._send_last(out.end())

    async def _read_response(self) -> Response:
        for _ in range(INTERIM_MAX + 1):
            if not (head := await self._in.head()):
                raise Unavailable("http.cut", "the server closed the connection without an answer")
            found = parse_response(head, self._method)
            if found.status == 101:
                return Response(self._in, 101, found.headers, self._in.upgraded())
            if found.status >= 200:
                self._in.expect(found.framing)
                self._headed, self._keep = True, found.keep
                return Response(self._in, found.status, found.headers)
        raise PeerError("http.order", "a server that goes on promising an answer")


def _framed(
    method: str, headers: HeaderPairs, body: bytes | AsyncIterator[bytes] | None
) -> tuple[list[tuple[str, str]], Outgoing]:
    """The header lines with ``Host`` and what frames *body*."""
    fields = [(name.lower(), value) for name, value in headers]
    named = Headers(fields)
    if not named.get("host"):
        fields.insert(0, ("host", "docker"))
    if isinstance(body, bytes):
        fields = [pair for pair in fields if pair[0] not in ("content-length", "transfer-encoding")]
        return [*fields, ("content-length", str(len(body)))], Outgoing(0)
    told = named.get("content-length")
    if body is not None and not told:
        more = [] if named.get("transfer-encoding") else [("transfer-encoding", "chunked")]
        return [*fields, *more], Outgoing(CHUNKED)
    if body is None and method in ("POST", "PUT") and not told:
        fields.append(("content-length", "0"))
    return fields, Outgoing(int(told) if told.isascii() and told.isdigit() else 0)


JSON = (("content-type", "application/json"),)


def error_body(message: str) -> bytes:
    """The Engine API's one error shape."""
    return json.dumps({"message": message}).encode() + b"\n"


async def error_response(server: HttpServer, status: int, message: str) -> None:
    await server.answer(status, JSON, error_body(message))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error for the callers; if any is a bug of ours it must not hide behind a peer's fault."""
    leaves = [
        leaf
        for error in group.exceptions
        for leaf in ([_first(error)] if isinstance(error, BaseExceptionGroup) else [error])
    ]
    return next((leaf for leaf in leaves if not isinstance(leaf, DockageError)), leaves[0])
