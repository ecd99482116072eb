"""A deployment with a standby outlives its provider: whole nodes, virtual seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from daemon.nodes import BUSY, FREE_POLICY, NEED, POLICY, Peer, World, funded_by_mining, rent_paid, until
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.rest import Asked
from dockage.domain.units import HOUR, Instant
from dockage.node.kept import Stage
from dockage.protocol import streams
from dockage.protocol.grants import Grant, sign_grant
from dockage.testing.copies import FakeCopies
from dockage.wire.frames import read_frame, write_frame
from dockage.wire.http import HttpServer


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def pong(_: LeaseId, stream: Any) -> None:
    server = HttpServer(stream)
    while await server.read_request():
        await server.answer(200, [], b"OK")


async def provider(world: World, number: int, policy: Any = FREE_POLICY) -> Peer:
    peer = await world.provider(number, policy)
    peer.host.engine = pong
    return peer


def kept(tenant: Peer) -> FakeCopies:
    async def reach(lease: LeaseId) -> None:
        (await tenant.node.renting.engine(lease)).abort()
        mine = tenant.rented(lease)
        if any(peer.keys.node == mine.provider and not peer._running for peer in tenant.world._peers):
            raise Unavailable("peer.unreachable", "the provider does not answer")

    copies = FakeCopies(reach)
    tenant.node.keeping.attach(copies)
    return copies


class Shop:
    """A free deployment with one standby, on two of three providers."""

    def __init__(self, world: World, tenant: Peer, providers: list[Peer]) -> None:
        self.world, self.tenant, self.providers = world, tenant, providers

    async def up(self, **labels: str) -> None:
        self.copies = kept(self.tenant)
        self.lease = await self.tenant.rent("web", **labels)
        self.wishes = {f"dockage.{name.replace('_', '-')}": value for name, value in labels.items()}
        self.copies.deploy("web", self.lease, NEED, self.wishes)

    def again(self) -> FakeCopies:
        """Its books are as they were, after a restart."""
        before, self.copies = self.copies, kept(self.tenant)
        self.copies.recipes, self.copies.leads = before.recipes, before.leads
        self.copies.made, self.copies.running = before.made, before.running
        return self.copies

    @property
    def web(self) -> Any:
        return self.tenant.node.keeping.state.deployments.get("web")

    def at(self, lease: LeaseId) -> Peer:
        node = self.tenant.rented(lease).provider
        return next(x for x in self.providers if x.keys.node == node)

    def stages(self) -> list[Stage]:
        return sorted(x.stage for x in self.web.replicas.values()) if self.web else []

    async def whole(self) -> None:
        await until(lambda: self.stages() == [Stage.SERVING, Stage.READY])

    @property
    def standby(self) -> LeaseId:
        return next(k for k, x in self.web.replicas.items() if x.stage is Stage.READY)


@pytest.fixture
async def shop(world: World) -> Shop:
    providers = [await provider(world, number) for number in (1, 3, 4)]
    return Shop(world, await world.tenant(2, coins=()), providers)


async def test_our_users_ids_and_ports_follow_within_five_seconds(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    other = shop.standby
    assert shop.copies.lease_of("web") == shop.lease
    await shop.at(shop.lease).stop()
    begun = shop.world.clock.now()
    await until(lambda: shop.copies.lease_of("web") == other, step=0.05)
    assert shop.world.clock.now() - begun < 5e9
    assert {spot.lease for spot in shop.copies.running} == {shop.lease, other}
    assert shop.web.story[-1].reason.code == "replica.dead"


async def test_the_lost_one_is_fenced_and_unpaid_and_another_standby_is_found(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    lost = shop.at(shop.lease)
    await lost.stop()
    await until(lambda: shop.lease not in shop.web.replicas)
    old = shop.tenant.rented(shop.lease)
    assert old.state is LeaseState.ENDED
    assert old.fenced
    await shop.whole()
    lost.start()
    await until(lambda: lost.sold(shop.lease).state is LeaseState.ENDED)
    assert shop.tenant.rented(shop.lease).due == old.due


async def test_a_provider_that_restarts_keeps_its_lease_as_the_standby(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    other, lost = shop.standby, shop.at(shop.lease)
    await lost.stop()
    await until(lambda: shop.copies.lease_of("web") == other)
    lost.start()
    await shop.whole()
    assert shop.standby == shop.lease
    assert {spot.lease for spot in shop.copies.running} == {other}


async def test_a_copy_that_comes_back_gets_no_visitor_by_an_older_word(shop: Shop, world: World) -> None:
    """What its tenant granted to a gateway before it was replaced is void there."""
    await shop.up(standby="1")
    await shop.whole()
    gate, lost, epoch = await world.tenant(9, coins=(), wallet=False), shop.at(shop.lease), shop.web.epoch
    until_then, keys = Instant(world.clock.now() + HOUR), shop.tenant.keys
    grant = Grant(keys.node, shop.lease, gate.keys.node, ("tunnel",), epoch, until_then, (80,))
    header = streams.encode_header(streams.Tunnel(shop.lease, "ab" * 32, 80, sign_grant(grant, keys.sign)))

    async def knock() -> int:
        gate.node.link.learn(lost.keys.node, lost.node.link.address())
        stream = await gate.node.link.open(lost.keys.node)
        with suppress(DockageError):
            await write_frame(stream, header)
            await read_frame(stream, 512)
        stream.abort()
        return lost.node.reception.refused["grant.fenced"]

    assert await knock() == 0
    await lost.stop()
    await until(lambda: shop.stages().count(Stage.SERVING) and shop.web.epoch > epoch)
    lost.start()
    await shop.whole()
    assert await knock() == 1


async def test_a_short_outage_changes_nothing(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    await shop.at(shop.lease).restart()
    await until(lambda: not shop.web.replicas[shop.lease].signs.missed)
    assert shop.copies.adopted == []


async def test_the_daemon_restarts_in_the_middle_and_nothing_is_rented_twice(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    before = set(shop.web.replicas)
    await shop.tenant.restart()
    shop.again()
    await shop.whole()
    assert set(shop.web.replicas) == before
    assert len([x for x in shop.tenant.node.tenant.state.leases.values() if not x.is_over]) == 2


async def test_made_anew_just_before_it_is_lost_it_comes_back_as_it_is_now(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    shop.copies.deploy("web", shop.lease, NEED, shop.wishes, time=2)
    await shop.at(shop.lease).stop()
    await until(lambda: shop.copies.lease_of("web") != shop.lease)
    [(_, spot)] = shop.copies.where("web").items()
    assert spot in shop.copies.running


async def test_made_anew_at_a_lease_that_ends_before_it_was_heard_of_it_comes_back_too(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    other = shop.standby
    await shop.at(shop.lease).stop()
    await until(lambda: shop.lease not in shop.web.replicas)
    shop.copies.leads["web"] = {}
    shop.copies.deploy("web", shop.lease, NEED, shop.wishes, time=2)
    await until(lambda: shop.copies.lease_of("web") != shop.lease)
    [(_, spot)] = shop.copies.where("web").items()
    await until(lambda: spot in shop.copies.running and shop.stages() == [Stage.SERVING, Stage.READY])
    assert shop.web.primary != other, "it goes on beside what ran until then, as any change does"


async def test_a_turn_that_a_restart_cut_off_is_made_up_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.up(standby="1")
    await shop.whole()
    other = shop.standby

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(shop.copies, "adopt", never)
    await shop.at(shop.lease).stop()
    await until(lambda: shop.web.primary == other)
    await shop.tenant.restart()
    copies = shop.again()
    assert copies.lease_of("web") == shop.lease
    await until(lambda: copies.lease_of("web") == other)


async def test_our_users_commands_still_reach_one_lease_only(shop: Shop) -> None:
    """A service that is added makes the primary larger, not the standby."""
    await shop.up(standby="1")
    await shop.whole()
    assert await shop.tenant.rent("web") == shop.lease


async def test_taken_down_it_ends_everywhere(shop: Shop) -> None:
    await shop.up(standby="1")
    await shop.whole()
    shop.copies.recipes.clear()
    await shop.tenant.node.renting.release(shop.lease)
    await until(lambda: all(x.is_over for x in shop.tenant.node.tenant.state.leases.values()))


async def test_what_is_taken_down_ends_no_lease_that_another_deployment_took_over(shop: Shop) -> None:
    """As a row of ``docker run`` does: the next container finds the lease of the one before."""
    await shop.up(standby="1")
    await shop.whole()
    other = shop.standby
    shop.copies.recipes.clear()
    await shop.tenant.node.renting.rename(shop.lease, "blog")
    shop.copies.deploy("blog", shop.lease, NEED, shop.wishes)
    await until(lambda: shop.tenant.rented(other).is_over)
    await until(lambda: "blog" in shop.tenant.node.keeping.state.deployments)
    assert shop.tenant.rented(shop.lease).state is LeaseState.RUNNING
    assert shop.tenant.node.keeping.state.deployments["blog"].primary == shop.lease


async def test_scale_and_move_by_command(shop: Shop) -> None:
    await shop.up()
    assert shop.web is None, "without a label nothing is kept"
    await shop.tenant.node.keeping.scale("web", 2)
    await until(lambda: shop.stages() == [Stage.SERVING, Stage.SERVING])
    await shop.tenant.node.keeping.scale("web", 1)
    await until(lambda: shop.stages() == [Stage.SERVING])
    [before] = shop.web.replicas
    await shop.tenant.node.keeping.move("web", None)
    await until(lambda: shop.stages() == [Stage.SERVING] and before not in shop.web.replicas)
    with pytest.raises(UsageError, match="no deployment"):
        await shop.tenant.node.keeping.scale("nothing", 2)


async def test_without_a_second_provider_it_says_so_and_serves_on(world: World) -> None:
    shop = Shop(world, await world.tenant(2, coins=()), [await provider(world, 1)])
    await shop.up(standby="1")
    await until(lambda: shop.web is not None and shop.web.hindrance is not None)
    assert shop.web.hindrance.code == "market.nothing-apart"
    assert shop.stages() == [Stage.SERVING]


async def test_a_paid_standby_has_its_own_channel_and_the_lost_one_is_paid_no_more(world: World) -> None:
    providers = [await provider(world, number, POLICY) for number in (1, 3)]
    shop = Shop(world, await world.tenant(2), providers)
    shop.copies = kept(shop.tenant)
    shop.lease = await rent_paid(world, shop.tenant, "web", standby="1")
    shop.copies.deploy("web", shop.lease, NEED, {"dockage.standby": "1"})
    await funded_by_mining(world, world.spawn(shop.whole()))
    other = shop.standby
    await shop.at(shop.lease).stop()
    await until(lambda: shop.copies.lease_of("web") == other)
    paid = shop.tenant.rented(shop.lease).due
    await until(lambda: shop.lease not in shop.web.replicas)
    assert shop.tenant.rented(shop.lease).due == paid


async def test_more_requests_in_flight_bring_more_replicas_and_what_is_not_heard_none(shop: Shop) -> None:
    await shop.up(scale_max="3", scale_requests="10")
    shop.tenant.node.keeping.asked = lambda _: None
    await until(lambda: shop.stages() == [Stage.SERVING])
    shop.tenant.node.keeping.asked = lambda _: Asked(29, 29, wanted=False)
    await until(lambda: shop.stages() == [Stage.SERVING] * 3)


async def test_it_falls_asleep_and_a_restarted_daemon_wakes_it(shop: Shop) -> None:
    await shop.up(sleep_after="20")
    shop.tenant.node.keeping.asked = lambda _: Asked(0, 1, wanted=False)
    await until(lambda: shop.stages() == [Stage.READY])
    await shop.tenant.restart()
    copies = kept(shop.tenant)
    copies.recipes, copies.leads = shop.copies.recipes, shop.copies.leads
    copies.made, copies.running = shop.copies.made, set()
    keeping = shop.tenant.node.keeping
    keeping.asked = lambda _: Asked(0, 1, wanted=False)
    await until(lambda: "web" in keeping.hands.recipes)
    assert shop.stages() == [Stage.READY]
    await keeping.wake("web")
    await until(lambda: shop.stages() == [Stage.SERVING])
    assert {spot.lease for spot in copies.running} == {shop.lease}


async def test_more_load_brings_more_replicas_and_less_load_fewer(shop: Shop) -> None:
    await shop.up(scale_max="3", scale_cpu="50", scale_down_after="60")
    busy = shop.at(shop.lease).host
    busy.start(shop.lease, "a", BUSY)
    await until(lambda: shop.stages() == [Stage.SERVING, Stage.SERVING])
    busy.stop(shop.lease, "a")
    await until(lambda: shop.stages() == [Stage.SERVING], seconds=300)


def window(shop: Shop, begins: int, ends: int, replicas: int) -> str:
    """As a label has it: minutes from now, in the world's own time."""
    now = int(shop.world.clock.now() // 60_000_000_000)
    opens, closes = ((now + minutes) % 1440 for minutes in (begins, ends))
    return f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02} {replicas}"


