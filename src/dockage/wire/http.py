"""HTTP/1.1 over a Stream, both ends, as the Docker Engine API needs it: endless bodies, and the hijack.

Two small shells around h11's state machine: ``HttpServer`` answers a client, ``HttpClient`` asks a server.
The rule that keeps them right: every byte handed over is written at once (the docker CLI waits for the
headers of ``/wait`` and ``/events``), no body is held in memory unless the caller asked for it with a
limit, and after a 101 the connection is a plain Stream whose two directions end independently.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import h11

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.ports.peers import Stream

from .frames import PIECE

HEAD_LIMIT = 64 << 10
"""Some precedents: node.js 16 KiB, nginx 32 KiB, Go 1 MiB; X-Registry-Auth may take 10 KiB."""
BODY_LIMIT = 4 << 20
"""The largest body that is read whole: a container's JSON is 3 kB, an image list of a busy engine 1 MiB."""
DRAIN_LIMIT = 1 << 20
"""Of a body that nobody wants, so much is read to keep the connection; a longer one costs it."""


class Headers(tuple[tuple[str, str], ...]):
    """Name-value pairs in order; names are lower case."""

    __slots__ = ()

    def get(self, name: str, default: str = "") -> str:
        """The first value of *name* (lower case)."""
        return next((value for key, value in self if key == name), default)

    def without(self, *names: str) -> Headers:
        return Headers(pair for pair in self if pair[0] not in names)


HeaderPairs = Iterable[tuple[str, str]]


class Request(NamedTuple):
    method: str
    target: str
    """As it came: path and query, still percent-encoded."""
    headers: Headers

    @property
    def wants_upgrade(self) -> bool:
        return bool(self.headers.get("upgrade"))


class Upgraded:
    """The raw Stream after a 101: what the other side already sent comes first."""

    def __init__(self, stream: Stream, first: bytes, ended: bool) -> None:
        self._stream, self._first, self._ended = stream, first, ended

    async def read(self, limit: int) -> bytes:
        if self._first:
            piece, self._first = self._first[:limit], self._first[limit:]
            return piece
        return b"" if self._ended else await self._stream.read(limit)

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def finish(self) -> None:
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()


