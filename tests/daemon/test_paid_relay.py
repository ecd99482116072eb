"""A relay that is paid, among whole nodes: found, rented, counted at both ends, paid, and each lie about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import CONFIG, POLICY, Peer, World, funded_by_mining, until
from dockage.daemon.paidrelay import NAME, PaidRelay
from dockage.daemon.whereabouts import Whereabouts
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.pricing import Tariff
from dockage.domain.resources import INGRESS
from dockage.domain.units import MIB, Duration, Sat
from dockage.node import events as told
from dockage.testing.relay import MemoryRelay, RelayContract, RelayedLink, Stage
from dockage.wire.tolls import TollHost

PORT = 3340
PRICE = Tariff(net_in_gib=1_024_000, net_out_gib=1_024_000)
"""A satoshi a MiB."""
ROOM = INGRESS * 10
STRANGER = NodeKey(b"s" * 32)
NO_WALLET = replace(CONFIG, bitcoin=replace(CONFIG.bitcoin, network=""))
FREE = "http://198.51.100.9:3340/"


class TestMemoryRelay(RelayContract):
    @pytest.fixture
    def stage(self) -> Stage:
        relay = MemoryRelay("http://relay/", TollHost("run", "x86_64"))
        keys = (NodeKey(b"1" * 32), NodeKey(b"2" * 32), NodeKey(b"3" * 32))

        async def carry(sender: int, to: int, size: int) -> bool:
            return relay.carry(keys[sender], keys[to], size)

        async def ask(client: int) -> str:
            try:
                await relay.probe(keys[client])
            except Unavailable as error:
                return error.message
            return ""

        assert relay.tolls is not None
        return Stage(relay.tolls, keys, carry, ask)


class Village:
    """A relay for money at one node, and a node that nobody reaches otherwise."""

    def __init__(self, world: World) -> None:
        self.world, self.tasks = world, list[asyncio.Task[None]]()
        self.free = MemoryRelay(FREE)
        self.free.is_up = False

    async def build(
        self, budget: int = 1_000, tolls: type[TollHost] = TollHost, price: Tariff = PRICE, **how: Any
    ) -> Village:
        self.relay = MemoryRelay(f"http://127.0.0.1:{PORT}/", tolls("run", "x86_64"))
        policy = replace(POLICY, tariff=price, capacity=ROOM, relay_port=PORT)
        self.seller = await self.world.provider(1, policy, tolls=self.relay.tolls)
        self.home = await self.world.tenant(2, **how)
        self.attach(budget)
        return self

    def attach(self, budget: int) -> None:
        home = self.home
        self.link = RelayedLink(home.node.link)
        self.relay.links[home.keys.node] = self.link
        by_url = {self.relay.url: self.relay, FREE: self.free}

        async def probe(url: str) -> Duration:
            return await by_url[url].probe(home.keys.node)

        self.where = Whereabouts(self.link, home.clock, tuple, probe, [FREE], told=False)
        rows = list(home.journal.load())
        self.paid = PaidRelay(
            self.where, self.link, home.node.renting, home.clock, home.journal, rows, Sat(budget), 2016
        )
        self.tasks = [self.world.spawn(_until_cancelled(x)) for x in (self.where.watch_relays, self.paid.run)]

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def rented(self) -> LeaseId:
        async with asyncio.TaskGroup() as tasks:
            served = tasks.create_task(until(lambda: self.link.relays == [self.relay.url]))
            await funded_by_mining(self.world, served)
        assert self.paid.state.lease is not None
        return self.paid.state.lease

    def carry(self, mib: int, *, back: int = 0) -> bool:
        """To the node behind the NAT, and back."""
        came = self.relay.carry(STRANGER, self.home.keys.node, mib * MIB)
        return came and (not back or self.relay.carry(self.home.keys.node, STRANGER, back * MIB))

    async def chat(self, mib: int, seconds: int, back: int = 0) -> None:
        for _ in range(seconds):
            self.carry(mib, back=back)
            await asyncio.sleep(1)


async def _until_cancelled(work: Callable[[], Any]) -> None:
    try:
        await work()
    except asyncio.CancelledError:
        pass


@pytest.fixture
async def bare() -> AsyncIterator[Village]:
    """Nobody is there yet."""
    async with World() as world:
        made = Village(world)
        try:
            yield made
        finally:
            await made.leave()


@pytest.fixture
async def village(bare: Village) -> Village:
    return await bare.build()


async def test_it_is_rented_counted_at_both_ends_and_paid(village: Village) -> None:
    assert not village.carry(1), "before there is a lease nothing passes"
    lease = await village.rented()
    await village.chat(mib=10, seconds=5, back=1)
    await until(lambda: village.home.rented(lease).due == 55_000)
    await until(lambda: village.seller.earning.paid >= 55)
    mine = village.home.rented(lease)
    assert (mine.service, mine.deployment, mine.dispute) == ("relay", NAME, None)
    assert (mine.last.usage.net_in_bytes, mine.last.usage.net_out_bytes) == (5 * MIB, 50 * MIB)
    assert village.paid.trouble is None
    assert village.paid.state.spending.spent == 55_000


async def test_a_free_relay_is_preferred_and_the_paid_one_given_back_for_it(village: Village) -> None:
    lease = await village.rented()
    village.free.is_up = True
    await until(lambda: village.link.relays == [FREE])
    await until(lambda: village.home.rented(lease).is_over)
    assert village.home.rented(lease).reason.code == "relay.free"
    assert not village.carry(1), "and nothing is passed on by the other any more"
    await asyncio.sleep(60)
    assert village.paid.state.lease is None


async def test_where_a_free_one_answers_none_is_rented(bare: Village) -> None:
    bare.free.is_up = True
    village = await bare.build()
    await asyncio.sleep(30)
    assert village.link.relays == [FREE]
    assert not village.home.node.tenant.state.leases


@pytest.mark.parametrize(
    ("budget", "how", "code"),
    [
        (0, {}, "relay.none"),
        (
            1_000,
            {"wallet": False, "config": replace(CONFIG, bitcoin=replace(CONFIG.bitcoin, network=""))},
            "market.nothing-fits",
        ),
        (10, {"price": Tariff(net_out_gib=20_000)}, "relay.channel-cost"),
        (250, {}, "relay.dear"),
    ],
)
async def test_without_budget_wallet_or_worth_it_stays_with_free_ones_and_says_why(
    bare: Village, budget: int, how: dict[str, Any], code: str
) -> None:
    village = await bare.build(budget, **how)
    await until(lambda: village.paid.trouble is not None)
    assert village.paid.trouble is not None
    assert village.paid.trouble.code == code
    assert not village.home.node.tenant.state.channels
    village.free.is_up = True
    await until(lambda: village.link.relays == [FREE] and village.paid.trouble is None)


async def test_the_day_s_budget_is_the_end_of_it_also_after_a_restart(bare: Village) -> None:
    village = await bare.build(budget=400)
    lease = await village.rented()
    await village.chat(mib=50, seconds=9)
    await until(lambda: village.home.rented(lease).is_over)
    assert village.home.rented(lease).reason.code == "relay.budget"
    spent = village.home.rented(lease).due
    assert spent <= 460_000, "a tick more"
    await village.leave()
    await village.home.restart()
    village.attach(budget=400)
    await until(lambda: village.paid.trouble is not None)
    assert village.paid.trouble is not None
    assert village.paid.trouble.code == "relay.budget"
    assert village.paid.state.spending.spent == spent


async def test_a_restart_of_the_payer_ends_the_lease_and_rents_on_the_same_channel(village: Village) -> None:
    lease = await village.rented()
    await village.chat(mib=1, seconds=2)
    await village.leave()
    await village.home.restart()
    village.attach(1_000)
    again = await village.rented()
    assert again != lease
    assert len(village.home.node.tenant.state.channels) == 1


# -- lies ----------------------------------------------------------------------------------------------
class Twice(TollHost):
    def count(self, lease: LeaseId) -> tuple[int, int]:
        into, out = super().count(lease)
        return 2 * into, 2 * out


class Anothers(TollHost):
    """States what somebody else had, too."""

    def count(self, lease: LeaseId) -> tuple[int, int]:
        own = super().count(lease)
        others = [x for x in self.places if x != lease]
        into, out = super().count(others[0]) if others else (0, 0)
        return own[0] + into, own[1] + out


async def caught(village: Village, lease: LeaseId, honest_mib: int) -> None:
    """Nothing is paid beyond the allowance, the relay is left, and who did it is not asked again."""
    await until(lambda: village.home.rented(lease).dispute is not None)
    assert village.home.rented(lease).dispute.code == "statement.impossible"
    await until(lambda: village.home.rented(lease).is_over)
    assert village.home.paying.paid <= honest_mib + 64
    assert village.link.relays == []
    await asyncio.sleep(30)
    assert village.paid.state.lease is None
    assert village.paid.trouble is not None
    assert village.paid.trouble.code == "relay.none-fits"


async def test_a_relay_that_counts_twice(bare: Village) -> None:
    village = await bare.build(tolls=Twice)
    lease = await village.rented()
    await village.chat(mib=20, seconds=10)
    await caught(village, lease, 200)


async def test_a_relay_that_states_another_key_s_bytes(bare: Village) -> None:
    village = await bare.build(tolls=Anothers)
    lease = await village.rented()
    other = await bare.world.tenant(4)
    async with asyncio.TaskGroup() as tasks:
        renting = tasks.create_task(rent(other))
        await funded_by_mining(bare.world, renting)
    for _ in range(10):
        village.carry(1)
        village.relay.carry(STRANGER, other.keys.node, 20 * MIB)
        await asyncio.sleep(1)
    await caught(village, lease, 10)


async def rent(who: Peer) -> LeaseId:
    from dockage.daemon.wishes import Wishes

    rents = who.node.renting
    offers = await rents.fitting(INGRESS, Wishes(), lambda _: None, service="relay")
    lease = LeaseId(b"another's lease!")
    candidates = tuple([await rents.candidate(x, INGRESS, Wishes()) for x in offers])
    return (await rents.rent(lease, NAME, INGRESS, candidates, lambda _: None, service="relay")).id


async def test_a_relay_that_takes_money_and_drops(village: Village) -> None:
    lease = await village.rented()
    village.relay.drops = True
    for _ in range(60):
        village.relay.carry(village.home.keys.node, STRANGER, MIB)
        await asyncio.sleep(1)
    mine = village.home.rented(lease)
    assert (mine.is_over, mine.reason.code) == (True, "relay.deaf")
    assert village.home.paying.paid <= 20, "what was sent in a quarter of a minute"
    assert village.link.relays == []


async def test_one_that_does_not_pay_is_cut_off_and_told(village: Village) -> None:
    """A statement that is not paid freezes the lease: a client that goes on after its credit gets nothing through."""
    lease = await village.rented()
    village.home.node.rail.pay = lambda *_: b"\0" * 64  # type: ignore[union-attr, method-assign]
    for _ in range(40):
        village.carry(20)
        await asyncio.sleep(1)
        if village.seller.sold(lease).state == "paused":
            break
    assert not village.carry(1)
    assert village.relay.tolls is not None
    assert "frozen" in village.relay.tolls.objection(village.home.keys.node)
    await until(lambda: village.seller.sold(lease).is_over)
    assert "no lease" in village.relay.tolls.objection(village.home.keys.node)
    assert village.seller.sold(lease).due - village.seller.earning.paid * 1000 < 400_000


async def test_when_the_payer_leaves_the_relay_passes_nothing_on(village: Village) -> None:
    lease = await village.rented()
    await village.home.node.tenant.tell(told.EndRequested(lease, told.Reason("test", "test")))
    await until(lambda: village.seller.sold(lease).is_over)
    assert not village.carry(1)


async def test_a_row_of_relays_that_take_a_channel_each_and_carry_nothing(bare: Village) -> None:
    """Each channel costs its payer the chain's fees, and what its relay wants of the funding: all of them together may
    cost what one may."""
    village = await bare.build(budget=400)
    beside = TollHost("run", "x86_64")
    await bare.world.provider(3, replace(POLICY, tariff=PRICE, capacity=ROOM, relay_port=PORT), tolls=beside)
    await village.rented()
    village.relay.drops = True
    for _ in range(60):
        village.relay.carry(village.home.keys.node, STRANGER, MIB)
        await asyncio.sleep(1)
    assert village.paid.trouble is not None
    assert village.paid.trouble.code == "relay.channel-cost"
    funded = [x for x in village.home.node.tenant.state.channels.values() if x.txid]
    assert len(funded) == 1
