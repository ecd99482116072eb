"""Certificates from a real authority (Debian's pebble). On demand: it asks our name server where the name is, and our
relay to prove it. For the zone: it finds the proof at our name server. None for what is not served.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from dockage.adapters.dns import DnsServer
from dockage.adapters.gateway.face import Certificates, Face
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.gateway.wildcard import Wildcard
from dockage.adapters.system.clock import SystemClock
from dockage.daemon.naming import Naming
from dockage.domain.deployment import alias
from dockage.domain.errors import Unavailable
from dockage.domain.units import HOUR, Instant
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import verify
from dockage.testing.link import MemoryNetwork
from gateway.lab import HOST, RULES, TENANT, WEB, Answer, Lab, ask

PEBBLE = Path(__file__).parents[2] / ".dev/pebble/pebble"
LOCAL = "127.0.0.1"
PATIENCE = 60


APP = alias("shop", TENANT, RULES.zone)


class Later:
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self._clock, self.by = SystemClock(), 0

    def now(self) -> Instant:
        return Instant(self._clock.now() + self.by)


class Edge(NamedTuple):
    wildcard: Wildcard
    certificates: Certificates
    clock: Later
    folder: Path
    tls: int
    roots: int
    """Where the authority says whom to believe."""
    own: Path
    """The certificate that it shows itself with."""


@pytest.fixture(scope="module")
async def edge() -> AsyncIterator[Edge]:
    http, tls, acme, roots = free_ports(4)
    folder = Path(tempfile.mkdtemp(prefix="dk-"))  # a socket's path is short
    own = make_certificate(folder)
    doors = Listeners(Places(folder / "relay.sock", "", f"{LOCAL}:{tls}", folder / "tls.sock", LOCAL))
    host = GatewayHost(RULES, SystemClock(), Random(1), "run", "x86_64", doors)
    certificates = Certificates(f"https://{LOCAL}:{acme}/dir", str(own), zone=RULES.zone)
    host.beside.append(Face(folder, f"{LOCAL}:{http}", f"{LOCAL}:{tls}", certificates, host.served).run)
    here = Lab(host, doors, MemoryNetwork())
    try:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as here.tasks:
            here.running = [here.tasks.create_task(host.serve())]
            try:
                here.add()
                await here.publish(sites=(replace(WEB, hosts=(HOST, APP)),))
                naming, names = await serve_names(here)
                authority = await pebble(folder, http, tls, acme, roots, names)
                stack.push_async_callback(stop, authority)
                async with asyncio.timeout(PATIENCE):
                    for port in (acme, roots):
                        await until_open(port)
                    while not (folder / "tls.sock").exists():  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                clock = Later()
                wildcard = Wildcard(folder, RULES.zone, certificates, naming.prove, clock)
                yield Edge(wildcard, certificates, clock, folder, tls, roots, own)
            finally:
                for task in here.running:
                    task.cancel()
    finally:
        shutil.rmtree(folder)


async def test_a_name_that_is_served_gets_its_certificate_and_no_other(edge: Edge) -> None:
    async with asyncio.timeout(PATIENCE):
        known = ssl.create_default_context(cafile=str(await root_of(edge)))
        reader, writer = await asyncio.open_connection(LOCAL, edge.tls, ssl=known, server_hostname=HOST)
        writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
        assert Answer(await reader.read(-1)).status == 200
        writer.close()

        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(LOCAL, edge.tls, ssl=known, server_hostname="other.example.com")
        with pytest.raises(
            (ssl.SSLError, ConnectionError)
        ):  # past the relay, Caddy asks before it asks for one
            await past_the_relay(edge, known, "other.example.com")
    assert made(edge) == {HOST}


async def test_the_zone_has_one_certificate_that_is_renewed_in_time_and_cuts_nobody(edge: Edge) -> None:
    async with asyncio.timeout(PATIENCE):
        keeping = asyncio.ensure_future(edge.wildcard.run())
        while edge.wildcard.is_due():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        keeping.cancel()
        first, open_ = await visit(edge, APP)
        edge.clock.by = 4 * 365 * 24 * HOUR  # this authority's last for five years
        assert edge.wildcard.is_due()
        await edge.wildcard.renew()
        second, other = await visit(edge, APP)
        assert first != second
        for reader, writer in (open_, other):
            await answered(reader, writer)
    assert APP not in made(edge)
    assert edge.wildcard.file.stat().st_mode & 0o777 == 0o600
    edge.clock.by = 6 * 365 * 24 * HOUR
    assert edge.wildcard.is_due()
    assert not edge.wildcard.file.exists(), "over: the face gets one for the name"
    edge.clock.by = 0


async def test_a_zone_that_is_not_ours_gets_none(edge: Edge) -> None:
    shown = list[tuple[str, ...]]()
    told = edge.certificates._replace(zone="example.org")
    other = Wildcard(edge.folder / "other", "example.org", told, lambda x: shown.append(tuple(x)), edge.clock)
    with pytest.raises(Unavailable) as caught:
        await other.renew()
    assert caught.value.code == "gateway.acme"
    assert "proof" in caught.value.message
    assert not other.file.exists()
    assert shown[-1] == (), "nothing is shown any longer"


async def test_who_does_not_know_the_secret_gets_no_key(edge: Edge) -> None:
    config = (edge.folder / "caddy.json").read_text()
    [url] = {each for each in config.split('"') if "/wildcard?secret=" in each}
    port = int(url.split(":")[2].split("/")[0])
    for target in (f"/wildcard?server_name={APP}", f"/wildcard?secret=x&server_name={APP}"):
        assert (await ask(port, target, "here")).status == 403


def made(edge: Edge) -> set[str]:
    """Names with a certificate of their own."""
    return {path.stem for path in (edge.folder / "certificates/certificates").rglob("*.crt")}


async def visit(edge: Edge, host: str) -> tuple[bytes, tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """The certificate that it shows, and the connection."""
    known = ssl.create_default_context(cafile=str(await root_of(edge)))
    reader, writer = await asyncio.open_connection(LOCAL, edge.tls, ssl=known, server_hostname=host)
    return writer.get_extra_info("ssl_object").getpeercert(binary_form=True), (reader, writer)


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"GET / HTTP/1.1\r\nhost: {APP}\r\nconnection: close\r\n\r\n".encode())
    assert Answer(await reader.read(-1)).status == 200
    writer.close()


async def past_the_relay(edge: Edge, context: ssl.SSLContext, name: str) -> None:
    _, writer = await asyncio.open_unix_connection(edge.folder / "tls.sock")
    try:
        writer.write(b"PROXY UNKNOWN\r\n")
        await writer.start_tls(context, server_hostname=name)
    finally:
        writer.close()


# -- the parts -----------------------------------------------------------------------------------------
def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to others by itself."""
    found: list[int] = []
    for port in range(21000 + os.getpid() % 1000, 30000):
        with socket.socket() as sock, suppress(OSError):
            sock.bind((LOCAL, port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no port is free")


async def serve_names(here: Lab) -> tuple[Naming, int]:
    async def nobody(_: str) -> bool:
        return False

    naming = Naming(
        *(
            RULES.zone,
            (LOCAL,),
            here.host.documents,
            lambda _: True,
            MemoryDirectory(verify, SystemClock()),
            verify,
            SystemClock(),
        ),
        nobody,
    )
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = DnsServer(naming.respond)
    here.running += [
        here.tasks.create_task(naming.keep_up()),
        here.tasks.create_task(server.serve(LOCAL, 0, ready.set_result)),
    ]
    return naming, await ready


async def pebble(
    folder: Path, http: int, tls: int, acme: int, roots: int, names: int
) -> asyncio.subprocess.Process:
    if not PEBBLE.exists():
        pytest.skip("script/setup has not unpacked pebble")
    config = {
        "listenAddress": f"{LOCAL}:{acme}",
        "managementListenAddress": f"{LOCAL}:{roots}",
        "certificate": str(folder / "own.pem"),
        "privateKey": str(folder / "own.key"),
        "httpPort": http,
        "tlsPort": tls,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    return await asyncio.create_subprocess_exec(
        *(PEBBLE, "-config", folder / "pebble.json", "-dnsserver", f"{LOCAL}:{names}"),
        env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def stop(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(LOCAL, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def root_of(edge: Edge) -> Path:
    context = ssl.create_default_context(cafile=str(edge.own))
    reader, writer = await asyncio.open_connection(LOCAL, edge.roots, ssl=context)
    writer.write(b"GET /roots/0 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    path = edge.folder / "root.pem"
    path.write_bytes(Answer(await reader.read(-1)).body)
    writer.close()
    return path


def make_certificate(folder: Path) -> Path:
    """For 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(LOCAL))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    (folder / "own.pem").write_bytes(made.public_bytes(encoding))
    plain = serialization.NoEncryption()
    (folder / "own.key").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return folder / "own.pem"
