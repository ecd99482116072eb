"""A node in a namespace of its own, told over stdin what to do: one line of JSON each way.

Either its network side alone (the real link, relay and search for our own address, with an echo behind), or a whole
daemon as ``system.assemble`` makes it, on a machine that is a fake. What it sends and to whom is noted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import sys
import time
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dns.asyncquery
import dns.message
import msgspec
import structlog
from aiohttp import web
from msgspec.structs import replace

from dockage.adapters.link import IrohLink
from dockage.adapters.relay import Relay, RelayProbe
from dockage.adapters.system.clock import SystemClock
from dockage.daemon import provider, system
from dockage.daemon.config import Config
from dockage.daemon.whereabouts import Whereabouts, observation_server
from dockage.daemon.wishes import Wishes
from dockage.domain import unseen
from dockage.domain.channel import ChannelState
from dockage.domain.deployment import Document, Replica, Site, alias
from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, HOUR, MIB, Instant, Sat, msat
from dockage.domain.usage import Usage
from dockage.node import events as told
from dockage.ports.peers import Address, Stream
from dockage.protocol import streams
from dockage.testing.copies import FakeCopies
from dockage.testing.host import FakeContainer, FakeHost
from dockage.testing.link import echo, read_all
from dockage.wire.frames import read_frame, write_frame
from dockage.wire.http import HttpClient, HttpServer
from dockage.wire.keys import verify
from dockage.wire.limits import LinkLimits
from dockage.wire.splice import SocketStream, splice

WELL = Reason("", "")
LIMITS = LinkLimits(heartbeat_sec=1.0, silence_sec=1.0)


BODY = b"from behind the other router\n"
CONTAINER = "c" * 64
TELLTALE = ("Via", "X-Served-By", "X-Real-IP", "X-Forwarded-For", "Forwarded", "Alt-Svc", "X-Upstream")


class Agent:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks, self._stack = tasks, AsyncExitStack()
        self._spoken_to: set[str] = set()
        self._listening = tasks.create_task(self._eavesdrop())
        self._running: list[asyncio.Task[None]] = []
        self._daemons: list[tuple[AsyncExitStack, list[asyncio.Task[None]]]] = []
        self._relays: dict[int, tuple[Relay, asyncio.Task[None]]] = {}
        self._probe = RelayProbe(NodeKey(bytes(32)))
        self.link: IrohLink

    async def start(
        self, seed: str, bind: str, observers: list[list[str]] = (), relays: list[str] = (), runs: int = 0
    ) -> dict[str, Any]:
        """*runs* is the port of a relay that it tells of."""
        await self.stop()
        self.link = await IrohLink.create(bytes.fromhex(seed), bind, relayed=True, limits=LIMITS)
        known = [(NodeKey(bytes.fromhex(key)), Address("", (at,))) for key, at in observers]
        where = Whereabouts(self.link, SystemClock(), lambda: known, self._probe, relays, told=True)
        tell = observation_server(self.link, runs)

        async def accept(peer: NodeKey, stream: Stream) -> None:
            header = streams.decode_header(await read_frame(stream, streams.HEADER_MAX))
            if isinstance(header, streams.Observe):
                return await tell(peer, header, stream)
            await echo(peer, stream)

        work = [self.link.serve(accept), where.ask_around(), where.watch_relays()]
        self._running = [self._tasks.create_task(each) for each in work]
        return {"key": self.link.node.hex()}

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
            await self.link.close()
        self._running = []

    async def end(self) -> None:
        await self.stop()
        while self._daemons:
            await self.stop_daemon()
        await self._stack.aclose()
        for port in tuple(self._relays):
            await self.kill_relay(port)
        await self._probe.close()
        self._listening.cancel()

    async def relay(self, at: str, port: int) -> None:
        listening = socket.create_server((at, port))
        made = Relay(verify)
        self._relays[port] = made, self._tasks.create_task(made.serve(listening))

    async def kill_relay(self, port: int) -> None:
        _, task = self._relays.pop(port)
        task.cancel()
        await asyncio.wait([task])

    async def relayed(self) -> int:
        return sum(relay.figures().passed_bytes for relay, _ in self._relays.values())

    async def address(self, relay: str = "", direct: str = "", limit: float = 40) -> dict[str, Any]:
        """Once it has these, if any are named."""
        async with asyncio.timeout(limit):
            while not self._has(relay, direct):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.02)
        now = self.link.address()
        return {"relay": now.relay, "direct": now.direct}

    def _has(self, relay: str, direct: str) -> bool:
        now = self.link.address()
        return now.relay.startswith(relay) and (not direct or any(direct in each for each in now.direct))

    async def learn(self, key: str, relay: str, direct: list[str]) -> None:
        self.link.learn(NodeKey(bytes.fromhex(key)), Address(relay, tuple(direct)))

    async def call(self, key: str, until: str = "", limit: float = 10) -> dict[str, Any]:
        """Again and again, until the path in use is ``direct`` or ``relay``, if one is named."""
        peer, began = NodeKey(bytes.fromhex(key)), time.monotonic()
        while True:
            rest = limit - (time.monotonic() - began)
            try:
                async with asyncio.timeout(max(0.1, min(3, rest))):
                    stream = await self.link.open(peer, 3)
                    await write_frame(stream, streams.encode_header(streams.Messages()))
                    await stream.write(b"x" * 200)
                    await stream.finish()
                    got = 0
                    while piece := await stream.read(1 << 16):
                        got += len(piece)
                    assert got == 232
                    path = path_of(self.link, peer)
            except (DockageError, TimeoutError):
                path = "none"
            after = time.monotonic() - began
            if path == until or (not until and path != "none") or after > limit:
                return {"path": path, "after": round(after, 2)}
            await asyncio.sleep(0.05)

    async def spoken_to(self) -> list[str]:
        """Every address that anything was sent to from here."""
        return sorted(self._spoken_to)

    async def _eavesdrop(self) -> None:
        everything = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        everything.setblocking(False)
        with everything:
            while True:
                packet, sender = await asyncio.get_running_loop().sock_recvfrom(everything, 128)
                if sender[2] == socket.PACKET_OUTGOING and sender[0] != "lo":
                    self._spoken_to |= destination(sender[1], packet)

    # -- a whole daemon --------------------------------------------------------------------------------
    async def daemon(self, config: dict[str, Any]) -> dict[str, Any]:
        """Its key. It runs until the end."""
        # Where a page is worth a close no price is a careful one.
        unseen.LEAST = msat(Sat(20_000_000))
        stack = AsyncExitStack()
        home = Path(stack.enter_context(TemporaryDirectory(prefix="dk-nat-")))
        self.host = FakeHost(SystemClock())

        async def host(*_: Any) -> FakeHost:
            return self.host

        provider.docker_host = host  # type: ignore[assignment]
        made = await stack.enter_async_context(system.assemble(home, msgspec.convert(config, Config)))
        self.node, loops = made
        tasks = [self._tasks.create_task(loop()) for loop in loops]  # type: ignore[arg-type]
        self._daemons.append((stack, tasks))
        return {"key": self.node.keys.node.hex()}

    async def offer_engine(self) -> None:
        """An engine for ``Copies`` below: what is posted there starts or stops. A container answers with our name."""
        self._running_here = set[tuple[LeaseId, str]]()
        key = self.node.keys.node.hex().encode()

        async def page(stream: Stream) -> None:
            server = HttpServer(stream)
            while await server.read_request() is not None:
                await server.answer(200, [], key)
            await stream.finish()

        async def engine(lease: LeaseId, stream: Stream) -> None:
            server = HttpServer(stream)
            while (request := await server.read_request()) is not None:
                _, what, name = (request.target + "/").split("/")[:3]
                if what == "start":
                    self.host.start(lease, name, FakeContainer(ports={80: page}))
                    self._running_here.add((lease, name))
                elif what == "stop" and (lease, name) in self._running_here:
                    self.host.stop(lease, name)
                    self._running_here.discard((lease, name))
                await server.answer(200, [], b"")
            await stream.finish()

        self.host.engine = engine

    async def running(self) -> int:
        """How many copies run here."""
        return len(
            self._running_here
            & {(x, name) for x in await self.host.present() for _, name in self._running_here}
        )

    async def keep(self, name: str, labels: dict[str, str]) -> None:
        """One container of which the controller keeps copies, as soon as two others sell."""
        while len(await self._offers()) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        need = Resources(500, 256 * MIB, 1 * GIB)
        lease = await self.node.renting.obtain(name, need, labels, lambda _: None)
        copies = Copies(self.node)
        copies.deploy(name, lease.id, need, labels)
        await copies.start_replayed(None, copies.leads[name], lambda _: None)
        self.node.keeping.attach(copies)

    async def kept(self, name: str) -> list[dict[str, Any]]:
        """Its copies as the controller sees them, that which commands go to first."""
        of, now = self.node.keeping.state.deployments.get(name), SystemClock().now()
        shown = sorted(of.replicas.values(), key=lambda x: x.lease != of.primary) if of else []
        return [
            {
                "lease": x.lease.hex(),
                "provider": x.place.provider.hex(),
                "stage": str(x.stage.value),
                "code": (x.verdict(now).reason or WELL).code,
                "epoch": x.epoch,
            }
            for x in shown
        ]

    async def public_hosts(self, name: str) -> list[str]:
        ways = self.node.exposing.ways(name)
        return [x.told.sites[0].hosts[0] for way in ways if (x := way.telling).told and x.is_open]

    async def stop_daemon(self) -> None:
        """The newest."""
        stack, tasks = self._daemons.pop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await stack.aclose()

    # -- money -----------------------------------------------------------------------------------------
    async def lead(self, port: int, path: str) -> None:
        """127.0.0.1:*port* of this namespace is the unix socket *path*."""

        async def out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            away = SocketStream(*await asyncio.open_unix_connection(path))
            await splice(SocketStream(reader, writer), away)

        await self._stack.enter_async_context(await asyncio.start_server(out, "127.0.0.1", port))

    async def reached(self) -> dict[str, Any]:
        """By which relay, and what hinders it."""
        paid = self.node.reached.paid
        trouble = paid.trouble if paid else None
        return {"relay": self.node.link.address().relay, "trouble": trouble and trouble.code}

    async def pays(self) -> dict[str, Any]:
        """For its relay."""
        [lease] = [x for x in self.node.tenant.state.leases.values() if x.service == "relay"]
        [channel] = self.node.tenant.state.channels.values()
        usage = lease.last.usage if lease.last else Usage()
        return {
            "paid_sat": channel.paid,
            "stated_bytes": usage.net_in_bytes + usage.net_out_bytes,
            "counted_bytes": sum(self.node.renting.counts.of(lease.id)),
            "dispute": lease.dispute and lease.dispute.text,
        }

    async def close(self) -> None:
        """The channel to the relay; no other is opened."""
        self.node.reached.paid.state = replace(self.node.reached.paid.state, budget_sat=0)
        [channel] = self.node.tenant.state.channels.values()
        for lease in self.node.tenant.state.leases.values():
            if not lease.is_over:
                await self.node.tenant.tell(
                    told.EndRequested(lease.id, Reason("test.done", "the test is over"))
                )
        await self.node.tenant.tell(told.CloseRequested(channel.id))

    async def earned(self) -> dict[str, Any] | None:
        """Once it is settled for good."""
        [channel] = self.node.provider.state.channels.values()
        if channel.state is not ChannelState.CLOSED:
            return None
        [theirs] = channel.spending[-1:]
        return {"sat": channel.paid, "close_fee": theirs.fee}

    async def worth(self) -> int:
        balance = await self.node.rail.wallet.balance()
        return balance.confirmed + balance.pending

    async def rent(self, provider: str) -> dict[str, Any]:
        """As soon as the market shows the provider."""
        began = time.monotonic()
        while not any(x.offer.provider.hex() == provider for x in await self._offers()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # as people do who look again
        offered = time.monotonic() - began
        need = Resources(500, 256 * MIB, 1 * GIB)
        lease = await self.node.renting.obtain("web", need, {}, lambda _: None)
        return {"lease": lease.id.hex(), "offered": offered, "rented": time.monotonic() - began}

    async def _offers(self) -> Any:
        try:
            return await self.node.market.search()
        except Unavailable:
            return ()

    async def contain(self, lease: str) -> None:
        """A container with a web server in it."""
        web_app = web.Application()
        web_app.router.add_get("/", self._page)
        self._inside = web.AppRunner(web_app)
        await self._inside.setup()
        self._stack.push_async_callback(self._inside.cleanup)
        site = web.TCPSite(self._inside, "127.0.0.1", 0)
        await site.start()
        at = self._inside.addresses[0]

        async def into(stream: Stream) -> None:
            try:
                inside = SocketStream(*await asyncio.open_connection(*at))
            except OSError:
                return stream.abort()
            await splice(stream, inside)

        self.host.start(LeaseId(bytes.fromhex(lease)), CONTAINER, FakeContainer(ports={80: into}))

    async def contain_no_more(self) -> None:
        await self._inside.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        """As careless as a proxy in there might be."""
        return web.Response(body=BODY, headers=dict.fromkeys(TELLTALE, "1.1 10.82.0.2, 198.51.100.2"))

    async def get(self, lease: str, provider: str) -> dict[str, Any]:
        stream = await self.node.renting.tunnel(LeaseId(bytes.fromhex(lease)), CONTAINER, 80)
        await stream.write(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        answer = await read_all(stream)
        return {"answer": answer.decode(), "path": path_of(self.node.link, NodeKey(bytes.fromhex(provider)))}

    async def expose(self, lease: str, provider: str, zone: str) -> str:
        """Rent a name at a gateway, as soon as the market shows one, and lead it to the container. The name."""
        node, web_lease = self.node, LeaseId(bytes.fromhex(lease))
        gate = await node.renting.ingress("web", Wishes(), lambda _: None)
        host, expires = alias("web", node.keys.node, zone), Instant(SystemClock().now() + HOUR)
        grant = node.publisher.grant(web_lease, gate.provider, 1, expires, (80,))
        replica = Replica(NodeKey(bytes.fromhex(provider)), web_lease, (("web", CONTAINER),), grant)
        sites = (Site((host,), 80, "web"),)
        document = Document(node.keys.node, "web", 1, expires, sites, (replica,), ())
        await node.publisher.publish(gate.id, document)
        return host

    async def visit(self, at: str, host: str, named: str = "", method: str = "GET", tls: bool = True) -> str:
        """As anybody would who knows the name: all that comes back. *named*: what the request says, if not *host*."""
        trust = (
            ssl.create_default_context()
        )  # whom the gateway's own authority is trusted by is another test's
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        secure = {"ssl": trust, "server_hostname": host} if tls else {}
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*at.split(":"), **secure)  # type: ignore[misc]
            words = f"{method} / HTTP/1.1\r\nhost: {named or host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(words.encode())
            answer = await reader.read(-1)
        writer.close()
        return answer.decode()

    async def names(self, at: str, names: list[str]) -> list[str]:
        """All that a name server says of them, as text."""
        host, port = at.split(":")
        kinds = ("A", "AAAA", "CNAME", "TXT", "SRV", "NS", "SOA", "PTR", "ANY")
        questions = [dns.message.make_query(name, kind) for name in names for kind in kinds]
        return [str(await dns.asyncquery.tcp(each, host, 30, int(port))) for each in questions]


class Copies(FakeCopies):
    """At providers with ``offer_engine``."""

    def __init__(self, node: Any) -> None:
        super().__init__(lambda lease: self._post(lease, "/_ping"))
        self._node = node

    async def _post(self, lease: LeaseId, path: str) -> None:
        stream = await self._node.renting.engine(lease)
        try:
            await HttpClient(stream).request("POST", path)
        finally:
            stream.abort()

    async def start_replayed(self, recipe: Any, placed: Any, progress: Any) -> None:
        for spot in placed.values():
            await self._post(spot.lease, f"/start/{spot.remote}")
        self.running |= set(placed.values())

    async def stop_replayed(self, placed: Any) -> None:
        for spot in placed.values():
            await self._post(spot.lease, f"/stop/{spot.remote}")
        self.running -= set(placed.values())


def path_of(link: Any, peer: NodeKey) -> str:
    line = link._lines.find(peer)
    chosen = [p for p in line.connection.paths() if p.is_selected] if line else []
    return "none" if not chosen else "relay" if chosen[0].is_relay else "direct"


def destination(protocol: int, packet: bytes) -> set[str]:
    match protocol:
        case 0x0800:
            return {str(ip_address(packet[16:20]))}
        case 0x86DD:
            return {str(ip_address(packet[24:40]))}
        case _:
            return set()


async def main() -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tell("ready")
    async with asyncio.TaskGroup() as tasks:
        agent = Agent(tasks)
        while line := await reader.readline():
            name, how = json.loads(line)
            try:
                tell({"is": await getattr(agent, name)(**how)})
            except Exception as error:
                tell({"error": f"{type(error).__name__}: {error}"})
        await agent.end()


def tell(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


asyncio.run(main())
