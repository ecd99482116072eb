"""What labels make public, from the label to the answer and back to the controller: whole nodes, fake machines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import pytest
from msgspec.msgpack import encode
from msgspec.structs import replace

from daemon.nodes import FREE_POLICY, NEED, Peer, World, until
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.system.clock import SystemClock
from dockage.daemon import control_public
from dockage.domain.deployment import alias, app_label
from dockage.domain.identity import LeaseId
from dockage.domain.offer import Ingress
from dockage.domain.ownership import proof_text
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.routing import Rules
from dockage.node.kept import Stage
from dockage.ports.peers import Stream
from dockage.protocol.authority import Self, View, look_up, places
from dockage.protocol.dns import address
from dockage.protocol.records import ZoneBody, open_record, zone_topic
from dockage.protocol.zones import read_zone
from dockage.testing.copies import FakeCopies
from dockage.testing.host import FakeContainer
from dockage.testing.keys import MemoryKeys, verify
from dockage.wire.http import HttpServer
from gateway.lab import ask
from gateway.test_ownership import Names

ROOM = Resources(INGRESS.cpu_milli * 10, INGRESS.memory_bytes * 10, INGRESS.disk_bytes * 10)
PATIENT = 60


async def hello(stream: Stream) -> None:
    server = HttpServer(stream)
    while await server.read_request() is not None:
        await server.answer(200, [], b"hello")
    await stream.finish()


async def back(stream: Stream) -> None:
    while piece := await stream.read(1 << 16):
        await stream.write(piece)
    await stream.finish()


PORTS = {80: hello, 5432: back, 27015: back}


async def pong(_: LeaseId, stream: Any) -> None:
    await hello(stream)


async def eventually(look: Callable[[], Awaitable[int]], wanted: int) -> None:
    async with asyncio.timeout(PATIENT):
        while await look() != wanted:  # noqa: ASYNC110 - somebody else's state
            await asyncio.sleep(0.05)


OWN = Names({"_dockage.www.twice.example": (proof_text(MemoryKeys(2).node),)})


class Doors:
    """A gateway of a zone of its own."""

    def __init__(self, number: int) -> None:
        self.zone, self.address = f"gw{number}.example", f"203.0.113.{number}"
        self.policy = replace(
            FREE_POLICY, capacity=ROOM, ingress=Ingress(self.zone, (self.address,), 20000, 20009)
        )

    def make(self) -> GatewayHost:
        self.listeners = Listeners(Places(http="127.0.0.1:0", ports_at="127.0.0.1"))
        rules = Rules(self.zone, 20000, 20009)
        return GatewayHost(
            rules, SystemClock(), Random(1), f"run {id(self.listeners)}", "x86_64", self.listeners
        )

    async def status(self, host: str) -> int:
        return (await ask(self.listeners.bound["http"], "/", host)).status


class Town:
    """Two engines, two gateways, and a tenant with one container."""

    def __init__(self, world: World) -> None:
        self.world, self.doors = world, [Doors(7), Doors(8)]

    async def build(self) -> Town:
        self.providers = [await self.provider(number) for number in (1, 3)]
        self.gateways = [
            await self.world.provider(4 + n, doors.policy, gateway=doors.make, resolver=OWN)
            for n, doors in enumerate(self.doors)
        ]
        self.tenant = await self.world.tenant(2, coins=(), wallet=False)
        self.copies = Copies(self.tenant, self.providers)
        self.tenant.node.keeping.attach(self.copies)
        return self

    async def provider(self, number: int) -> Peer:
        peer = await self.world.provider(number, FREE_POLICY)
        peer.host.engine = pong
        return peer

    async def up(self, name: str, **labels: str) -> LeaseId:
        wishes = {f"dockage.{key.replace('_', '-')}": value for key, value in labels.items()}
        lease = await self.tenant.rent(name, **{k.replace("_", "-"): v for k, v in labels.items()})
        self.copies.deploy(name, lease, NEED, wishes)
        self.copies.begin(name)
        return lease

    async def down(self, name: str) -> None:
        lease = self.copies.lease_of(name)
        self.copies.recipes.pop(name)
        self.copies.leads.pop(name)
        assert lease is not None
        await self.tenant.node.renting.release(lease)

    def live(self, name: str) -> list[Any]:
        leases = self.tenant.node.tenant.state.leases.values()
        return [x for x in leases if x.deployment == name and not x.is_over]

    def ingress(self, name: str) -> list[Any]:
        return [x for x in self.live(name) if x.service == "gateway"]

    def shown(self, name: str) -> dict[str, Any]:
        found = control_public.all_of(self.tenant.node)
        return next((x for x in found if x["deployment"] == name), {"urls": [], "gateways": []})

    def urls(self, name: str) -> set[str]:
        return {x["url"] for x in self.shown(name)["urls"]}

    def host(self, name: str, doors: Doors) -> str:
        return alias(name, self.tenant.keys.node, doors.zone)

    async def answers(self, name: str, *where: Doors) -> None:
        for doors in where:
            await eventually(lambda doors=doors: doors.status(self.host(name, doors)), 200)

    async def zone(self, name: str) -> int:
        """How many addresses of *name* the market knows."""
        blobs = await self.world.board.search(zone_topic(self.tenant.keys.node))
        records = [open_record(blob, verify, self.world.clock.now()) for blob in blobs]
        if not records:
            return 0
        body = max(records, key=lambda x: x.seq).body
        assert isinstance(body, ZoneBody)
        return len(read_zone(self.tenant.keys.node, body.payload).get(app_label(name), ()))


class Copies(FakeCopies):
    """As the real front: what is started answers at its provider's host."""

    def __init__(self, tenant: Peer, providers: list[Peer]) -> None:
        super().__init__(self._reached)
        self.tenant, self.providers = tenant, providers

    async def _reached(self, lease: LeaseId) -> None:
        (await self.tenant.node.renting.engine(lease)).abort()

    def begin(self, name: str) -> None:
        for spot in self.leads[name].values():
            self._at(spot.lease).host.start(spot.lease, spot.remote, FakeContainer(ports=PORTS))

    def _at(self, lease: LeaseId) -> Peer:
        node = self.tenant.rented(lease).provider
        return next(x for x in self.providers if x.keys.node == node)

    async def stop_replayed(self, placed: Any) -> None:
        await super().stop_replayed(placed)
        for spot in placed.values():
            self._at(spot.lease).host.stop(spot.lease, spot.remote)

    async def start_replayed(self, recipe: Any, placed: Any, progress: Any) -> None:
        await super().start_replayed(recipe, placed, progress)
        for spot in placed.values():
            self._at(spot.lease).host.start(spot.lease, spot.remote, FakeContainer(ports=PORTS))


