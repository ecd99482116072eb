"""How soon a searcher sees a new, a changed and a withdrawn offer; on a board in memory and on real market nodes.

Virtual time: what is measured is the waiting of our own code, which is what could make an offer stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from daemon.nodes import FREE_POLICY, World, until
from dockage.daemon.market import CHANGE_EVERY, LOOK_EVERY, Market, Notice
from dockage.domain.identity import NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Offer
from dockage.domain.reason import Reason
from dockage.domain.units import GIB, MINUTE, after
from dockage.node import events as told
from dockage.protocol.records import LIFETIME, offers_topics
from dockage.testing.directory import offer_of
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork
from dockage.testing.loop import LoopClock
from market.world import MarketNode, enter, running

SOON = 3.0
"""Seconds within which a change must be seen."""


class Board:
    """Five market nodes, a provider that publishes through one and a searcher at another."""

    def __init__(self) -> None:
        network, self.clock = MemoryNetwork(), LoopClock()
        keys = [MemoryKeys(number) for number in range(7)]
        self.nodes = [
            MarketNode(k, network.link(k.node), self.clock, server=number < 5)
            for number, k in enumerate(keys)
        ]
        seller, buyer = self.nodes[5], self.nodes[6]
        self.offer: Offer | None = offer_of(seller.keys)
        self.notice = Notice(
            seller.directory, seller.link, seller.keys, self.clock, lambda: self.offer, work=0
        )
        self.market = Market(buyer.directory, buyer.link, buyer.keys, self.clock, ("eu",))

    @property
    def provider(self) -> NodeKey:
        return self.nodes[5].keys.node

    async def shown(self) -> list[Offer]:
        return [x.offer for x in await self.market.search()]

    async def seen(self, is_so: Callable[[list[Offer]], bool]) -> float:
        """How long it took until a search showed it."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not is_so(await self.shown()):
            assert loop.time() - begun < SOON, await self.shown()
            await asyncio.sleep(0.5)
        return loop.time() - begun


@asynccontextmanager
async def opened() -> AsyncIterator[Board]:
    board = Board()
    async with running(board.nodes), asyncio.TaskGroup() as tasks:
        await enter(board.nodes, board.nodes[:1])
        keeping = tasks.create_task(board.notice.keep_up())
        yield board
        keeping.cancel()


async def test_a_new_a_changed_and_a_withdrawn_offer_are_seen_soon() -> None:
    async with opened() as board:
        assert await board.seen(lambda offers: len(offers) == 1) < SOON
        for cores in (
            1000,
            2000,
            3000,
        ):  # three in a row: the second waits for its turn, and is not forgotten
            board.offer = offer_of(board.nodes[5].keys, cpu=cores)
            await board.seen(lambda offers, n=cores: [x.free.cpu_milli for x in offers] == [n])  # type: ignore[misc]
        board.offer = None
        await board.seen(lambda offers: offers == [])
        board.offer = offer_of(board.nodes[5].keys)
        await board.seen(lambda offers: len(offers) == 1)


async def test_holders_that_missed_the_withdrawal_do_not_bring_the_offer_back() -> None:
    async with opened() as board:
        await board.seen(lambda offers: len(offers) == 1)
        topic = next(t for t in offers_topics("eu") if board.nodes[0].directory.holds(t))
        [old] = board.nodes[0].directory.holds(topic)
        board.offer = None
        await board.seen(lambda offers: offers == [])
        for node in board.nodes[:2]:
            node.directory._node.store._drop(topic, board.provider)
            assert node.directory._node.store.put(topic, old, board.clock.now())
        assert await board.shown() == []


async def test_an_offer_that_moves_to_another_region_leaves_the_old_one() -> None:
    async with opened() as board:
        await board.seen(lambda offers: len(offers) == 1)
        board.offer = offer_of(board.nodes[5].keys, region="us")
        await board.seen(lambda offers: offers == [])
        assert len(await board.market.search("us")) == 1


async def test_a_withdrawn_offer_stays_away_when_its_lifetime_is_over() -> None:
    async with opened() as board:
        await board.seen(lambda offers: len(offers) == 1)
        board.offer = None
        await asyncio.sleep(LIFETIME / 1e9 + 60)
        assert await board.shown() == []


async def test_an_unchanged_offer_outlives_its_lifetime() -> None:
    async with opened() as board:
        await asyncio.sleep(1.2 * LIFETIME / 1e9)
        assert len(await board.shown()) == 1


async def test_who_stops_takes_the_offer_along() -> None:
    async with opened() as board:
        await board.seen(lambda offers: len(offers) == 1)
        await board.notice.leave()
        assert await board.shown() == []
        assert board.notice.stored_at == 0


# -- whole nodes -------------------------------------------------------------------------------------
@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def test_a_lease_changes_what_is_shown_free_and_a_drain_takes_it_down(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    assert tenant.rented(lease).state is LeaseState.RUNNING
    await asyncio.sleep(CHANGE_EVERY + 2 * LOOK_EVERY)
    [found] = await tenant.node.market.search()
    assert found.offer.free.memory_bytes == 4 * GIB - GIB // 2
    assert provider.node.provider is not None
    hour = after(world.clock.now(), MINUTE)
    await provider.node.provider.tell(told.DrainRequested(hour, Reason("provider.draining", "moving")))
    await asyncio.sleep(CHANGE_EVERY + 2 * LOOK_EVERY)
    assert await tenant.node.market.search() == ()
    await provider.node.provider.tell(told.DrainCancelled())
    await asyncio.sleep(CHANGE_EVERY + 2 * LOOK_EVERY)
    [found] = await tenant.node.market.search()
    assert await until(lambda: provider.node.notice and provider.node.notice.stored_at) is None
