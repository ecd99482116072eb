"""A searcher among indexes some of which lie together: the real ``Indexes``, ``Queries`` and ``Market`` on a board in
memory. Only the bytes between searcher and index do not travel. For ``test_misled.py`` and ``benchmarks/misled.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from dockage.daemon.indexes import Indexes
from dockage.daemon.market import Market
from dockage.daemon.queries import SETTLED, Queries
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish
from dockage.domain.pricing import PRESETS, scaled
from dockage.domain.query import Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, SECOND, Instant
from dockage.protocol.index_messages import Answer, Ask, Request, Taken
from dockage.protocol.order_book import page
from dockage.protocol.records import (
    LIFETIME,
    SHARDS,
    IndexBody,
    OfferBody,
    Record,
    indexes_topic,
    offers_topic,
    open_record,
    seal,
)
from dockage.testing.clock import ManualClock
from dockage.testing.directory import MemoryDirectory, offer_of
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork

REGION = "eu"
BEST = 64
WISH = Wish(NodeKey(bytes(32)), Resources(1000, 512 * MIB, GIB), REGION, network="regtest")

Lie = Callable[["Site", list[Record]], list[Record]]
"""Which records an index ranks, of all that it holds."""


def honest(_: Site, held: list[Record]) -> list[Record]:
    return held


def hides(share: float) -> Lie:
    """The same ones whoever of the gang is asked: what one leaves out the other does not show."""
    return lambda _, held: [record for record in held if record.key[5] >= share * 256]


def favours_its_own(site: Site, held: list[Record]) -> list[Record]:
    """The dearest 64 are its own; of others it shows none that is cheaper."""
    return [record for record in held if record.key in site.dear]


def shows_the_past(site: Site, held: list[Record]) -> list[Record]:
    """What was offered before half of the market changed its mind."""
    return [site.past.get(record.key, record) for record in held]


class Outcome(NamedTuple):
    first: float
    """Of the best 64, as they are now, so many are in the answer to a new searcher's first question; the mean."""
    last: float
    """To its last."""
    least: float
    """In the worst of all first answers."""


class Site:
    """*count* offers at as many prices on a board, of which half were sealed anew; three indexes."""

    def __init__(self, count: int) -> None:
        self.clock, self._network = ManualClock(), MemoryNetwork()
        self.board, self._keys = MemoryDirectory(self._trusting, self.clock), MemoryKeys(1)
        self.past: dict[NodeKey, Record] = {}
        self.held: list[Record] = []
        self.indexes = [MemoryKeys(number) for number in (2, 3, 4)]
        providers = [MemoryKeys(100 + number) for number in range(count)]
        self.dear = {each.node for each in providers[-BEST:]}
        old = [self._offer(each, number, 1 if number % 2 else 2) for number, each in enumerate(providers)]
        self.past = {record.key: record for record in old}
        self.clock.pass_(60 * SECOND)
        self.held = [self._offer(each, number, 2) for number, each in enumerate(providers)]
        self.best = {record.tag for record in self.held[:BEST]}
        self._publish()
        self.clock.pass_(SETTLED + SECOND)

    @staticmethod
    def _trusting(_key: NodeKey, _message: bytes, _signature: bytes) -> bool:
        """Forged ones are the business of test_indexes.py."""
        return True

    def _offer(self, keys: MemoryKeys, number: int, times: int) -> Record:
        now = self.clock.now()
        offer = replace(offer_of(keys, REGION), tariff=scaled(PRESETS["fair"], times * (1000 + number), 1000))
        where = (f"198.{number >> 8}.{number & 255}.1:4711",)
        body = OfferBody(now, Instant(now + LIFETIME), offer, "", where)
        return open_record(seal("offer", keys.node, body, lambda _: bytes(64)), self._trusting, now)

    def _publish(self) -> None:
        now = self.clock.now()
        for record in self.held:
            self.board._store.put(offers_topic(REGION, record.key[0] % SHARDS), record.blob, now)
        for each in self.indexes:
            body = IndexBody(now, Instant(now + LIFETIME), REGION, "", ("198.51.100.1:4711",))
            blob = seal("index", each.node, body, lambda _: bytes(64))
            self.board._store.put(indexes_topic(REGION), blob, now)

    def searcher(self, rand: Random, lies: Sequence[Lie]) -> Queries:
        told = {each.node: lie for each, lie in zip(self.indexes, lies, strict=True)}
        link = self._network.link(self._keys.node)
        keys = Trusting(1)
        market = Market(self.board, link, keys, self.clock, (REGION,))
        return Queries(market, Told(self, told, market, keys, rand), self.clock, rand)

    async def outcome(self, lies: Sequence[Lie], searchers: int, questions: int = 5) -> Outcome:
        rand, rows = Random(1), []
        for _ in range(searchers):
            queries = self.searcher(rand, lies)
            rows.append([await self._share(queries) for _ in range(questions)])
        first, last = [row[0] for row in rows], [row[-1] for row in rows]
        return Outcome(sum(first) / searchers, sum(last) / searchers, min(first))

    async def _share(self, queries: Queries) -> float:
        answer = await queries.ask(Query(WISH, most=BEST))
        now = {record.key: record for record in self.held}
        right = [x for x in answer.found if now[x.offer.provider].seq == x.seen]
        return sum(now[x.offer.provider].tag in self.best for x in right) / BEST


class Trusting(MemoryKeys):
    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        return True


class Told(Indexes):
    """What an index answers is its lie, on what there is."""

    def __init__(
        self, site: Site, lies: dict[NodeKey, Lie], market: Market, keys: MemoryKeys, rand: Random
    ) -> None:
        super().__init__(site.board, market._link, keys, site.clock, (), rand)
        self._site, self._lies = site, lies

    async def _exchange(self, index: NodeKey, request: Request) -> Answer:
        if not isinstance(request, Ask):
            return Taken((True,))
        return page(self._lies[index](self._site, self._site.held), request.query)