@pytest.fixture(scope="module")
async def town() -> AsyncIterator[Town]:
    async with World(SystemClock()) as world:
        yield await Town(world).build()


async def test_a_label_makes_it_public_and_down_ends_all(town: Town) -> None:
    lease = await town.up("shop", public="80")
    await until(lambda: town.urls("shop"), PATIENT)
    [gateway] = town.shown("shop")["gateways"]
    first = next(d for d in town.doors if d.zone == gateway["zone"])
    assert town.urls("shop") == {f"https://{town.host('shop', first)}"}
    await town.answers("shop", first)
    assert len(town.live("shop")) == 2, "no second container lease is paid unasked"
    await eventually(lambda: town.zone("shop"), 1)
    assert await town.tenant.rent("shop") == lease, "commands go to the engine, never to the gateway"
    await town.down("shop")
    await until(lambda: not town.live("shop"), PATIENT)
    assert await first.status(town.host("shop", first)) == 404
    await eventually(lambda: town.zone("shop"), 0)


async def test_ports_of_all_kinds_lead_to_the_container(town: Town) -> None:
    """From the label to the bytes: TCP and UDP ports of the gateway, and the name beside them."""
    await town.up("game", public="80, 5432/tcp, 27015/udp")
    await until(lambda: len(town.urls("game")) == 3, PATIENT)
    found = [url.split(":") for url in town.urls("game") if not url.startswith("https")]
    ports = {kind: int(port) for kind, _, port in found}
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENT):
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["tcp"])
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", ports["udp"]))
            client.send(b"ping")
            assert await loop.sock_recv(client, 100) == b"ping"
    await town.down("game")


async def test_nobody_learns_in_whose_home_it_runs(town: Town) -> None:
    """All that the public can ask for: pages, names in the DNS, the zone in the market. The document, which only the
    gateway sees, has the provider's key and no address."""
    await town.up("quiet", public="80")
    await until(lambda: town.urls("quiet"), PATIENT)
    await eventually(lambda: town.zone("quiet"), 1)
    [way] = town.shown("quiet")["gateways"]
    doors = next(d for d in town.doors if d.zone == way["zone"])
    await town.answers("quiet", doors)
    gate = next(x for x in town.gateways if x.keys.node.hex() == way["gateway"])
    host = town.host("quiet", doors)
    documents = gate.node.ingress.documents
    seen = [encode(documents), *await town.world.board.search(zone_topic(town.tenant.keys.node))]
    view = View(Self(doors.zone, (address(doors.address),), 1), places(documents), {}, lambda _: True, ())
    seen += [
        str(look_up(view, name, kind)).encode() for name in (host, f"_web._tcp.{host}") for kind in range(256)
    ]
    port = doors.listeners.bound["http"]
    pages = [await ask(port, "/", name) for name in (host, "other.example")]
    for peer in town.providers:
        homes = [
            each.encode()
            for each in (*peer.node.link.address().direct, peer.node.link.address().relay)
            if each
        ]
        assert homes
        for each in seen:
            assert not any(home in each for home in homes)
        for page in pages:
            assert not any(home in page.raw for home in homes)
            assert peer.keys.node.hex().encode() not in page.raw
    await town.down("quiet")


