"""HTTP/1.1 as we write and read it, held against h11; and what a peer may not say. More: tests/engine/test_http.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.errors import PeerError, Unavailable
from dockage.ports.peers import Stream
from dockage.testing.leases import memory_pair
from dockage.wire.bodies import read_whole
from dockage.wire.http import HttpClient, HttpServer

LIMIT = 30.0
BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=5)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
NAMES = st.sampled_from(["x-a", "x-b", "content-type", "docker-experimental"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


async def say(stream: Stream, data: bytes, cuts: list[int]) -> None:
    """In pieces whose sizes come again and again from *cuts*."""
    at, number = 0, 0
    while at < len(data):
        size = cuts[number % len(cuts)]
        await stream.write(data[at : at + size])
        at, number = at + size, number + 1
        await asyncio.sleep(0)
    await stream.finish()


async def all_of(stream: Stream) -> bytes:
    found = b""
    while piece := await stream.read(1 << 16):
        found += piece
    return found


async def pieces(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item


def read_by_h11(role: type[h11.Sentinel], data: bytes, asked: h11.Request | None = None) -> list[h11.Event]:
    connection = h11.Connection(role)
    if asked is not None:
        connection.send(asked)
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    found = []
    while not isinstance(event := connection.next_event(), h11.ConnectionClosed) and event is not h11.PAUSED:
        assert event is not h11.NEED_DATA
        found.append(event)
    return found


def body_of(events: list[h11.Event]) -> bytes:
    return b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))


def pairs_of(event: h11.Request | h11.Response) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in event.headers]


# -- held against h11 ----------------------------------------------------------------------------------
@given(fields=FIELDS, body=BODIES, whole=st.booleans())
@settings(max_examples=40)
async def test_h11_reads_our_requests(fields: list[tuple[str, str]], body: list[bytes], whole: bool) -> None:
    ours, theirs = memory_pair()
    asking = asyncio.create_task(
        HttpClient(ours).request("POST", "/v1.44/x?y=%20", fields, b"".join(body) if whole else pieces(*body))
    )
    await theirs.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (await asyncio.wait_for(asking, LIMIT)).status == 204
    await ours.finish()
    request, *rest = read_by_h11(h11.SERVER, await all_of(theirs))
    assert isinstance(request, h11.Request)
    assert request.target == b"/v1.44/x?y=%20"
    assert [pair for pair in pairs_of(request) if pair in fields] == fields
    assert body_of(rest) == b"".join(body)


@given(fields=FIELDS, body=BODIES, whole=st.booleans(), old=st.booleans())
@settings(max_examples=40)
async def test_h11_reads_our_answers(
    fields: list[tuple[str, str]], body: list[bytes], whole: bool, old: bool
) -> None:
    ours, theirs = memory_pair()
    version = b"1.0" if old else b"1.1"
    await theirs.write(b"GET / HTTP/%b\r\nHost: d\r\n\r\n" % version)
    server = HttpServer(ours)
    assert await server.read_request()
    if whole:
        await server.answer(200, fields, b"".join(body))
    else:
        await server.respond(200, fields)
        for piece in body:
            await server.send(piece)
        await server.end()
    await ours.finish()
    asked = h11.Request(method="GET", target="/", headers=[("host", "d")])
    response, *rest = read_by_h11(h11.CLIENT, await all_of(theirs), asked)
    assert isinstance(response, h11.Response)
    assert [pair for pair in pairs_of(response) if pair in fields] == fields
    assert body_of(rest) == b"".join(body)


@given(fields=FIELDS, body=BODIES, chunked=st.booleans(), cuts=CUTS)
@settings(max_examples=40)
async def test_we_read_the_requests_of_h11(
    fields: list[tuple[str, str]], body: list[bytes], chunked: bool, cuts: list[int]
) -> None:
    size = ("content-length", str(len(b"".join(body))))
    connection = h11.Connection(h11.CLIENT)
    framed = [("host", "d"), *fields, ("transfer-encoding", "chunked") if chunked else size]
    events = [
        h11.Request(method="PUT", target="/a", headers=framed),
        *(h11.Data(data=piece) for piece in body),
    ]
    data = b"".join(connection.send(event) or b"" for event in [*events, h11.EndOfMessage()])
    ours, theirs = memory_pair()
    speaking = asyncio.create_task(say(theirs, data, cuts))
    server = HttpServer(ours)
    request = await asyncio.wait_for(server.read_request(), LIMIT)
    assert request is not None
    assert (request.method, request.target) == ("PUT", "/a")
    assert [pair for pair in request.headers if pair in fields] == fields
    assert await asyncio.wait_for(server.read_body(), LIMIT) == b"".join(body)
    await speaking


@given(body=BODIES, how=st.sampled_from(["length", "chunked", "close"]), cuts=CUTS)
@settings(max_examples=40)
async def test_we_read_the_answers_of_h11(body: list[bytes], how: str, cuts: list[int]) -> None:
    connection = h11.Connection(h11.SERVER)
    version = b"1.0" if how == "close" else b"1.1"
    connection.receive_data(b"GET / HTTP/%b\r\nHost: d\r\n\r\n" % version)
    connection.next_event()
    size = [("content-length", str(len(b"".join(body))))] if how == "length" else []
    events = [h11.Response(status_code=200, headers=size), *(h11.Data(data=piece) for piece in body)]
    data = b"".join(connection.send(event) or b"" for event in [*events, h11.EndOfMessage()])
    ours, theirs = memory_pair()
    speaking = asyncio.create_task(say(theirs, data, cuts))
    client = HttpClient(ours)
    response = await asyncio.wait_for(client.request("GET", "/"), LIMIT)
    assert await asyncio.wait_for(read_whole(response.body()), LIMIT) == b"".join(body)
    assert client.may_ask_again == (how != "close")
    await speaking


# -- lies ----------------------------------------------------------------------------------------------
OK = b"HTTP/1.1 200 OK\r\n"
LIES = {
    "no status": (b"HTTP/1.1 abc\r\n\r\n", "http.malformed"),
    "another protocol": (b"SSH-2.0-x\r\n\r\n", "http.malformed"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "http.framing"),
    "length and chunks": (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "http.framing"),
    "a negative length": (OK + b"Content-Length: -1\r\n\r\n", "http.framing"),
    "a folded line": (OK + b"X: a\r\n b\r\n\r\n", "http.malformed"),
    "a bare line feed": (OK + b"X: a\nY: b\r\n\r\n", "http.malformed"),
    "many lines": (OK + b"X: a\r\n" * 200 + b"\r\n", "http.malformed"),
    "a chunk without a size": (OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", "http.framing"),
    "a chunk that is longer": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", "http.framing"),
    "no end of a length": (OK + b"Content-Length: 9\r\n\r\nx", "http.cut"),
    "no end of chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "http.cut"),
    "promises without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "http.order"),
    "nothing": (b"", "http.cut"),
    "half a head": (OK, "http.cut"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_is_none_is_an_error(lie: str) -> None:
    said, code = LIES[lie]
    ours, theirs = memory_pair()
    await theirs.write(said)
    await theirs.finish()
    client = HttpClient(ours)
    with pytest.raises((PeerError, Unavailable)) as caught:
        async with asyncio.timeout(LIMIT):
            await (await client.request("GET", "/")).read_body()
    assert caught.value.code == code
    assert not client.may_ask_again


async def test_an_answer_that_nobody_asked_for_costs_the_connection() -> None:
    """Else it would be taken for the one to the next question."""
    ours, theirs = memory_pair()
    await theirs.write(OK + b"Content-Length: 1\r\n\r\nx" + OK + b"Content-Length: 4\r\n\r\nlies")
    client = HttpClient(ours)
    assert await (await client.request("GET", "/")).read_body() == b"x"
    with pytest.raises(Unavailable):
        await client.request("GET", "/")


async def test_who_waits_to_be_asked_for_the_body_is_asked_once() -> None:
    ours, theirs = memory_pair()
    await theirs.write(b"PUT / HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    server = HttpServer(ours)
    assert await server.read_request()
    reading = asyncio.create_task(server.read_body())
    assert await theirs.read(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    await theirs.write(b"ab")
    assert await asyncio.wait_for(reading, LIMIT) == b"ab"
    await server.answer(204, (), b"")
    assert await theirs.read(100) == b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_who_was_not_asked_for_the_body_is_not_waited_for() -> None:
    ours, theirs = memory_pair()
    await theirs.write(b"PUT / HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    server = HttpServer(ours)
    assert await server.read_request()
    await server.answer(403, (), b"no")
    assert await asyncio.wait_for(server.read_request(), LIMIT) is None


async def test_an_answer_keeps_what_its_head_promised() -> None:
    ours, theirs = memory_pair()
    await theirs.write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
    server = HttpServer(ours)
    assert await server.read_request()
    await server.respond(200, [("content-length", "3")])
    with pytest.raises(PeerError, match="more"):
        await server.send(b"four")
    await server.send(b"tw")
    with pytest.raises(PeerError, match="less"):
        await server.end()
    with pytest.raises(PeerError, match="once"):
        await server.respond(200)
