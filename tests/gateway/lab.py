"""A gateway on loopback, and replicas in memory that do what a test says: answer, fall silent, break, vanish."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from msgspec.structs import replace

from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.system.clock import SystemClock
from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.routing import Rules
from dockage.domain.units import HOUR, Instant
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.testing.link import MemoryNetwork
from dockage.wire.frames import PIECE, read_frame
from dockage.wire.http import HttpServer, Request

TENANT = NodeKey(b"t" * 32)
INGRESS = LeaseId(b"ingress........!")
HOST = "shop.example.com"
WEB = Site((HOST,), 80, "web")
RULES = Rules("example.net", 20000, 20100)

Handle = Callable[[HttpServer, Request], Awaitable[None]]


class FakeReplica:
    """A provider with one container. ``state``: up, shut (resets) or gone; mute, it takes all and says nothing."""

    def __init__(self, number: int, serve: Callable[[FakeReplica, Stream], Awaitable[None]]) -> None:
        self.key, self.lease = NodeKey(bytes([number]) * 32), LeaseId(bytes([number]) * 16)
        self.number, self.serve, self.state = number, serve, "up"
        self.requests: Counter[str] = Counter()
        self.headers: list[streams.AnyHeader] = []
        self.open: set[Stream] = set()
        self.shut = set[str]()
        """Containers that reset."""
        self.speaks = asyncio.Event()
        self.speaks.set()

    def replica(self, **how: Any) -> Replica:
        plain = Replica(
            self.key, self.lease, (("web", f"{self.number:02x}" * 32),), b"grant %d" % self.number
        )
        return replace(plain, **how)

    async def accept(self, _: NodeKey, stream: Stream) -> None:
        header = streams.decode_header(await read_frame(stream, streams.HEADER_MAX))
        self.headers.append(header)
        if self.state == "shut" or (isinstance(header, streams.Tunnel) and header.container in self.shut):
            stream.abort()
            return
        self.open.add(stream)
        try:
            await self.speaks.wait()
            await self.serve(self, stream)
        except DockageError:
            pass
        finally:
            self.open.discard(stream)
            stream.abort()

    def mute(self) -> None:
        self.speaks.clear()

    def cut(self, state: str) -> None:
        """What is open breaks, too."""
        self.state = state
        for stream in tuple(self.open):
            stream.abort()


class Lab:
    def __init__(self, host: GatewayHost, doors: Listeners, network: MemoryNetwork) -> None:
        self.host, self.doors, self.network = host, doors, network
        self.replicas: list[FakeReplica] = []
        self.tasks: asyncio.TaskGroup
        self.link = network.link(NodeKey(b"g" * 32))
        host.connect(self.open_peer)

    async def open_peer(self, peer: NodeKey, timeout: float) -> Stream:
        replica = next(r for r in self.replicas if r.key == peer)
        if replica.state == "gone":
            raise Unavailable("peer.unreachable", "gone")
        return await self.link.open(peer)

    def add(self, handle: Handle | None = None, serve: Any = None) -> FakeReplica:
        replica = FakeReplica(len(self.replicas) + 1, serve or http_service(handle or say_who))
        link = self.network.link(replica.key)
        self.link.learn(replica.key, link.address())
        self.replicas.append(replica)
        self.running.append(self.tasks.create_task(link.serve(replica.accept)))
        return replica

    def document(self, epoch: int = 1, **how: Any) -> Document:
        plain = Document(
            TENANT,
            "shop",
            epoch,
            Instant(SystemClock().now() + HOUR),
            (WEB,),
            tuple(r.replica() for r in self.replicas),
            (),
        )
        return replace(plain, **how)

    async def publish(self, lease: LeaseId = INGRESS, **how: Any) -> None:
        await self.host.prepare(lease, None)  # type: ignore[arg-type]
        await self.host.publish(lease, self.document(**how))

    @property
    def port(self) -> int:
        return self.doors.bound["http"]

    async def get(self, path: str = "/", host: str = HOST, method: str = "GET", **headers: str) -> Answer:
        return await ask(self.port, path, host, method, **headers)

    running: list[asyncio.Task[Any]]


class Answer:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.head = head.lower()
        self.status = int(head.split(b" ")[1]) if head else 0


async def ask(
    port: int, path: str, host: str, method: str = "GET", at: str = "127.0.0.1", **headers: str
) -> Answer:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    question = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}\r\n"
    return Answer(await raw(port, question.encode(), at))


async def raw(port: int, data: bytes, at: str = "127.0.0.1") -> bytes:
    """Send, and read to the end."""
    reader, writer = await asyncio.open_connection(at, port)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def http_service(handle: Handle) -> Callable[[FakeReplica, Stream], Awaitable[None]]:
    async def serve(replica: FakeReplica, stream: Stream) -> None:
        server = HttpServer(stream)
        while (request := await server.read_request()) is not None:
            replica.requests[request.method] += 1
            await handle(server, request)
        await stream.finish()

    return serve


async def say_who(server: HttpServer, request: Request) -> None:
    """Its own headers back, one a line."""
    body = "".join(f"{name}: {value}\n" for name, value in request.headers).encode()
    await server.read_body()
    await server.answer(200, [("server", "test"), ("via", "1.1 10.1.2.3"), ("x-app", "yes")], body)


async def echo_body(server: HttpServer, request: Request) -> None:
    body = await server.read_body(1 << 30)
    await server.answer(200, [], body)


async def echo(_: FakeReplica, stream: Stream) -> None:
    while piece := await stream.read(PIECE):
        await stream.write(piece)
    await stream.finish()


@asynccontextmanager
async def lab(**places: Any) -> AsyncIterator[Lab]:
    doors = Listeners(Places(http="127.0.0.1:0", ports_at="127.0.0.1", **places))
    host = GatewayHost(RULES, SystemClock(), Random(7), "run", "x86_64", doors)
    here = Lab(host, doors, MemoryNetwork())
    async with asyncio.TaskGroup() as tasks:
        here.tasks, here.running = tasks, [tasks.create_task(host.serve())]
        try:
            while "http" not in doors.bound:  # noqa: ASYNC110 - until it listens
                await asyncio.sleep(0.005)
            yield here
        finally:
            for task in here.running:
                task.cancel()