async def test_there_are_as_many_as_the_clock_says_and_at_night_none(shop: Shop) -> None:
    await shop.up(schedule=f"{window(shop, -5, 2, 2)}; {window(shop, 2, 6, 0)}; UTC")
    await until(lambda: shop.stages() == [Stage.SERVING, Stage.SERVING])
    await until(lambda: shop.stages() == [Stage.READY], seconds=300)
    assert not shop.web.replicas.keys() & {spot.lease for spot in shop.copies.running}
    assert any(x.reason.code == "deployment.scheduled" for x in shop.web.story)
    await shop.tenant.restart()
    copies = kept(shop.tenant)
    copies.recipes, copies.leads = shop.copies.recipes, shop.copies.leads
    copies.made, copies.running = shop.copies.made, shop.copies.running
    await until(lambda: shop.stages() == [Stage.SERVING], seconds=600)
    assert len(shop.web.replicas.keys() & {spot.lease for spot in copies.running}) == 1
    assert any(x.reason.code == "deployment.unscheduled" for x in shop.web.story)


async def test_what_is_asked_for_by_hand_counts_until_the_next_hour_begins(shop: Shop) -> None:
    await shop.up(schedule=f"{window(shop, -5, 2, 1)}; {window(shop, 2, 9, 2)}")
    await until(lambda: shop.stages() == [Stage.SERVING])
    await shop.tenant.node.keeping.scale("web", 3)
    await until(lambda: shop.stages() == [Stage.SERVING] * 3)
    await until(lambda: shop.stages() == [Stage.SERVING] * 2, seconds=300)
