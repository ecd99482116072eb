"""Whole nodes: a tenant rents at a gateway, publishes there, watches, pays for what both ends count, and is dropped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from daemon.nodes import FREE_POLICY, Peer, World, until
from dockage.adapters.gateway import line
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.adapters.system.clock import SystemClock
from dockage.cli.main import main
from dockage.daemon.control import Control
from dockage.daemon.wishes import Wishes
from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.offer import Ingress
from dockage.domain.ownership import proof_text
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.routing import Rules
from dockage.domain.units import HOUR, Instant
from dockage.ports.peers import Stream
from dockage.protocol.documents import Signs, Taken
from dockage.testing.host import FakeContainer
from dockage.testing.keys import MemoryKeys
from dockage.wire.http import HttpServer
from gateway.lab import ask
from gateway.test_ownership import Names

CONTAINER = "ab" * 32
HOST, LOST = "shop.example.com", "lost.example.org"
ROOM = Resources(INGRESS.cpu_milli * 10, INGRESS.memory_bytes * 10, INGRESS.disk_bytes * 10)
GATEWAY_POLICY = replace(
    FREE_POLICY, capacity=ROOM, ingress=Ingress("example.net", ("203.0.113.5",), 20000, 20100)
)


async def hello(stream: Stream) -> None:
    server = HttpServer(stream)
    while await server.read_request() is not None:
        await server.answer(200, [], b"hello" * 1000)
    await stream.finish()


class Town:
    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = 0

    async def build(self, resolver: Any = None, at: str = "127.0.0.1") -> Town:
        self.provider, self.at = await self.world.provider(1, FREE_POLICY), at
        names = resolver or Names(texts={f"_dockage.{HOST}": (proof_text(MemoryKeys(2).node),)})
        self.gateway = await self.world.provider(3, GATEWAY_POLICY, gateway=self.make_gateway, resolver=names)
        self.tenant = await self.world.tenant(2, coins=(), wallet=False)
        self.lease = await self.tenant.rent()
        self.provider.host.start(self.lease, CONTAINER, FakeContainer(ports={80: hello}))
        rented = await self.tenant.node.renting.ingress("shop", Wishes(), lambda _: None)
        assert rented.provider == self.gateway.keys.node
        self.ingress = rented.id
        return self

    def make_gateway(self) -> GatewayHost:
        self.doors = Listeners(Places(http=f"{self.at}:0", ports_at=self.at))
        rules, run = Rules("example.net", 20000, 20100), f"run {id(self.doors)}"
        self.routes = GatewayHost(rules, SystemClock(), Random(1), run, "x86_64", self.doors)
        return self.routes

    async def publish(self, by: Peer | None = None, lease: LeaseId | None = None, **how: object) -> Taken:
        self.epoch += 1
        who = by or self.tenant
        expires = Instant(self.world.clock.now() + HOUR)
        grant = who.node.publisher.grant(self.lease, self.gateway.keys.node, self.epoch, expires, (80,))
        replica = Replica(self.provider.keys.node, self.lease, (("web", CONTAINER),), grant)
        document = Document(
            who.keys.node, "shop", self.epoch, expires, (Site((HOST,), 80, "web"),), (replica,), ()
        )
        return await who.node.publisher.publish(lease or self.ingress, replace(document, **how))

    def know_each_other(self, peer: Peer) -> None:
        peer.node.link.learn(self.gateway.keys.node, self.gateway.node.link.address())
        self.gateway.node.link.learn(peer.keys.node, peer.node.link.address())

    async def get(self, host: str = HOST) -> int:
        return (await ask(self.doors.bound["http"], "/", host, at=self.at)).status

    async def sign(self) -> Signs:
        signs = self.tenant.node.publisher.watch(self.ingress)
        try:
            return await anext(signs)
        finally:
            await signs.aclose()

    def stated(self, lease: LeaseId) -> int:
        last = self.tenant.rented(lease).last
        return int(last.usage.net_out_bytes) if last else 0


@pytest.fixture(scope="module")
async def town() -> AsyncIterator[Town]:
    async with World(SystemClock()) as world:
        yield await Town(world).build()


async def test_from_the_lease_to_the_bill(town: Town) -> None:
    await town.publish()
    before = (await town.sign()).sites[0].total
    await until(lambda: all(town.tenant.rented(x).last for x in (town.ingress, town.lease)), 10)
    bills = {lease: town.stated(lease) for lease in (town.ingress, town.lease)}
    assert [await town.get() for _ in range(20)] == [200] * 20
    signs = await town.sign()
    assert (signs.epoch, signs.wanted) == (town.epoch, False)
    assert signs.sites[0].total == before + 20
    assert [(r.lease, r.misses) for r in signs.replicas] == [(town.lease, 0)]
    for lease, stated in bills.items():
        await until(lambda lease=lease, stated=stated: town.stated(lease) >= stated + 100_000, 10)
        assert town.tenant.rented(lease).dispute is None


async def test_there_are_no_signs_of_what_is_not_published(town: Town) -> None:
    empty = await town.tenant.node.renting.ingress("other", Wishes(), lambda _: None)
    with pytest.raises(Unavailable):
        await anext(town.tenant.node.publisher.watch(empty.id))
    await town.tenant.node.renting.release(empty.id)


async def test_a_new_fence_ends_what_an_old_document_can_do(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "AGAIN_SEC", 0.0)  # nobody waits for a newer document
    await town.publish()
    assert await town.get() == 200
    newer = town.epoch + 1
    assert await town.tenant.node.publisher.fence(town.lease, newer) == newer
    assert await town.get() == 502
    await town.publish()  # with a grant of that epoch
    assert await town.get() == 200


async def test_what_is_published_survives_a_restart_of_the_gateway(town: Town) -> None:
    await town.publish()
    await town.gateway.restart()
    for peer in (town.provider, town.tenant):
        town.know_each_other(peer)
    await until(lambda: town.doors.bound, 10, 0.01)
    assert await town.get() == 200


async def test_a_domain_that_is_lost_hides_itself_alone_also_after_a_restart(town: Town) -> None:
    taken = await town.publish(sites=(Site((LOST, HOST), 80, "web"),))
    assert (taken.epoch, taken.lacking) == (town.epoch, (LOST,))
    assert [await town.get(), await town.get(LOST)] == [200, 404]
    await town.gateway.restart()
    for peer in (town.provider, town.tenant):
        town.know_each_other(peer)
    await until(lambda: town.doors.bound, 10, 0.01)
    assert [await town.get(), await town.get(LOST)] == [200, 404]


async def test_what_has_no_name_left_is_looked_at_and_counted_all_the_same(town: Town) -> None:
    hosts = ("a." + LOST, "b." + LOST)
    began = asyncio.get_running_loop().time()
    taken = await town.publish(sites=tuple(Site((host,), 80, "web") for host in hosts))
    assert taken.lacking == hosts
    live = town.routes.served.at(town.ingress)
    assert live is not None
    await until(lambda: all(x.answered_at > began for x in live.backends.values()), 30, 0.05)
    assert [(sign.in_flight, sign.total) for sign in (await town.sign()).sites] == [(0, 0)] * 2


async def test_a_dropped_deployment_is_served_no_more(town: Town) -> None:
    await town.publish()
    ingress = town.gateway.node.ingress
    assert ingress is not None
    assert list(await ingress.drop(HOST)) == [town.ingress]
    assert await town.get() == 404
    with pytest.raises(UsageError) as caught:
        await town.publish()
    assert caught.value.code == "document.dropped"
    await ingress.allow(HOST)
    await town.publish()
    assert await town.get() == 200


async def test_the_operator_sees_and_drops_by_command(town: Town, home: Path) -> None:
    async def dockage(*words: str) -> dict[str, Any]:
        done = await asyncio.to_thread(CliRunner().invoke, main, ["--home", str(home), *words, "--json"])
        text = done.output  # an error is on stderr
        return dict(json.loads(text[text.index("{") :]))

    await town.publish()
    serving = asyncio.ensure_future(Control(town.gateway.node, home / "control.sock").serve())
    try:
        await until(lambda: (home / "control.sock").exists(), 10, 0.01)
        [shown] = (await dockage("gateway"))["deployments"]
        assert (shown["name"], shown["hosts"], shown["replicas"]) == ("shop", [HOST], 1)
        key = town.tenant.keys.node.hex()
        assert await dockage("gateway", "drop", key[:8]) == {"name": key, "leases": [town.ingress.hex()]}
        assert await town.get() == 404
        assert (await dockage("gateway"))["dropped"] == [key]
        assert (await dockage("gateway", "drop", "../x"))["code"] == "gateway.name"
        assert (await dockage("gateway", "allow", HOST))["code"] == "gateway.not-dropped"
        await dockage("gateway", "allow", key)
    finally:
        serving.cancel()
    await town.publish()
    assert await town.get() == 200


async def test_who_does_not_rent_here_publishes_nothing(town: Town) -> None:
    thief = await town.world.tenant(4, coins=(), wallet=False)
    theirs = (await thief.node.renting.ingress("mine", Wishes(), lambda _: None)).id
    with pytest.raises(DockageError):
        await town.publish(by=thief, lease=theirs, tenant=town.tenant.keys.node)
    assert town.gateway.node.reception.refused["document.signature"] == 1
    town.know_each_other(thief)
    await town.publish()
    taken = await town.publish(by=thief, lease=theirs)
    assert taken.lacking == (HOST,)
    assert taken.why is not None
    assert taken.why.code == "site.unproven"
    assert await town.get() == 200
    [served] = [x for x in town.routes.documents().values() if x.tenant == thief.keys.node]
    assert served.sites[0].hosts == ()
    await thief.node.renting.release(theirs)
    await until(lambda: theirs not in town.routes.documents(), 10)


async def test_engines_are_not_rented_at_gateways_nor_the_other_way_round(town: Town) -> None:
    only = {"dockage.provider": town.gateway.keys.node.hex()}
    with pytest.raises(UsageError) as caught:
        await town.tenant.node.renting.obtain("more", INGRESS, only, lambda _: None)
    assert caught.value.code == "market.nothing-fits"
    assert "gateway" in caught.value.message
