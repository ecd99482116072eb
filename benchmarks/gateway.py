"""What a gateway's relay costs, beside a bare proxy and no proxy at all in the same run. All on loopback.

    script/bench gateway [--json FILE] [--quick]

direct_rps       requests a second straight to the server, 32 connections that ask again at once
bare_rps         the same through Caddy alone, as a plain reverse proxy
gateway_rps      through Caddy and the relay, replica reached directly: what choosing, checking and counting cost
gateway_of_bare  the one by the other, median of the turns: both in the same second
relay_rps        through the relay alone, replica reached directly
tunnel_rps       through the relay alone, over the peer link to a provider's process
added_p50_ms     median latency that relay and peer link add to one request at a time
cpu_us           CPU of each process for a request, in each of these: what says more than rates do on a busy machine
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import uvloop

from dockage.adapters.gateway.face import find_caddy
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.link.link import IrohLink
from dockage.adapters.system.clock import SystemClock
from dockage.daemon.bundles import Bundles
from dockage.daemon.peers import Reception
from dockage.daemon.tasks import Jobs
from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.routing import Rules
from dockage.domain.units import HOUR, Instant
from dockage.ports.peers import Address, Stream
from dockage.protocol.streams import Tunnel
from dockage.testing.keys import MemoryKeys
from dockage.wire.connection import Connection
from dockage.wire.splice import splice

HOST, CONNECTIONS, BODY = "shop.example.com", 32, b"x" * 120
TURNS = 15
"""Each is asked as often, in turns, for a machine is seldom as fast as it was seconds ago. Medians are shown."""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
REQUEST = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
LEASE = LeaseId(b"l" * 16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="three seconds each instead of ten")
    options = parser.parse_args()
    figures = measure(3.0 if options.quick else 10.0)
    figures["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    for name, value in figures.items():
        print(f"{name:<16} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(seconds: float) -> dict[str, Any]:
    """Every part is a process of its own, as in real life."""
    with ExitStack() as stack:
        start = stack.enter_context
        face = Path(start(tempfile.TemporaryDirectory(prefix="dk-"))) / "relay.sock"
        served = start(Part(server))
        sells = start(Part(provider, served.told))
        near = start(Part(gateway, served.told, None, face))
        far = start(Part(gateway, served.told, sells.told, None))
        bare = start(Part(caddy, f"127.0.0.1:{served.told}"))
        whole = start(Part(caddy, f"unix/{face}"))
        parts = {"direct": served, "bare": bare, "gateway": whole, "relay": near, "tunnel": far}
        behind = {
            "direct": {"server": served},
            "bare": {"server": served, "caddy": bare},
            "gateway": {"server": served, "relay": near, "caddy": whole},
            "relay": {"server": served, "relay": near},
            "tunnel": {"server": served, "relay": far, "provider": sells},
        }
        turns = [
            {name: asked(part.told, behind[name], seconds / TURNS) for name, part in parts.items()}
            for _ in range(TURNS)
        ]
        one = [run(latency(part.told, seconds)) for part in (served, far)]
    rates = {f"{name}_rps": round(statistics.median(turn[name].rps for turn in turns)) for name in parts}
    share = statistics.median(turn["gateway"].rps / turn["bare"].rps for turn in turns)
    added = round(one[1] - one[0], 3)
    return {**rates, "gateway_of_bare": round(share, 3), "added_p50_ms": added, "cpu_us": spent(turns)}


class Turn(NamedTuple):
    rps: float
    cpu_us: dict[str, float]
    """Of each process, for a request."""


def asked(port: int, behind: Mapping[str, Part], seconds: float) -> Turn:
    before = {each: of.cpu() for each, of in behind.items()}
    rps, took = run(rate(port, CONNECTIONS, seconds))
    each_us = 1e6 / (rps * took)
    return Turn(rps, {each: (of.cpu() - before[each]) * each_us for each, of in behind.items()})


def spent(turns: Sequence[Mapping[str, Turn]]) -> dict[str, dict[str, int]]:
    """Medians."""
    return {
        name: {
            each: round(statistics.median(turn[name].cpu_us[each] for turn in turns)) for each in one.cpu_us
        }
        for name, one in turns[0].items()
    }


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


# -- load ----------------------------------------------------------------------------------------------
async def rate(port: int, connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and the seconds that it took."""
    done, until = 0, time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            await exchange(reader, writer)
            done += 1
        writer.close()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(ask())
    took = time.perf_counter() - began
    return done / took, took


