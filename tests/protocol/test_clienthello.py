"""Server names out of ClientHellos: real ones in whatever pieces, and noise."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.protocol.clienthello import HELLO_MAX, NoHello, server_name


def hello(host: str | None) -> bytes:
    """As OpenSSL says it."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = host is not None
    client = context.wrap_bio(into, out, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


REAL = hello("shop.example.com")


def records(data: bytes, size: int) -> bytes:
    """The same handshake in records of *size* bytes."""
    body = data[5:]
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(data[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    ("asked", "host"), [("shop.example.com", "shop.example.com"), ("SHOP.example.COM", "shop.example.com")]
)
def test_a_real_hello_says_its_name(asked: str, host: str) -> None:
    assert server_name(hello(asked)) == host


@given(st.integers(0, len(REAL) - 1))
def test_a_part_of_it_is_waited_for(size: int) -> None:
    assert server_name(REAL[:size]) in (None, "shop.example.com")
    assert server_name(REAL + b"more") == "shop.example.com"


@given(st.integers(40, 400), st.data())
def test_it_may_come_in_many_records(size: int, data: st.DataObject) -> None:
    cut = records(REAL, size)
    assert server_name(cut) == "shop.example.com"
    server_name(cut[: data.draw(st.integers(0, len(cut)))])


def test_one_that_names_nobody_has_no_name() -> None:
    with pytest.raises(NoHello):
        server_name(hello(None))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(100),
        b"\x16\x03\x01\x00\x00" + bytes(100),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x15\x03\x01\x00\x02\x02\x28",
    ],
)
def test_what_is_none_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(NoHello):
        server_name(data)


@pytest.mark.parametrize("host", [b"../../etc/pass", b"127.0.0.1", b"localhost", b"a\x00b.example.c", b""])
def test_a_name_that_is_no_host_name_is_refused(host: bytes) -> None:
    name = b"\x00" + len(host).to_bytes(2, "big") + host
    server = len(name).to_bytes(2, "big") + name
    with pytest.raises(NoHello):
        server_name(made(b"\x00\x00" + len(server).to_bytes(2, "big") + server))


def made(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def test_two_names_are_none() -> None:
    server = b"\x00\x00\x00\x0a\x00\x08\x00\x00\x05a.com"
    assert server_name(made(server)) == "a.com"
    with pytest.raises(NoHello):
        server_name(made(server + server))


@given(st.binary(max_size=300))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    try:
        host = server_name(noise)
    except NoHello:
        return
    assert host is None or noise[:1] == b"\x16"


@given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=4))
def test_a_bent_hello_names_a_host_name_or_none(changes: list[tuple[int, int]]) -> None:
    bent = bytearray(REAL)
    for at, value in changes:
        bent[at] = value
    try:
        host = server_name(bytes(bent))
    except NoHello:
        return
    assert host is None or len(host) <= 253


def test_nothing_is_waited_for_without_end() -> None:
    drip = b"\x16\x03\x01\x00\x01"
    with pytest.raises(NoHello):
        server_name((drip + b"\x01") + (drip + b"\x00") * HELLO_MAX)
