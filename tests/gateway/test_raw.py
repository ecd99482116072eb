"""TCP and UDP ports of a gateway, and TLS that is passed on by its name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from dockage.domain.deployment import Site
from dockage.domain.errors import UsageError
from dockage.protocol.clienthello import HELLO_MAX
from gateway.lab import INGRESS, Lab, echo, lab


@pytest.fixture
async def here() -> AsyncIterator[Lab]:
    async with lab(tls="127.0.0.1:0") as here:
        yield here


def free_port() -> int:
    """One that is for rent here and free on this machine."""
    for port in range(20000, 20100):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


async def shout(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()


async def test_a_rented_tcp_port_is_bytes_both_ways(here: Lab) -> None:
    first, second = here.add(serve=echo), here.add(serve=echo)
    port = free_port()
    await here.publish(sites=(Site((), 6379, "web", "tcp", port),))
    assert await shout(port, b"hello") == b"hello"
    assert {h.port for r in (first, second) for h in r.headers} == {6379}  # type: ignore[union-attr]
    first.cut("gone")
    for _ in range(5):
        assert await shout(port, b"again") == b"again"


async def test_the_port_is_free_again_with_the_next_document(here: Lab) -> None:
    here.add(serve=echo)
    port = free_port()
    await here.publish(sites=(Site((), 6379, "web", "tcp", port),))
    await here.publish(epoch=2, sites=())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await here.publish(epoch=3, sites=(Site((), 6379, "web", "tcp", port),))
    await here.host.teardown(INGRESS)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_cannot_be_had_changes_nothing(here: Lab) -> None:
    here.add(serve=echo)
    port = free_port()
    await here.publish(sites=(Site((), 6379, "web", "tcp", port),))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        here.host.served._rules = here.host.served._rules._replace(last_port=65535)
        with pytest.raises(UsageError) as caught:
            await here.publish(epoch=2, sites=(Site((), 6379, "web", "tcp", taken),))
    assert caught.value.code == "site.port"
    assert await shout(port, b"still") == b"still"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", b""])
async def test_what_is_no_hello_is_closed(here: Lab, data: bytes) -> None:
    here.add(serve=echo)
    await here.publish(sites=(Site(("sealed.example.com",), 443, "web", "pass"),))
    assert await shout(here.doors.bound["tls"], data) == b""


async def test_hellos_without_end_are_not_kept(here: Lab) -> None:
    drip = b"\x16\x03\x01\x40\x00\x01\x00\x40\x00" + bytes(HELLO_MAX * 2)
    try:
        assert await shout(here.doors.bound["tls"], drip) == b""
    except ConnectionResetError:
        pass


async def test_datagrams_go_to_one_replica_and_come_back(here: Lab) -> None:
    here.add(serve=echo)
    port = free_port()
    await here.publish(sites=(Site((), 53, "web", "udp", port),))
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", port))
        for word in (b"one", b"two"):
            client.send(word)
            async with asyncio.timeout(5):
                assert await loop.sock_recv(client, 100) == word
    into = (await here.host.read(INGRESS)).tunnel_in_bytes
    assert into >= 6 + 2 * 4
