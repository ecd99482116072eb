"""The whole way with real parts: Caddy with an authority of its own, our relay, a peer link, a stand-in container."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from dockage.adapters.gateway.face import Certificates, Face
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.link.link import IrohLink
from dockage.adapters.system.clock import SystemClock
from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.units import HOUR, Instant
from dockage.ports.peers import Stream
from dockage.protocol.streams import Tunnel
from dockage.testing.keys import MemoryKeys
from dockage.wire.http import HttpServer
from gateway.lab import HOST, INGRESS, RULES, TENANT, WEB, Answer, FakeReplica, ask, echo
from protocol.test_clienthello import hello

SEALED = "sealed.example.com"


class Edge(NamedTuple):
    tls: int
    plain: int
    folder: Path


async def shop(replica: FakeReplica, stream: Stream) -> None:
    """Says who asked; on an upgrade, shouts. On port 443 it sends back what comes."""
    header = replica.headers[-1]
    if isinstance(header, Tunnel) and header.port == 443:
        return await echo(replica, stream)
    server = HttpServer(stream)
    while (request := await server.read_request()) is not None:
        if request.wants_upgrade:
            up = await server.upgrade()
            while piece := await up.read(100):
                await up.write(piece.upper())
            return await up.finish()
        body = "".join(f"{name}: {value}\n" for name, value in request.headers).encode()
        await server.answer(200, [("via", "1.1 home")], body)
    await stream.finish()


@pytest.fixture(scope="module")
async def edge() -> AsyncIterator[Edge]:
    folder = Path(tempfile.mkdtemp(prefix="dk-"))  # a socket's path is short
    gateway, provider = await IrohLink.create(MemoryKeys(1).seed), await IrohLink.create(MemoryKeys(2).seed)
    gateway.learn(provider.node, provider.address())
    try:
        async with asyncio.TaskGroup() as tasks:
            replica = FakeReplica(1, shop)
            running = [
                tasks.create_task(provider.serve(replica.accept)),
                tasks.create_task(gateway.serve(replica.accept)),
            ]
            try:
                host, doors, plain = _host(folder)
                host.connect(gateway.open)
                running.append(tasks.create_task(host.serve()))
                await _publish(host, replace(replica.replica(), provider=provider.node))
                async with asyncio.timeout(20):
                    await _until_up(folder, doors)
                yield Edge(doors.bound["tls"], plain, folder)
            finally:
                for task in running:
                    task.cancel()
    finally:
        await gateway.close()
        await provider.close()
        shutil.rmtree(folder)


def _host(folder: Path) -> tuple[GatewayHost, Listeners, int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        plain = free.getsockname()[1]
    doors = Listeners(Places(folder / "relay.sock", "", "127.0.0.1:0", folder / "tls.sock", "127.0.0.1"))
    host = GatewayHost(RULES, SystemClock(), Random(1), "run", "x86_64", doors)
    face = Face(folder, f"127.0.0.1:{plain}", "127.0.0.1:0", Certificates("internal"), host.served)
    host.beside.append(face.run)
    return host, doors, plain


async def _publish(host: GatewayHost, replica: Replica) -> None:
    sites = (WEB, Site((SEALED,), 443, "web", "pass"))
    expires = Instant(SystemClock().now() + HOUR)
    await host.publish(INGRESS, Document(TENANT, "shop", 1, expires, sites, (replica,), ()))


async def _until_up(folder: Path, doors: Listeners) -> None:
    while not ("tls" in doors.bound and (folder / "tls.sock").exists()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def context(edge: Edge) -> ssl.SSLContext:
    """Whom a test's client trusts: nobody, for the authority's certificate is only there after the first name."""
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    return plain


async def test_https_reaches_the_container_and_says_who_asks(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", edge.tls, ssl=context(edge), server_hostname=HOST
    )
    writer.write(
        f"GET / HTTP/1.1\r\nhost: {HOST}\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n".encode()
    )
    answer = Answer(await reader.read(-1))
    writer.close()
    assert answer.status == 200
    assert b"x-forwarded-for: 127.0.0.1" in answer.body
    assert b"x-forwarded-proto: https" in answer.body
    assert b"6.6.6.6" not in answer.body
    assert b"1.1 home" not in answer.head


async def test_http_2_with_a_certificate_that_is_right(edge: Edge) -> None:
    root = edge.folder / "certificates/pki/authorities/local/root.crt"
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--http2", "--cacert", root, "--resolve", f"{HOST}:{edge.tls}:127.0.0.1"),
        *("-w", " %{http_version} %{http_code}", "-o", "/dev/null", f"https://{HOST}:{edge.tls}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert out.strip() == b"2 200"


# -- HTTP/2 by hand: what no client would send -----------------------------------------------------------
def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """RFC 9113 §4.1."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def literal(name: bytes, value: bytes) -> bytes:
    """RFC 7541 §6.2.2, without Huffman's code."""
    size = (
        bytes([len(value)])
        if len(value) < 127
        else bytes([127, (len(value) - 127) | 128, (len(value) - 127) >> 7])
    )
    return b"\0" + bytes([len(name)]) + name + size + value