async def latency(port: int, seconds: float) -> float:
    """Milliseconds, median."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        await exchange(reader, writer)
        took.append(time.perf_counter() - began)
    writer.close()
    return 1000 * statistics.median(took)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert await reader.readexactly(len(BODY)) == BODY


# -- parts ---------------------------------------------------------------------------------------------
class Part:
    """A process that says once where it is, and runs until it is told to end."""

    def __init__(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        self._pipe, far = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(work, far, arguments)
        )

    def __enter__(self) -> Part:
        self._process.start()
        if not self._pipe.poll(30):
            raise SystemExit("a part of the benchmark did not start")
        self.told: Any = self._pipe.recv()
        return self

    def cpu(self) -> float:
        """Seconds of CPU so far, its children's included."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        stats = [
            Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in (pid, *children)
        ]
        return sum(int(each[11]) + int(each[12]) for each in stats) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(10)


def _serve(work: Callable[..., Awaitable[None]], pipe: Pipe, arguments: tuple[Any, ...]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(pipe.send, *arguments))


class Answering(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def server(tell: Callable[[Any], None]) -> None:
    made = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=256)
    tell(made.sockets[0].getsockname()[1])
    await made.serve_forever()


async def caddy(tell: Callable[[Any], None], dial: str) -> None:
    """A plain reverse proxy to *dial*, as Caddy calls an address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": dial}]}
    served = {
        "listen": [f"127.0.0.1:{port}"],
        "routes": [{"handle": [proxy]}],
        "automatic_https": {"disable": True},
    }
    config = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"plain": served}}}}
    with tempfile.TemporaryDirectory(prefix="dk-") as folder:
        path = Path(folder) / "caddy.json"
        path.write_text(json.dumps(config))
        home = {**os.environ, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
        made = await asyncio.create_subprocess_exec(
            *(find_caddy(), "run", "--config", path), env=home, stderr=asyncio.subprocess.DEVNULL
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, made.terminate)
        await until_open(port)
        tell(port)
        await made.wait()


async def until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def provider(tell: Callable[[Any], None], port: int) -> None:
    """A provider's end of a tunnel, without the check of the grant and the engine."""
    keys = MemoryKeys(2)
    link = await IrohLink.create(keys.seed)

    async def into(*to: Any) -> None:
        _, inside = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        await splice(to[-1], inside)

    reception = Reception(keys, asyncio.get_running_loop().time)
    reception.serve_kind(Tunnel, into)
    tell((link.node, tuple(link.address())))
    await link.serve(reception.accept)


async def gateway(tell: Callable[[Any], None], port: int, sells: Any, face: Path | None) -> None:
    """*sells*: the provider's key and address; None: the replica is a TCP connection away."""
    doors = Listeners(Places(face, "127.0.0.1:0"))
    host = GatewayHost(Rules(""), SystemClock(), Random(1), "run", "x86_64", doors)
    link = await IrohLink.create(MemoryKeys(1).seed)
    node, jobs = NodeKey(b"p" * 32), Jobs()
    if sells is None:
        host.connect(lambda *_: near(port))
    else:
        node = NodeKey(sells[0])
        link.learn(node, Address(*sells[1]))
        host.connect(Bundles(link.open, link.current, jobs).open)
    replica = Replica(node, LEASE, (("web", "ab" * 32),), b"")
    expires = Instant(SystemClock().now() + HOUR)
    site = Site((HOST,), 80, "web")
    await host.publish(LEASE, Document(NodeKey(b"t" * 32), "shop", 1, expires, (site,), (replica,), ()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.serve())
        tasks.create_task(link.serve(refuse))
        tasks.create_task(jobs.run())
        while "http" not in doors.bound:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.01)
        tell(doors.bound["http"])


async def refuse(_: NodeKey, stream: Stream) -> None:
    stream.abort()


async def near(port: int) -> Stream:
    _, stream = await asyncio.get_running_loop().create_connection(Near, "127.0.0.1", port)
    return stream


class Near(Connection):
    """Without the header, which only a provider understands."""

    _headed = False

    async def write(self, data: bytes) -> None:
        if not self._headed:
            self._headed = True
            data = data[4 + int.from_bytes(data[:4], "big") :]
        await super().write(data)


if __name__ == "__main__":
    main()
