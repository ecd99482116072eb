"""A notice board in memory, and the contract that it and the real market both keep."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import pytest

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Wish
from dockage.domain.pricing import PRESETS
from dockage.domain.query import Excerpt, Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MINUTE, SECOND, Duration, Instant
from dockage.ports.machine import Clock
from dockage.ports.peers import Directory
from dockage.protocol.dht_messages import PAGE_BYTES
from dockage.protocol.record_store import RecordStore
from dockage.protocol.records import LIFETIME, SHARDS, OfferBody, node_topic, offers_topic, open_record, seal
from dockage.protocol.selecting import live, select
from dockage.protocol.signed import Verify

from .clock import ManualClock
from .keys import MemoryKeys, verify


class MemoryDirectory:
    """A Directory; all users of one object see one board."""

    def __init__(self, verify: Verify, clock: Clock) -> None:
        self._store, self._clock = RecordStore(verify), clock

    async def publish(self, topic: bytes, record: bytes) -> int:
        try:
            return int(self._store.put(topic, record, self._clock.now()))
        except PeerError as error:
            raise UsageError(error.code, f"cannot publish: {error.message}") from None

    async def search(self, topic: bytes) -> Sequence[bytes]:
        return self._store.page(topic, b"", frozenset(), self._clock.now(), 1 << 30).records

    async def select(self, topic: bytes, query: Query) -> Excerpt:
        page = select(live(self._store.under(topic), self._clock.now()), query, PAGE_BYTES)
        return Excerpt(page.records, page.last if page.more else None, page.fitting, page.known)


# -- records to publish --------------------------------------------------------------------------------
def offer_of(keys: MemoryKeys, region: str = "eu", cpu: int = 4000) -> Offer:
    return Offer(
        provider=keys.node,
        free=Resources(cpu, 8 * GIB, 100 * GIB),
        tariff=PRESETS["fair"],
        region=region,
        architecture="x86_64",
        network="regtest",
    )


def sealed_offer(
    keys: MemoryKeys,
    now: Instant,
    region: str = "eu",
    cpu: int = 4000,
    lifetime: Duration = LIFETIME,
    work: int = 0,
) -> tuple[bytes, bytes]:
    """(topic, record) of an offer sealed at *now*."""
    body = OfferBody(now, Instant(now + lifetime), offer_of(keys, region, cpu), "", ("127.0.0.1:4711",))
    blob = seal("offer", keys.node, body, keys.sign, work)
    return open_record(blob, verify, now).topic, blob


# -- the contract --------------------------------------------------------------------------------------
class Market(NamedTuple):
    """Nodes of one market, and the clock they all read."""

    nodes: Sequence[Directory]
    clock: ManualClock


class DirectoryContract:
    """Subclass with a fixture ``market``."""

    async def test_what_one_publishes_another_finds(self, market: Market) -> None:
        topic, blob = sealed_offer(MemoryKeys(100), market.clock.now())
        assert await market.nodes[0].publish(topic, blob) >= 1
        assert list(await market.nodes[-1].search(topic)) == [blob]

    async def test_an_unknown_topic_is_empty(self, market: Market) -> None:
        assert list(await market.nodes[-1].search(node_topic(MemoryKeys(101).node))) == []

    async def test_the_newest_record_of_a_publisher_wins_in_any_order(self, market: Market) -> None:
        keys, now = MemoryKeys(102), market.clock.now()
        topic, old = sealed_offer(keys, now, cpu=1000)
        _, new = sealed_offer(keys, Instant(now + SECOND), cpu=2000)
        await market.nodes[0].publish(topic, new)
        await market.nodes[-1].publish(topic, new)
        for node in market.nodes[:2]:
            with suppress(Unavailable):  # a replay: whether nobody takes it or some do, it has no effect
                await node.publish(topic, old)
        assert list(await market.nodes[-1].search(topic)) == [new]

    async def test_every_publisher_of_a_topic_is_listed(self, market: Market) -> None:
        now = market.clock.now()
        expected: dict[bytes, set[bytes]] = {}
        for number in range(200, 230):
            topic, blob = sealed_offer(MemoryKeys(number), now, region="crowd")
            expected.setdefault(topic, set()).add(blob)
            await market.nodes[number % len(market.nodes)].publish(topic, blob)
        for topic, blobs in expected.items():
            assert set(await market.nodes[0].search(topic)) == blobs

    async def test_a_record_whose_time_is_over_is_gone(self, market: Market) -> None:
        topic, blob = sealed_offer(MemoryKeys(103), market.clock.now(), lifetime=MINUTE)
        await market.nodes[0].publish(topic, blob)
        market.clock.pass_(Duration(MINUTE + SECOND))
        assert list(await market.nodes[-1].search(topic)) == []

    async def test_a_forged_record_is_not_published(self, market: Market) -> None:
        topic, blob = sealed_offer(MemoryKeys(104), market.clock.now())
        forged = blob.replace(b"x86_64", b"x86_65")
        with pytest.raises(UsageError) as caught:
            await market.nodes[0].publish(topic, forged)
        assert caught.value.code == "record.signature"
        assert list(await market.nodes[-1].search(topic)) == []

    async def test_a_record_under_a_foreign_topic_is_not_published(self, market: Market) -> None:
        _, blob = sealed_offer(MemoryKeys(105), market.clock.now())
        with pytest.raises(UsageError) as caught:
            await market.nodes[0].publish(node_topic(MemoryKeys(105).node), blob)
        assert caught.value.code == "record.misplaced"

    async def test_the_best_of_a_topic_are_selected(self, market: Market) -> None:
        now, topic, found = market.clock.now(), offers_topic("pick", 0), dict[int, bytes]()
        sellers = (keys for number in range(300, 400) if (keys := MemoryKeys(number)).node[0] % SHARDS == 0)
        for cpu, keys in zip(range(500, 4000, 500), sellers, strict=False):
            _, found[cpu] = sealed_offer(keys, now, "pick", cpu)
            await market.nodes[cpu % len(market.nodes)].publish(topic, found[cpu])
        wish = Wish(NodeKey(bytes(32)), Resources(2000, GIB, GIB), network="regtest")
        excerpt = await market.nodes[-1].select(topic, Query(wish))
        assert set(excerpt.records) == {found[cpu] for cpu in (2000, 2500, 3000, 3500)}
        assert excerpt.reach is None
        assert len((await market.nodes[0].select(topic, Query(wish, most=2))).records) >= 2