async def http_2(edge: Edge, authority: bytes, *more: tuple[bytes, bytes]) -> bool:
    """Whether a GET with this ``:authority`` was answered with 200."""
    trust = context(edge)
    trust.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls, ssl=trust, server_hostname=HOST)
    pseudo = ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", authority))
    block = b"".join(literal(*each) for each in (*pseudo, *more))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, block))
    try:
        async with asyncio.timeout(30):
            while True:
                head = await reader.readexactly(9)
                body = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == 1:  # HEADERS
                    return b"\x88" in body[:3]  # :status 200
                if head[3] in (3, 7):  # RST_STREAM, GOAWAY
                    return False
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


HOSTILE = (
    *(
        b"",
        b".",
        b"..",
        b"../../etc/passwd",
        b"/run/relay.sock",
        b"unix//run/x",
        b"%2e%2e/x",
        b"other.example.com",
    ),
    *(
        f"{HOST}{tail}".encode()
        for tail in ("/..", "@evil.example", "\0", "\r\nx: y", " ", "#", "?", ",other.example.com")
    ),
    *(b"[::1]", b"127.0.0.1", b"[", b"\xff\xfe", b"a" * 300, b"x." * 120, b"evil.example@" + HOST.encode()),
)


async def test_no_authority_that_is_not_ours_is_served(edge: Edge) -> None:
    assert await http_2(edge, HOST.encode())
    assert await http_2(edge, HOST.upper().encode() + b":443")
    for each in HOSTILE:
        assert not await http_2(edge, each), each
    rand = Random(7)
    for _ in range(12):
        bent = bytearray(HOST.encode())
        bent[rand.randrange(len(bent))] = rand.choice([*range(33), *b"/\\\\@#?[]<>^`{|}", *range(127, 256)])
        assert not await http_2(edge, bytes(bent)), bytes(bent)


async def test_two_names_in_one_request_are_none_or_the_one_of_the_handshake(edge: Edge) -> None:
    assert not await http_2(edge, b"other.example.com", (b"host", HOST.encode()))
    assert not await http_2(edge, HOST.encode(), (b":authority", b"other.example.com"))


async def test_a_websocket_through_all_of_it(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", edge.tls, ssl=context(edge), server_hostname=HOST
    )
    upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
    writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n{upgrade}\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.close()


async def test_plain_http_is_sent_on(edge: Edge) -> None:
    answer = await ask(edge.plain, "/a?b", HOST)
    assert answer.status == 308
    assert f"location: https://{HOST}/a?b".encode() in answer.head


async def test_a_name_that_nobody_serves_gets_no_certificate(edge: Edge) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(
            "127.0.0.1", edge.tls, ssl=context(edge), server_hostname="other.example.com"
        )


async def test_a_sealed_site_is_passed_on_as_it_is(edge: Edge) -> None:
    """Here the container sends back what it got: the client's hello, to the byte."""
    said = hello(SEALED)
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls)
    writer.write(said)
    writer.write_eof()
    assert await reader.read(-1) == said
    writer.close()


async def test_one_name_in_the_handshake_and_another_in_the_request(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", edge.tls, ssl=context(edge), server_hostname=HOST
    )
    writer.write(b"GET / HTTP/1.1\r\nhost: other.example.com\r\nconnection: close\r\n\r\n")
    answer = Answer(await reader.read(-1))
    writer.close()
    assert answer.status == 421