async def test_at_two_gateways_and_the_labels_say_where_else(town: Town) -> None:
    await town.up("twice", public="80", gateways="2", host="www.twice.example")
    await until(lambda: len(town.shown("twice")["gateways"]) == 2, PATIENT)
    await town.answers("twice", *town.doors)
    for doors in town.doors:
        assert await doors.status("www.twice.example") == 200
    assert len({x.provider for x in town.ingress("twice")}) == 2
    await town.down("twice")


async def test_a_replica_that_comes_is_served_and_the_gateways_word_reaches_the_controller(
    town: Town,
) -> None:
    await town.up("more", public="80", replicas="2")
    keeping = town.tenant.node.keeping

    def replicas() -> list[Any]:
        of = keeping.state.deployments.get("more")
        return list(of.replicas.values()) if of else []

    await until(lambda: [x.stage for x in replicas()] == [Stage.SERVING] * 2, PATIENT)
    await until(lambda: [len(x["replicas"]) for x in town.shown("more")["gateways"]] == [2], PATIENT)
    await until(lambda: all(x.signs.gateways for x in replicas()), PATIENT)
    [gateway] = {key for x in replicas() for key in x.signs.gateways}
    assert gateway.hex() == town.shown("more")["gateways"][0]["gateway"]
    await town.down("more")


async def test_a_restart_keeps_the_gateways(town: Town) -> None:
    await town.up("again", public="80")
    await until(lambda: town.urls("again"), PATIENT)
    before = {x.id for x in town.ingress("again")}
    await town.tenant.restart()
    for peer in (*town.providers, *town.gateways):
        town.tenant.node.link.learn(peer.keys.node, peer.node.link.address())
        peer.node.link.learn(town.tenant.keys.node, town.tenant.node.link.address())
    town.copies.tenant = town.tenant
    town.tenant.node.keeping.attach(town.copies)
    await until(lambda: town.urls("again"), PATIENT)
    assert {x.id for x in town.ingress("again")} == before
    await town.down("again")


async def test_it_sleeps_when_nobody_asks_and_the_first_request_wakes_it(town: Town) -> None:
    lease = await town.up("lazy", public="80", sleep_after="5")

    def stage() -> Stage | None:
        of = town.tenant.node.keeping.state.deployments.get("lazy")
        return of.replicas[lease].stage if of and lease in of.replicas else None

    await until(lambda: town.urls("lazy"), PATIENT)
    [gateway] = town.shown("lazy")["gateways"]
    doors = next(d for d in town.doors if d.zone == gateway["zone"])
    await until(lambda: stage() is Stage.READY, PATIENT)
    assert not {spot for spot in town.copies.running if spot.lease == lease}
    assert await doors.status(town.host("lazy", doors)) == 200, "it was held until the container ran again"
    assert stage() is Stage.SERVING
    assert len(town.live("lazy")) == 2
    await town.down("lazy")


async def test_a_gateway_that_ends_is_replaced(town: Town) -> None:
    await town.up("stays", public="80")
    await until(lambda: town.urls("stays"), PATIENT)
    [old] = town.ingress("stays")
    await town.tenant.node.renting.release(old.id)
    await until(lambda: town.urls("stays") and old.id not in {x.id for x in town.ingress("stays")}, PATIENT)
    await town.down("stays")


async def test_a_gateway_that_will_never_serve_it_is_left_for_the_next(town: Town) -> None:
    """Its operator drops us; so does the second one's, and our user is told why there is none."""
    tenant = town.tenant.keys.node.hex()
    await town.up("unloved", public="80")
    await until(lambda: town.urls("unloved"), PATIENT)
    key = town.shown("unloved")["gateways"][0]["gateway"]
    first = next(x for x in town.gateways if x.keys.node.hex() == key)
    ingress = [x.node.ingress for x in (first, *(x for x in town.gateways if x is not first))]
    try:
        await ingress[0].drop(tenant)
        await until(
            lambda: [x["gateway"] for x in town.shown("unloved")["gateways"] if x["urls"]] not in ([], [key]),
            PATIENT,
        )
        await ingress[1].drop(tenant)
        await until(lambda: "document.dropped" in str(town.shown("unloved").get("hindrance")), PATIENT)
        assert town.shown("unloved")["hindrance"]["code"] == "gateway.none-fits"
    finally:
        for each in ingress:
            if tenant in each.dropped:
                await each.allow(tenant)
        town.tenant.node.exposing._outlets._avoid.clear()
    await town.down("unloved")


async def test_what_contradicts_itself_is_said_and_costs_nothing(town: Town) -> None:
    await town.up("wrong", host="www.wrong.example")
    await until(lambda: town.shown("wrong").get("hindrance"), PATIENT)
    assert town.shown("wrong")["hindrance"]["code"] == "label.host"
    assert town.ingress("wrong") == []
    await town.down("wrong")
