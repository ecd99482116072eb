"""Prices that move, and tenants that pay nothing: what is quoted, and what a running lease goes on paying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from daemon.nodes import BUSY, CONFIG, POLICY, TEN_SAT_A_SECOND, World, rent_paid, until
from dockage.adapters.prices.fixed import ByUse
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.pricing import Tariff, scaled
from dockage.testing.keys import MemoryKeys

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


class Dial:
    """A price policy that a test turns."""

    def __init__(self) -> None:
        self.percent: int | None = 100

    async def tariff(self, base: Tariff, sold_permille: int) -> Tariff:
        if self.percent is None:
            raise Unavailable("price.rate", "the source is down")
        return scaled(base, self.percent, 100)


async def test_a_price_change_is_for_new_leases_only(world: World) -> None:
    dial = Dial()
    provider = await world.provider(prices=dial)
    tenant = await world.tenant()
    first = await rent_paid(world, tenant, "first")
    provider.host.start(first, "web", BUSY)
    dial.percent = 50
    await asyncio.sleep(20)
    second = await rent_paid(world, tenant, "second")
    assert tenant.rented(first).tariff == TEN_SAT_A_SECOND
    assert tenant.rented(second).tariff == scaled(TEN_SAT_A_SECOND, 1, 2)
    before = tenant.rented(first).due
    await asyncio.sleep(10)
    assert tenant.rented(first).due - before == pytest.approx(100_000, abs=11_000)
    assert not tenant.node.reception.refused
    assert tenant.rented(first).faults == 0


async def test_a_machine_that_fills_up_becomes_dearer(world: World) -> None:
    provider = await world.provider(prices=ByUse(50, 150))
    tenant = await world.tenant()
    await rent_paid(world, tenant, "first")  # 1 of 4 cores
    await asyncio.sleep(10)
    assert provider.node.provider is not None
    assert provider.node.provider.state.policy.tariff == scaled(TEN_SAT_A_SECOND, 75, 100)
    found = await tenant.node.market.search()
    assert [x.offer.tariff for x in found] == [scaled(TEN_SAT_A_SECOND, 75, 100)]


async def test_without_a_price_nothing_new_is_sold_and_what_runs_goes_on(world: World) -> None:
    dial = Dial()
    provider = await world.provider(prices=dial)
    tenant = await world.tenant()
    first = await rent_paid(world, tenant, "first")
    provider.host.start(first, "web", BUSY)
    dial.percent = None
    await asyncio.sleep(10)
    with pytest.raises(UsageError) as caught:
        await tenant.rent("second")
    assert caught.value.code == "market.nothing-fits"  # the offer was withdrawn meanwhile
    paid = tenant.paying.paid
    await until(lambda: tenant.paying.paid > paid + 20)
    dial.percent = 100
    await asyncio.sleep(10)
    await tenant.rent("second")


async def test_a_friend_pays_nothing_and_needs_no_wallet_while_others_pay(world: World) -> None:
    friend = MemoryKeys(7)
    policy = msgspec.structs.replace(POLICY, free_for=(friend.node,))
    provider = await world.provider(policy=policy)
    mine = world.peer(7, wallet=False, config=msgspec.structs.replace(CONFIG, bitcoin=type(CONFIG.bitcoin)()))
    mine.start()
    lease = await mine.rent()
    provider.host.start(lease, "web", BUSY)
    stranger = await world.tenant()
    other = await rent_paid(world, stranger)
    await until(lambda: mine.rented(lease).last is not None and mine.rented(lease).last.seq > 5)
    assert mine.rented(lease).tariff.is_free
    assert mine.rented(lease).due == 0
    assert mine.rented(lease).last.usage.cpu_ns > 0
    assert stranger.rented(other).tariff == TEN_SAT_A_SECOND
