"""HTTP/1.1 over a Stream: what must arrive, what must arrive at once, and what is refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from dockage.domain.errors import PeerError, Unavailable
from dockage.wire.heads import HEAD_LIMIT
from dockage.wire.http import HttpClient, HttpServer, Request, error_response
from dockage.wire.splice import SocketStream

Serve = Callable[[HttpServer, Request], Awaitable[None]]


async def pair() -> tuple[SocketStream, SocketStream]:
    left, right = socket.socketpair()
    return SocketStream(*await asyncio.open_connection(sock=left)), SocketStream(
        *await asyncio.open_connection(sock=right)
    )


async def serving(stream: SocketStream, serve: Serve) -> None:
    server = HttpServer(stream)
    while request := await server.read_request():
        await serve(server, request)


class Conversation:
    """A client whose requests *serve* answers in a task that this object owns."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve

    async def __aenter__(self) -> HttpClient:
        self.near, self.far = await pair()
        self._task = asyncio.create_task(serving(self.far, self._serve))
        return HttpClient(self.near)

    async def __aexit__(self, *_: object) -> None:
        self.near.abort()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.far.abort()


async def pieces(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item


async def echo(server: HttpServer, request: Request) -> None:
    body = await server.read_body()
    await server.respond(200, [("x-target", request.target)])
    await server.send(body)
    await server.end()


async def test_a_connection_serves_several_requests() -> None:
    async with Conversation(echo) as client:
        for number in range(3):
            response = await client.request("POST", f"/v1.44/x?n={number}", [], b"hello %d" % number)
            assert (response.status, response.headers.get("x-target")) == (200, f"/v1.44/x?n={number}")
            assert await response.read_body() == b"hello %d" % number


async def test_a_streamed_body_arrives_whole() -> None:
    async with Conversation(echo) as client:
        response = await client.request("PUT", "/", [], pieces(b"a" * 100_000, b"", b"b" * 100_000))
        assert await response.read_body() == b"a" * 100_000 + b"b" * 100_000


async def test_a_known_length_is_kept() -> None:
    async def serve(server: HttpServer, request: Request) -> None:
        assert request.headers.get("content-length") == "6"
        await server.answer(200, [], await server.read_body())

    async with Conversation(serve) as client:
        response = await client.request("PUT", "/", [("Content-Length", "6")], pieces(b"abc", b"def"))
        assert response.headers.get("content-length") == "6"
        assert await response.read_body() == b"abcdef"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answers_without_a_body_keep_the_connection(method: str, status: int) -> None:
    async def serve(server: HttpServer, request: Request) -> None:
        await server.answer(status, [], b"")

    async with Conversation(serve) as client:
        for _ in range(2):
            response = await client.request(method, "/")
            assert response.status == status
            assert await response.read_body() == b""


async def test_an_error_on_head_keeps_the_connection() -> None:
    async def serve(server: HttpServer, request: Request) -> None:
        await error_response(server, 404, "no such file")

    async with Conversation(serve) as client:
        for _ in range(2):
            response = await client.request("HEAD", "/archive")
            assert (response.status, await response.read_body()) == (404, b"")


async def test_headers_and_pieces_go_out_at_once() -> None:
    go = asyncio.Event()

    async def serve(server: HttpServer, request: Request) -> None:
        await server.respond(200)
        await go.wait()
        await server.send(b"first")
        await asyncio.sleep(3600)

    async with Conversation(serve) as client:
        response = await client.request("POST", "/containers/x/wait")
        assert response.status == 200
        go.set()
        assert await anext(response.body()) == b"first"


async def test_a_hijacked_connection_keeps_its_other_direction_after_eof() -> None:
    async def serve(server: HttpServer, request: Request) -> None:
        assert request.wants_upgrade
        raw = await server.upgrade([("content-type", "application/vnd.docker.raw-stream")])
        received = b""
        while piece := await raw.read(1000):
            received += piece
        await raw.write(b"got " + received)
        await raw.finish()

    async with Conversation(serve) as client:
        response = await client.request("POST", "/attach", [("Connection", "Upgrade"), ("Upgrade", "tcp")])
        raw = response.upgraded
        assert raw is not None
        assert response.headers.get("content-type") == "application/vnd.docker.raw-stream"
        await raw.write(b"stdin")
        await raw.finish()
        assert await raw.read(100) == b"got stdin"
        assert await raw.read(100) == b""


async def test_bytes_behind_the_upgrade_request_are_not_lost() -> None:
    near, far = await pair()
    await near.write(b"POST /a HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
    await near.finish()
    server = HttpServer(far)
    assert await server.read_request()
    raw = await server.upgrade()
    assert (await raw.read(2), await raw.read(10), await raw.read(10)) == (b"ea", b"rly", b"")
    near.abort()
    far.abort()


async def test_a_declined_upgrade_is_an_ordinary_answer() -> None:
    async def serve(server: HttpServer, request: Request) -> None:
        await error_response(server, 404, "no such container")

    async with Conversation(serve) as client:
        for _ in range(2):
            response = await client.request("POST", "/a", [("Connection", "Upgrade"), ("Upgrade", "tcp")])
            assert (response.status, response.upgraded) == (404, None)
            assert await response.read_body() == b'{"message": "no such container"}\n'


async def test_an_early_refusal_stops_the_upload() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async def serve(server: HttpServer, request: Request) -> None:
        await error_response(server, 413, "too much")

    async with Conversation(serve) as client:
        assert (await client.request("PUT", "/", [], endless())).status == 413


async def test_a_failing_upload_is_one_plain_error() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise Unavailable("socket.closed", "the tenant is gone")

    async with Conversation(echo) as client:
        with pytest.raises(Unavailable, match="the tenant is gone"):
            await client.request("PUT", "/", [], broken())


async def test_the_server_notices_that_the_client_left() -> None:
    left = asyncio.Event()

    async def serve(server: HttpServer, request: Request) -> None:
        await server.respond(200)
        await server.gone()
        left.set()

    async with Conversation(serve) as client:
        await client.request("GET", "/events")
        await client._stream.finish()
        await asyncio.wait_for(left.wait(), 5)


async def test_a_body_over_its_limit_is_refused_before_it_is_held() -> None:
    near, far = await pair()
    await near.write(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999\r\n\r\n" + bytes(2000))
    server = HttpServer(far)
    assert await server.read_request()
    with pytest.raises(PeerError) as caught:
        await server.read_body(1000)
    assert caught.value.code == "http.oversized"
    near.abort()
    far.abort()


HOSTILE = [
    b"GET\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: d\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: d\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: d\r\nX : y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"y" * HEAD_LIMIT + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"y" * 3 * HEAD_LIMIT,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
]


@pytest.mark.parametrize("sent", HOSTILE)
async def test_a_malformed_or_ambiguous_head_is_refused(sent: bytes) -> None:
    near, far = await pair()
    await near.write(sent)
    with pytest.raises(PeerError) as caught:
        await HttpServer(far).read_request()
    assert caught.value.code in ("http.malformed", "http.framing")
    near.abort()
    far.abort()


async def test_a_head_cut_short_is_the_connections_fault() -> None:
    near, far = await pair()
    await near.write(b"GET / HT")
    await near.finish()
    with pytest.raises(Unavailable):
        await HttpServer(far).read_request()
    near.abort()
    far.abort()


async def test_a_closed_connection_is_no_request() -> None:
    near, far = await pair()
    await near.finish()
    assert await HttpServer(far).read_request() is None
    near.abort()
    far.abort()


async def test_a_header_cannot_smuggle_a_line() -> None:
    near, far = await pair()
    with pytest.raises(PeerError):
        await HttpClient(near).request("GET", "/", [("x", "a\r\nX-Evil: 1")])
    with pytest.raises(PeerError):
        await HttpClient(near).request("GET", "/a HTTP/1.1\r\nX-Evil: 1\r\n\r\n")
    near.abort()
    far.abort()
