"""Heads of HTTP as a gateway forwards them: what is let through is read the same by others, the rest is refused."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.protocol.forwarding import parse_request, parse_response, request_bytes, response_bytes
from dockage.protocol.http1 import CHUNKED, NO_BODY, UNTIL_CLOSE, Chunks, Framing

HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: shop.example.com\r\n"


def refusal(head: bytes) -> str:
    with pytest.raises(PeerError) as caught:
        parse_request(head)
    return caught.value.code


def h11_sees(data: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


# -- requests ----------------------------------------------------------------------------------------
def test_what_a_replica_gets() -> None:
    head = parse_request(
        HEAD
        + b"Accept: */*\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nX-Forwarded-For: 6.6.6.6\r\n"
        + b"Content-Length: 3\r\nProxy-Authorization: x\r\nTE: trailers\r\n\r\n"
    )
    sent = request_bytes(head, "1.2.3.4", "http", trusted=False)
    assert sent == (
        b"GET /a?b=c HTTP/1.1\r\nhost: shop.example.com\r\nAccept: */*\r\nContent-Length: 3\r\n"
        b"x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop.example.com\r\n\r\n"
    )
    assert head.framing == Framing(3)


def test_our_face_says_who_the_client_is() -> None:
    head = parse_request(HEAD + b"X-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert b"X-Forwarded-For: 1.2.3.4\r\n" in request_bytes(head, "", "", trusted=True)


def test_framing_cannot_be_hidden_behind_the_connection_header() -> None:
    head = parse_request(HEAD + b"Content-Length: 3\r\nConnection: content-length\r\n\r\n")
    assert b"Content-Length: 3\r\n" in request_bytes(head, "", "", trusted=True)


@pytest.mark.parametrize(
    ("extra", "keeps", "upgrade"),
    [
        (b"", True, b""),
        (b"Connection: close\r\n", False, b""),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\n", True, b"websocket"),
        (b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n", True, b"websocket"),
        (b"Upgrade: websocket\r\n", True, b""),
        (b"Connection: upgrade\r\nUpgrade: h2c\r\n", True, b""),
        (b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", True, b""),
        (b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", True, b""),
    ],
)
def test_what_the_connection_is_for(extra: bytes, keeps: bool, upgrade: bytes) -> None:
    head = parse_request(HEAD + extra + b"\r\n")
    assert (head.keep_alive, head.upgrade) == (keeps, upgrade)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "http.host"),
        (HEAD + b"host: other.example.com\r\n\r\n", "http.host"),
        (b"GET / HTTP/1.1\r\nHost: shop.example.com/x\r\n\r\n", "http.host"),
        (b"GET / HTTP/1.1\r\nHost: shop.example.com:80:80\r\n\r\n", "http.host"),
        (b"GET / HTTP/1.1\r\nHost: user@shop.example.com\r\n\r\n", "http.host"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "http.host"),
        (b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", "http.host"),
        (b"GET / HTTP/2.0\r\nHost: shop.example.com\r\n\r\n", "http.malformed"),
        (b"GET  / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", "http.malformed"),
        (b"GET /\t HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", "http.malformed"),
        (b"CONNECT /a HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", "http.malformed"),
        (b"CONNECT shop.example.com:443 HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", "http.malformed"),
        (HEAD + b"a\r\n\r\n", "http.malformed"),
        (HEAD + b"a : b\r\n\r\n", "http.malformed"),
        (HEAD + b" folded: b\r\n\r\n", "http.malformed"),
        (HEAD + b"a: b\x00\r\n\r\n", "http.malformed"),
        (HEAD + b"a: b\nc: d\r\n\r\n", "http.malformed"),
        (HEAD + b"a: b\r\r\n\r\n", "http.malformed"),
        (HEAD + b"a: b\r\n" * 200 + b"\r\n", "http.malformed"),
        (HEAD + b"a: " + b"b" * 40_000 + b"\r\n\r\n", "http.malformed"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "http.framing"),
        (HEAD + b"Content-Length: 1, 1\r\n\r\n", "http.framing"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "http.framing"),
        (HEAD + b"Content-Length: 0x1\r\n\r\n", "http.framing"),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "http.framing"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "http.framing"),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n", "http.framing"),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", "http.framing"),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(head: bytes, code: str) -> None:
    assert refusal(head) == code


pieces = st.sampled_from(
    b"GET| |/|HTTP/1.1|\r\n|\n|\r|Host: a.com|content-length: 3|:".split(b"|")
    + b"Transfer-Encoding: chunked|Connection: close|x: y|\t|\x00|\xff|0".split(b"|")
)


@given(st.lists(pieces | st.binary(max_size=4), max_size=14))
def test_what_is_let_through_others_read_the_same(parts: list[bytes]) -> None:
    data = b"GET / HTTP/1.1\r\n" + b"".join(parts) + b"\r\n\r\n"
    try:
        head = parse_request(data)
    except PeerError:
        return
    sent = request_bytes(head, "1.2.3.4", "http", trusted=False)
    other = h11_sees(sent)
    names = dict(other.headers)
    assert other.method == head.method
    assert names[b"host"].split(b":")[0].lower().rstrip(b".").decode() == head.host
    assert (b"transfer-encoding" in names) == (head.framing == CHUNKED)
    assert int(names.get(b"content-length", b"0")) == max(0, head.framing.length)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, noise + b"\r\n\r\n"):
        with pytest.raises(PeerError):
            parse_request(data)
        with pytest.raises(PeerError):
            parse_response(b"\x00" + data, b"GET")


@pytest.mark.parametrize("minor", [b"0", b"1"])
def test_a_block_that_was_seen_is_read_as_if_it_was_new(minor: bytes) -> None:
    """In either version, for whichever path, and refused as often as it comes."""
    block = b"Host: shop.example.com\r\nAccept: */*\r\n\r\n"
    for target in (b"/", b"/other"):
        head = parse_request(b"GET " + target + b" HTTP/1." + minor + b"\r\n" + block)
        assert (head.target, head.keep_alive) == (target, minor == b"1")
        sent = request_bytes(head, "1.2.3.4", "http", trusted=False)
        assert sent.startswith(
            b"GET " + target + b" HTTP/1.1\r\nhost: shop.example.com\r\nAccept: */*\r\nx-forw"
        )
    for _ in range(2):
        assert refusal(b"GET / HTTP/1.1\r\nHost: a.example\r\n" + block) == "http.host"


# -- answers -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "method", "framing", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"GET", Framing(5), True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"HEAD", NO_BODY, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", b"GET", NO_BODY, True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n", b"GET", CHUNKED, True),
        (b"HTTP/1.1 200 OK\r\n", b"GET", UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", b"GET", Framing(5), False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n", b"GET", Framing(5), False),
    ],
)
def test_how_an_answer_ends(head: bytes, method: bytes, framing: Framing, keeps: bool) -> None:
    response = parse_response(head + b"\r\n", method)
    assert (response.framing, response.keep_alive) == (framing, keeps)


def test_an_answer_that_was_seen_is_read_as_if_it_was_new() -> None:
    """By what was asked, with its own first line, and refused as often as it comes."""
    head = b"HTTP/1.1 %s\r\nContent-Length: 5\r\n\r\n"
    for _ in range(2):
        for status, framing in ((b"200 OK", Framing(5)), (b"203", Framing(5)), (b"204 None", NO_BODY)):
            assert parse_response(head % status, b"GET").framing == framing
            found = parse_response(head % status, b"HEAD")
            assert (found.framing, found.status) == (NO_BODY, int(status[:3]))
            assert response_bytes(found, keep_alive=False) == (
                b"HTTP/1.1 %s\r\nContent-Length: 5\r\nconnection: close\r\n\r\n" % status
            )
        with pytest.raises(PeerError):
            parse_response(head % b"200 OK" + b"x", b"GET")


@pytest.mark.parametrize(
    ("extra", "is_plain"),
    [
        (b"", True),
        (b"Content-Length: 0\r\n", True),
        (b"Content-Length: 1\r\n", False),
        (b"Transfer-Encoding: chunked\r\n", False),
        (b"Expect: 100-continue\r\n", False),
        (b"Connection: close\r\n", False),
        (b"Connection: upgrade\r\nUpgrade: websocket\r\n", False),
    ],
)
def test_which_requests_want_an_answer_and_nothing_else(extra: bytes, is_plain: bool) -> None:
    assert parse_request(HEAD + extra + b"\r\n").fields.is_plain == is_plain


def test_what_the_public_gets_names_no_machine() -> None:
    head = parse_response(
        b"HTTP/1.1 200 Fine\r\nServer: x\r\nVia: 1.1 home.example\r\nX-Served-By: 10.0.0.1\r\n"
        b'Alt-Svc: h3=":443"\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\n\r\n',
        b"GET",
    )
    assert response_bytes(head, keep_alive=True) == (
        b"HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\nconnection: keep-alive\r\n\r\n"
    )


# -- chunks ------------------------------------------------------------------------------------------
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.data())
def test_the_end_of_a_chunked_body_is_found_however_it_comes(body: list[bytes], data: st.DataObject) -> None:
    extension = data.draw(st.sampled_from([b"", b";a=b", b' ; q="x"']))
    trailer = data.draw(st.sampled_from([b"", b"x-sum: 1\r\n"]))
    wire = b"".join(b"%X%s\r\n%s\r\n" % (len(x), extension, x) for x in body)
    wire += b"0\r\n" + trailer + b"\r\n"
    whole, chunks, at = wire + b"next", Chunks(), 0
    while not chunks.done:
        size = data.draw(st.integers(1, 9))
        at += chunks.feed(whole[at : at + size])
    assert at == len(wire)


@pytest.mark.parametrize(
    "wire",
    [
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n\r\n",
        b"-1\r\n\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"\r\n",
        b"f" * 14 + b"\r\n",
        b"3;" + b"a" * 400,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n" + b"a: b\r\n" * 1000,
    ],
)
def test_chunks_that_could_be_read_in_two_ways_are_refused(wire: bytes) -> None:
    with pytest.raises(PeerError):
        Chunks().feed(wire + b"a" * 400)


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_noise_never_counts_beyond_what_came(pieces: list[bytes]) -> None:
    chunks = Chunks()
    for piece in pieces:
        if chunks.done:
            return
        try:
            assert 0 <= chunks.feed(piece) <= len(piece)
        except PeerError:
            return