class _Wire:
    """h11's connection and the Stream beneath it: events in, events out."""

    def __init__(self, stream: Stream, connection: h11.Connection) -> None:
        self.stream = stream
        self.h11 = connection
        self._ended = False

    async def send(self, *events: h11.Event) -> None:
        """In one write: over the peer link each costs a packet of its own."""
        try:
            data = b"".join([self.h11.send(event) or b"" for event in events])
        except h11.LocalProtocolError as error:
            raise PeerError("http.order", f"this cannot be sent now: {error}") from error
        if data:
            await self.stream.write(data)

    async def next(self) -> h11.Event | type[h11.PAUSED]:
        """Raises PeerError("http.malformed") or Unavailable("http.cut")."""
        while (event := self._parse()) is h11.NEED_DATA:
            await self._fill()
        if isinstance(event, h11.Request | h11.Response):
            _check_head(event)
        return event  # type: ignore[return-value] # NEED_DATA is gone, mypy cannot narrow a class object

    def _parse(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self.h11.next_event()
        except h11.RemoteProtocolError as error:
            if self._ended:
                raise Unavailable("http.cut", "the connection ended in the middle of a message") from error
            raise PeerError("http.malformed", f"not valid HTTP/1.1: {error}") from error

    async def _fill(self) -> None:
        data = await self.stream.read(PIECE)
        self._ended = not data
        try:
            self.h11.receive_data(data)
        except (h11.RemoteProtocolError, RuntimeError) as error:
            raise PeerError("http.malformed", f"data after the end: {error}") from error

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces of the message that is being read, to its end."""
        while True:
            event = await self.next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                return

    async def gone(self) -> None:
        """Returns once the other side closed or broke. What it sent meanwhile is kept (at most HEAD_LIMIT:
        nobody pipelines more behind a running answer)."""
        while not self._ended and len(self.h11.trailing_data[0]) <= HEAD_LIMIT:
            try:
                await self._fill()
            except (PeerError, Unavailable):
                return

    def upgraded(self) -> Upgraded:
        first, ended = self.h11.trailing_data
        return Upgraded(self.stream, bytes(first), ended)


class HttpServer:
    """Answers the requests that arrive on *stream*, one after the other."""

    def __init__(self, stream: Stream) -> None:
        self._wire = _Wire(stream, h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT))
        self._upgrade = ""
        self._head_only = False

    async def read_request(self) -> Request | None:
        """The next request's head; None if the client closed (or the last answer ended the connection).

        Raises PeerError("http.malformed") or Unavailable: answer nothing more, abort the stream.
        """
        if not await self._next_cycle():
            return None
        event = await self._wire.next()
        if not isinstance(event, h11.Request):
            return None
        request = Request(event.method.decode(), event.target.decode("latin-1"), _headers(event))
        self._upgrade = request.headers.get("upgrade")
        self._head_only = request.method == "HEAD"
        return request

    async def _next_cycle(self) -> bool:
        connection = self._wire.h11
        if connection.our_state is h11.IDLE:
            return True
        if connection.our_state is not h11.DONE or not await self._drained():
            return False
        connection.start_next_cycle()
        return True

    async def _drained(self) -> bool:
        taken = 0
        while self._wire.h11.their_state is h11.SEND_BODY:
            event = await self._wire.next()
            taken += len(event.data) if isinstance(event, h11.Data) else 0
            if taken > DRAIN_LIMIT:
                return False
        return self._wire.h11.their_state is h11.DONE

    @property
    def answering(self) -> bool:
        """The head of an answer went out: too late for another one."""
        return self._wire.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    async def body(self) -> AsyncIterator[bytes]:
        """The request's body in pieces as they arrive."""
        if self._wire.h11.they_are_waiting_for_100_continue:
            await self._wire.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        if self._wire.h11.their_state is h11.SEND_BODY:
            async for piece in self._wire.body():
                yield piece

    async def read_body(self, limit: int = BODY_LIMIT) -> bytes:
        """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
        return await read_whole(self.body(), limit)

    async def respond(self, status: int, headers: HeaderPairs = ()) -> None:
        """The head, now. Without a content-length the body is chunked; 204, 304 and HEAD have none."""
        await self._wire.send(_response_head(status, headers))

    async def send(self, data: bytes) -> None:
        if data and not self._head_only:  # an empty chunk would end a chunked body
            await self._wire.send(h11.Data(data=data))

    async def end(self) -> None:
        await self._wire.send(h11.EndOfMessage())

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:
        """A whole response whose body is in memory."""
        bodiless = status in (204, 304)
        framing = () if bodiless else (("content-length", str(len(body))),)
        pieces = [h11.Data(data=body)] if body and not bodiless and not self._head_only else []
        await self._wire.send(_response_head(status, (*headers, *framing)), *pieces, h11.EndOfMessage())

    async def gone(self) -> None:
        """Returns when the client is no longer there: run it beside an endless answer. Only to be called once
        the request's body has been read."""
        await self._wire.gone()

    def raw(self) -> Stream:
        """Everything after the head that was read last, unparsed, for a relay; this server is over then."""
        return self._wire.upgraded()

    async def upgrade(self, headers: HeaderPairs = ()) -> Stream:
        """Answer 101 and hand over the raw connection; the request must have asked for an upgrade."""
        if not await self._drained_before_upgrade():
            raise PeerError("http.oversized", "the body of an upgrade request is too large")
        given = [pair for pair in headers if pair[0].lower() not in ("connection", "upgrade")]
        switch = [("connection", "Upgrade"), ("upgrade", self._upgrade or "tcp")]
        head = h11.InformationalResponse(
            status_code=101, headers=_encode([*given, *switch]), reason=b"UPGRADED"
        )
        await self._wire.send(head)
        return self._wire.upgraded()

    async def _drained_before_upgrade(self) -> bool:
        taken = 0
        async for piece in self.body():
            taken += len(piece)
            if taken > DRAIN_LIMIT:
                return False
        return True


class Response:
    """A response's head; its body is still on the wire. ``upgraded`` is the raw Stream after a 101."""

    def __init__(self, wire: _Wire, status: int, headers: Headers, upgraded: Stream | None = None) -> None:
        self._wire = wire
        self.status = status
        self.headers = headers
        self.upgraded = upgraded

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.headers.get('content-type') or '-'}>"

    def body(self) -> AsyncIterator[bytes]:
        return self._wire.body()

    async def read_body(self, limit: int = BODY_LIMIT) -> bytes:
        """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
        return await read_whole(self.body(), limit)


class HttpClient:
    """Asks the server at the end of *stream*; read one answer's body to its end before the next request."""

    def __init__(self, stream: Stream) -> None:
        self._wire = _Wire(stream, h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT))

    @property
    def may_ask_again(self) -> bool:
        """The last answer was read to its end, and neither side wants to part after it."""
        return self._wire.h11.our_state is h11.DONE and self._wire.h11.their_state is h11.DONE

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
        self._next_cycle()
        head = _request_head(method, target, headers, body)
        if body is None or isinstance(body, bytes):
            await self._send_rest(head, *([h11.Data(data=body)] if body else []))
            return await self._read_response()
        await self._wire.send(head)
        return await self._upload(body)

    def _next_cycle(self) -> None:
        if self._wire.h11.our_state is h11.IDLE:
            return
        try:
            self._wire.h11.start_next_cycle()
        except h11.LocalProtocolError as error:
            raise Unavailable("http.closed", "the server ended this connection; open a new one") from error

    async def _send_rest(self, *events: h11.Event) -> None:
        try:
            await self._wire.send(*events, h11.EndOfMessage())
        except Unavailable:
            pass  # the answer may already be here, and says more than "broken pipe"

    async def _upload(self, body: AsyncIterator[bytes]) -> Response:
        try:
            async with asyncio.TaskGroup() as tasks:
                upload = tasks.create_task(self._send_pieces(body))
                response = await self._read_response()
                if response.status >= 400:
                    upload.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return response

    async def _send_pieces(self, body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            try:
                await self._wire.send(h11.Data(data=piece))
            except Unavailable:
                return  # as above: the response tells
        await self._send_rest()

    async def _read_response(self) -> Response:
        while True:
            event = await self._wire.next()
            if isinstance(event, h11.Response):
                return Response(self._wire, event.status_code, _headers(event))
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return Response(self._wire, 101, _headers(event), self._wire.upgraded())
            if not isinstance(event, h11.InformationalResponse):
                raise Unavailable("http.cut", "the server closed the connection without an answer")


async def read_whole(pieces: AsyncIterator[bytes], limit: int = BODY_LIMIT) -> bytes:
    """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        if len(buffer) > limit:
            raise PeerError(
                "http.oversized", f"a body of more than {limit} bytes where at most that is allowed"
            )
    return bytes(buffer)


JSON = (("content-type", "application/json"),)


def error_body(message: str) -> bytes:
    """The Engine API's one error shape."""
    return json.dumps({"message": message}).encode() + b"\n"


async def error_response(server: HttpServer, status: int, message: str) -> None:
    await server.answer(status, JSON, error_body(message))


def _response_head(status: int, headers: HeaderPairs) -> h11.Response:
    return h11.Response(status_code=status, headers=_encode(headers), reason=_reason(status))


def _request_head(
    method: str, target: str, headers: HeaderPairs, body: bytes | AsyncIterator[bytes] | None
) -> h11.Request:
    fields = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("host", "docker"))
    if isinstance(body, bytes):
        fields = [pair for pair in fields if pair[0] not in ("content-length", "transfer-encoding")]
        fields.append(("content-length", str(len(body))))
    elif body is not None and "content-length" not in names and "transfer-encoding" not in names:
        fields.append(("transfer-encoding", "chunked"))
    elif body is None and method in ("POST", "PUT") and "content-length" not in names:
        fields.append(("content-length", "0"))
    with _sendable():
        return h11.Request(method=method, target=target, headers=_encode(fields))


