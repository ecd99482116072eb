"""The peer link on loopback, between two processes, with HTTP over TLS in the same run.

    script/bench link [--json FILE] [--calls N] [--megabytes N] [--nat]

rpc_p50_ms    a call of 200 bytes there and back, each on a stream of its own, one after another
bulk_mb_s     bytes of one stream, direct, from one node to the other
tls_mb_s      the same many bytes from aiohttp to aiohttp, TLS 1.3 with an Ed25519 certificate

--nat also shows (but does not write) how long a provider behind a symmetric NAT takes from its command to the first
lease that a tenant behind another one has: the topology and whole daemons of tests/nat, where only the machine is a
fake. Root only.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import json
import logging
import os
import platform
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from dockage.adapters.link import IrohLink
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address, Stream
from dockage.testing.link import refuse, serving
from dockage.wire.frames import PIECE, read_exactly

ROOT = Path(__file__).resolve().parent.parent
BLOCK = hashlib.sha256(b"block").digest() * (PIECE // 32)
CALL = b"\x00" + b"x" * 199


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--nat", action="store_true")
    parser.add_argument("--play", choices=("server", "homes"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    match options.play:
        case "server":
            asyncio.run(serve())
        case "homes":
            print(json.dumps(homes()))
        case _:
            measure(options)


def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="dk-link-") as folder:
        certificate = make_certificate(Path(folder))
        server = subprocess.Popen(
            [sys.executable, __file__, "--play", "server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            server.stdin.write(str(certificate) + "\n")
            server.stdin.flush()
            at = json.loads(server.stdout.readline())
            figures = asyncio.run(ask(at, certificate, options))
        finally:
            server.stdin.close()
            server.wait(20)
            server.stdout.close()
    print(f"rpc_p50_ms   {figures['rpc_p50_ms']:8.2f}    wanted: 2 at most")
    print(f"bulk_mb_s    {figures['bulk_mb_s']:8.0f}    wanted: 80 at least")
    print(f"tls_mb_s     {figures['tls_mb_s']:8.0f}    aiohttp over TLS, to compare with")
    if options.nat:
        done = subprocess.run(
            [ROOT / "script/sandbox", sys.executable, __file__, "--play", "homes"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        took = json.loads(done.stdout.splitlines()[-1])
        print(
            f"behind a NAT, from the command to the first lease: {took['rented']:.1f} s    wanted: 20 at most"
        )
        print(f"                  of that until it was ready and told its key: {took['up']:.1f} s")
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


# -- the one that asks -----------------------------------------------------------------------------------
async def ask(at: dict[str, Any], certificate: Path, options: argparse.Namespace) -> dict[str, float]:
    link, peer = await IrohLink.create(b"\x01" * 32), NodeKey(bytes.fromhex(at["key"]))
    link.learn(peer, Address("", tuple(at["direct"])))
    async with serving(link, refuse):
        await calls(link, peer, 100)
        figures = {
            "rpc_p50_ms": round(statistics.median(await calls(link, peer, options.calls)) * 1000, 3),
            "bulk_mb_s": round(await bulk(link, peer, options.megabytes), 1),
            "tls_mb_s": round(await download(at["url"], certificate, options.megabytes), 1),
        }
    await link.close()
    return figures


async def calls(link: IrohLink, peer: NodeKey, count: int) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        stream = await link.open(peer)
        await stream.write(CALL)
        await stream.finish()
        assert await read_exactly(stream, len(CALL)) == CALL
        took.append(time.perf_counter() - began)
        stream.abort()
    return took


async def bulk(link: IrohLink, peer: NodeKey, megabytes: int) -> float:
    stream = await link.open(peer)
    began = time.perf_counter()
    await stream.write(b"\x01" + megabytes.to_bytes(4, "big"))
    await stream.finish()
    size = 0
    while piece := await stream.read(PIECE):
        size += len(piece)
    return size / 1e6 / (time.perf_counter() - began)


async def download(url: str, certificate: Path, megabytes: int) -> float:
    tls = ssl.create_default_context(cafile=str(certificate))
    async with aiohttp.ClientSession() as session:
        began, size = time.perf_counter(), 0
        async with session.get(f"{url}/{megabytes}", ssl=tls) as answer:
            async for piece in answer.content.iter_any():
                size += len(piece)
    return size / 1e6 / (time.perf_counter() - began)


# -- the one that answers ----------------------------------------------------------------------------------
async def serve() -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain((await reader.readline()).decode().strip())
    app = web.Application()
    app.router.add_get("/{megabytes}", give)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    link = await IrohLink.create(b"\x02" * 32)
    async with serving(link, answer):
        at = {"key": link.node.hex(), "direct": link.address().direct, "url": f"https://localhost:{port}"}
        print(json.dumps(at), flush=True)
        await reader.read()
    await link.close()
    await runner.cleanup()


async def answer(peer: NodeKey, stream: Stream) -> None:
    first = await read_exactly(stream, 1)
    if first == b"\x00":
        await stream.write(first + await read_exactly(stream, len(CALL) - 1))
    else:
        for _ in blocks(int.from_bytes(await read_exactly(stream, 4), "big")):
            await stream.write(BLOCK)
    await stream.finish()


async def give(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in blocks(int(request.match_info["megabytes"])):
        await response.write(BLOCK)
    return response


def blocks(megabytes: int) -> range:
    return range(megabytes * 1_000_000 // len(BLOCK))


def make_certificate(folder: Path) -> Path:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "localhost.pem"
    path.write_bytes(secret + made.public_bytes(pem))
    return path


# -- behind two NATs ---------------------------------------------------------------------------------------
def homes() -> dict[str, float]:
    sys.path[:0] = [str(ROOT / "tests")]
    from nat import topology
    from nat.conftest import Agent

    quiet = {"tenant": {"enabled": False, "checks": False}}
    topology.up()
    agents: list[Agent] = []

    def agent(name: str) -> Agent:
        agents.append(made := Agent(name))
        made.ready()
        return made

    try:
        for side in "AB":
            topology.translate(side, symmetric=True)
        at = f"{topology.PUBLIC}:4720"
        known = {"node": {"bind": at, "market": True}, "relay": {"listen": f"{topology.PUBLIC}:3342"}}
        public = agent("public").do("daemon", config={**known, **quiet})
        home = {"seeds": [f"{public['key']}@{at}"]}
        tenant = agent("homeA")
        tenant.do("daemon", config={"node": home, **quiet})
        began = time.monotonic()
        sells = {"enabled": True, "price_preset": "free"}
        provider = agent("homeB").do("daemon", config={"node": home, "provider": sells, **quiet})
        up = time.monotonic() - began
        tenant.do("rent", provider=provider["key"])
        return {"up": up, "rented": time.monotonic() - began}
    finally:
        for each in agents:
            each.let_go()
        for each in agents:
            each.end()
        topology.down()


if __name__ == "__main__":
    main()
