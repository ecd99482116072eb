"""Asking the holders of the board where there is no index: the best of all parts, and parts that are being hidden."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from daemon.nodes import NEED, Peer, World
from dockage.daemon.queries import SELECTED_MAX
from dockage.daemon.renting import PER_NET, silently
from dockage.daemon.wishes import Wishes
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish
from dockage.domain.pricing import PRESETS, scaled
from dockage.domain.query import Excerpt, Query
from dockage.domain.spread import Place, lines_of
from dockage.domain.units import Instant
from dockage.protocol.records import LIFETIME, SHARDS, OfferBody, offers_topic, seal
from dockage.testing.directory import offer_of
from dockage.testing.keys import MemoryKeys

COUNT = 256


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def crowded(world: World, region: str, address: str = "127.0.0.1:4711") -> list[NodeKey]:
    """Providers' keys, the cheapest first."""
    now, keys = world.clock.now(), [MemoryKeys(6000 + number) for number in range(COUNT)]
    for number, each in enumerate(keys):
        offer = replace(offer_of(each, region), tariff=scaled(PRESETS["fair"], 100 + number, 100))
        body = OfferBody(now, Instant(now + LIFETIME), offer, "", (address.format(number),))
        await world.board.publish(
            offers_topic(region, each.node[0] % SHARDS), seal("offer", each.node, body, each.sign)
        )
    return [each.node for each in keys]


async def ask(tenant: Peer, most: int) -> tuple[list[bytes], int]:
    wish = replace(Wish(tenant.keys.node, NEED), network="regtest")
    answer = await tenant.node.renting.queries.ask(Query(wish, most=min(most, 256)), most)
    return [x.offer.provider for x in answer.found], answer.known


@pytest.mark.parametrize("most", [1, 3, 64, COUNT, SELECTED_MAX + 1])
async def test_the_best_of_the_market_are_found_however_many_are_wanted(world: World, most: int) -> None:
    tenant = await world.tenant(coins=(), wallet=False)
    keys = await crowded(world, tenant.node.market.regions[0])
    assert await ask(tenant, most) == (keys[:most], COUNT)


async def test_a_part_of_which_the_holders_show_too_little_is_read_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await world.tenant(coins=(), wallet=False)
    region = tenant.node.market.regions[0]
    keys, true = await crowded(world, region), world.board.select

    async def hiding(topic: bytes, query: Query) -> Excerpt:
        if topic == offers_topic(region, keys[0][0] % SHARDS):
            return Excerpt((), None, 0, 0)
        return await true(topic, query)

    monkeypatch.setattr(world.board, "select", hiding)
    found, _ = await ask(tenant, 8)
    assert found == keys[:8]


async def test_who_floods_the_market_with_cheap_offers_of_one_network_is_not_all_that_is_seen(
    world: World,
) -> None:
    tenant = await world.tenant(coins=(), wallet=False)
    region = tenant.node.market.regions[0]
    await crowded(world, region, "198.41.0.{}:4711")
    now, other = world.clock.now(), MemoryKeys(9000)
    dear = replace(offer_of(other, region), tariff=scaled(PRESETS["fair"], 900, 100))
    body = OfferBody(now, Instant(now + LIFETIME), dear, "", ("198.41.1.1:4711",))
    topic = offers_topic(region, other.node[0] % SHARDS)
    await world.board.publish(topic, seal("offer", other.node, body, other.sign))

    seen = await tenant.node.renting.fitting(NEED, Wishes(), silently)
    assert other.node in [offer.provider for offer in seen]
    assert len(seen) == PER_NET + 1
    first = Place(seen[0].provider, lines_of(["198.41.0.1:4711"]))
    apart = await tenant.node.renting.fitting(NEED, Wishes(), silently, beside=[first])
    assert [offer.provider for offer in apart] == [other.node]
    left = await tenant.node.renting.fitting(NEED, Wishes(), silently, avoid=[seen[0].provider])
    assert seen[0].provider not in [offer.provider for offer in left]


async def test_our_own_machines_are_found_where_no_market_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await world.tenant(coins=(), wallet=False)
    market, now, ours = tenant.node.market, world.clock.now(), MemoryKeys(7000)
    body = OfferBody(now, Instant(now + LIFETIME), offer_of(ours, market.regions[0]), "", ("127.0.0.1:4711",))

    async def own() -> list[bytes]:
        return [seal("offer", ours.node, body, ours.sign)]

    async def silent(topic: bytes, query: Query) -> Excerpt:
        raise Unavailable("market.unreachable", "no market node answers")

    monkeypatch.setattr(world.board, "select", silent)
    with pytest.raises(Unavailable, match="no market node"):
        await ask(tenant, 10)
    monkeypatch.setattr(market, "_own", own)
    assert await ask(tenant, 10) == ([ours.node], 1)