@contextmanager
def _sendable() -> Iterator[None]:
    """A header that would break out of its line comes from a peer's data, so it is the peer's fault."""
    try:
        yield
    except h11.LocalProtocolError as error:
        raise PeerError("http.malformed", f"this head cannot be sent: {error}") from error


def _check_head(event: h11.Request | h11.Response) -> None:
    size = sum(len(name) + len(value) + 4 for name, value in event.headers)
    size += len(event.target) if isinstance(event, h11.Request) else 0
    if size > HEAD_LIMIT:
        raise PeerError("http.malformed", f"a head of {size} bytes; the limit is {HEAD_LIMIT}")
    names = {name for name, _ in event.headers}
    if b"content-length" in names and b"transfer-encoding" in names:
        raise PeerError("http.malformed", "two framings in one message (RFC 9112 §6.3: request smuggling)")


def _headers(event: h11.Request | h11.Response | h11.InformationalResponse) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers)


def _encode(headers: HeaderPairs) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers
    ]


_REASONS = {200: b"OK", 201: b"Created", 204: b"No Content", 304: b"Not Modified", 400: b"Bad Request"}


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error for the callers; if any is a bug of ours it must not hide behind a peer's fault."""
    leaves = [
        leaf
        for error in group.exceptions
        for leaf in ([_first(error)] if isinstance(error, BaseExceptionGroup) else [error])
    ]
    return next((leaf for leaf in leaves if not isinstance(leaf, DockageError)), leaves[0])
