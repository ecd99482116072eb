"""Asking the market: indexes where there are any, the holders of the board where there are none or where one lied.

An index can lie in two ways that no signature shows: by leaving out, and by showing an older offer. So at most two are
asked at once, their answers are merged by the newest seal, and one shard of the board, chosen by chance, is read beside
them, another where the two contradict each other. Who does not show what stood there for minutes is asked no more, and
if nobody is left, the board is read whole.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish, hourly_ceilings
from dockage.domain.query import MOST_MAX, Query, Rank, network_of, pick, rank_of
from dockage.domain.units import MINUTE, Duration, Instant
from dockage.ports.machine import Clock
from dockage.protocol.records import SHARDS

from .indexes import Indexes, Reply
from .market import Chosen, Found, Market

SETTLED = Duration(2 * MINUTE)
"""An index has read a record of this age from the board, or was told of it."""
AUDIT_SEC = 1.0
"""For the shard that is read beside an index: a slow board does not hold an answer up."""

PAGE_MIN = 8
SELECTED_MAX = 1024
"""Who wants more offers than this reads the board whole."""
ROUNDS_MAX = 4
"""Of questions to the holders: by then the best of each part are all known, or somebody plays with us."""
FEW = 4
"""Keys, and with them offers, spread evenly over the parts: one with a quarter of the others' is being hidden."""
FEW_MIN = 16
"""Below that, chance explains it."""


class Answer(NamedTuple):
    found: tuple[Found, ...]
    """Best first; with ``near``, those that do not fit after the rest."""
    fitting: int
    known: int
    """Offers that were looked through, here or by an index."""
    indexes: tuple[NodeKey, ...]
    """Who was asked; empty: the board alone."""


class Queries:
    def __init__(self, market: Market, indexes: Indexes, clock: Clock, rand: Random) -> None:
        self.market, self._indexes, self._clock, self._rand = market, indexes, clock, rand

    async def ask(self, query: Query, most: int | None = None) -> Answer:
        """Up to *most* offers (as the query says, if not given). Raises Unavailable("market.unreachable")."""
        regions = (query.wish.region,) if query.wish.region else self.market.regions
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._either(query, name, most or query.most)) for name in regions]
        answers = [x for task in asked if not isinstance(x := task.result(), Unavailable)]
        if not answers:
            raise next(x for task in asked if isinstance(x := task.result(), Unavailable))
        found = _ranked(_newest(x for answer in answers for x in answer.found), query)
        return Answer(
            found[: most or query.most],
            sum(answer.fitting for answer in answers),
            sum(answer.known for answer in answers),
            tuple(index for answer in answers for index in answer.indexes),
        )

    async def _either(self, query: Query, region: str, most: int) -> Answer | Unavailable:
        """A failure is a value, so that the other regions' offers are still shown."""
        try:
            return await self._region(query, region, most)
        except Unavailable as error:
            return error

    async def _region(self, query: Query, region: str, most: int) -> Answer:
        here = replace(query, wish=replace(query.wish, region=region))
        indexes = await self._indexes.of(region)
        if not indexes:
            return await self._board(here, region, most)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(self._indexes.ask(index, here, most)) for index in indexes]
            auditing = tasks.create_task(self._shard(region, self._rand.randrange(1 << 16)))
            own = tasks.create_task(self.market.own())
        shard = auditing.result()
        replies = [x for task in asking if (x := task.result()) is not None and x.known]
        if disputed := self._disputed(replies, here):
            # any of its offers lies in the shard that its number says
            number = disputed[self._rand.randrange(1 << 16) % len(disputed)][0]
            shard = [*shard, *await self._shard(region, number)]
        honest = [reply for reply in replies if self._is_honest(reply, shard, here)]
        if not honest:
            return await self._board(here, region, most)
        found = [self.market.found(record) for reply in honest for record in reply.records]
        return Answer(
            _ranked(_with(own.result(), _newest([*found, *shard])), here),
            max(reply.fitting for reply in honest),
            max(reply.known for reply in honest),
            tuple(reply.by for reply in honest),
        )

    # -- the board -------------------------------------------------------------------------------------
    async def _board(self, query: Query, region: str, most: int) -> Answer:
        """Without indexes: each part's holders filter, where few offers are wanted."""
        if most > SELECTED_MAX:
            return _whole(await self.market.search(region), query)
        async with asyncio.TaskGroup() as tasks:
            own = tasks.create_task(self.market.own())
            selecting = tasks.create_task(self._select(query, region, most))
        mine, selected = own.result(), selecting.result()
        if isinstance(selected, Unavailable):
            if not mine:
                raise selected
            return _whole(mine, query)  # our user's machines need no market between them
        found, fitting, known = selected
        return Answer(_ranked(_with(mine, found), query), fitting, known, ())

    async def _select(
        self, query: Query, region: str, most: int
    ) -> tuple[list[Found], int, int] | Unavailable:
        """A few of each part, and more of those parts only whose best go beyond what is wanted. If no part answers,
        that is a value: a failure of the market, not of the task beside others."""
        page = replace(query, most=min(MOST_MAX, max(PAGE_MIN, 2 * most // SHARDS)))
        chosen, failures = await self._parts(region, dict.fromkeys(range(SHARDS), page))
        if not chosen:
            return failures[0]
        found = await self._unhidden(region, chosen, page)
        first = list(chosen.values())
        for _ in range(ROUNDS_MAX - 1):
            reaches = {part: x.reach for part, x in chosen.items() if x.reach is not None}
            wanted = _ranks(_ranked(found, query)[:most], query.wish)
            open_ = {p: r for p, r in reaches.items() if len(wanted) < most or r < wanted[-1]}
            if not open_:
                break
            chosen, _ = await self._parts(region, {p: replace(page, after=r) for p, r in open_.items()})
            found = _newest([*found, *(x for each in chosen.values() for x in each.found)])
        return found, sum(x.fitting for x in first), sum(x.known for x in first)

    async def _parts(
        self, region: str, questions: Mapping[int, Query]
    ) -> tuple[dict[int, Chosen], list[Unavailable]]:
        async with asyncio.TaskGroup() as tasks:
            asking = {p: tasks.create_task(self.market.select(region, p, q)) for p, q in questions.items()}
        answers = {part: task.result() for part, task in asking.items()}
        good = {part: x for part, x in answers.items() if isinstance(x, Chosen)}
        return good, [x for x in answers.values() if isinstance(x, Unavailable)]

    async def _unhidden(self, region: str, chosen: Mapping[int, Chosen], query: Query) -> list[Found]:
        """What the holders showed; parts of which they show suspiciously little are read whole."""
        usual = statistics.median(x.known for x in chosen.values())
        few = [part for part, x in chosen.items() if usual >= FEW_MIN and FEW * x.known < usual]
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(self.market.shard(region, part)) for part in few]
        read = [x for task in reading for x in task.result()]
        return _newest([*_ranked(read, query), *(x for each in chosen.values() for x in each.found)])

    # -- lies by leaving out ---------------------------------------------------------------------------
    async def _shard(self, region: str, number: int) -> Sequence[Found]:
        try:
            async with asyncio.timeout(AUDIT_SEC):
                return await self.market.shard(region, number)
        except TimeoutError:
            return ()

    def _disputed(self, replies: Sequence[Reply], query: Query) -> list[NodeKey]:
        """Whose offers one index shows and another does not: one of the two lies."""
        shows = [[self.market.found(record) for record in reply.records] for reply in replies]
        lacking = (self._lacks(reply, shown, query) for reply in replies for shown in shows if shown)
        return [found.offer.provider for each in lacking for found in each]

    def _is_honest(self, reply: Reply, shard: Sequence[Found], query: Query) -> bool:
        lacking = self._lacks(reply, shard, query)
        if lacking:
            shown = {record.key for record in reply.records}
            is_old = lacking[0].offer.provider in shown
            self._indexes.blame(reply.by, "index.stale" if is_old else "index.hides")
        return not lacking

    def _lacks(self, reply: Reply, offers: Sequence[Found], query: Query) -> list[Found]:
        """Which of *offers*, known for minutes, an honest index would have shown in *reply*, or shown instead."""
        shown = {record.key: record.seq for record in reply.records}
        reach = max(_ranks(map(self.market.found, reply.records), query.wish), default=None)
        reach = None if reply.is_whole else reach  # whoever says that there is more, and shows none, hides it
        full = _full(reply, query)
        settled = Instant(self._clock.now() - SETTLED)

        def is_lacking(found: Found, rank: Rank) -> bool:
            seq = shown.get(found.offer.provider)
            return _is_due(rank, reach, found, query, full) if seq is None else seq < found.seen

        ranks = _ranks(offers, query.wish)
        return [x for x, rank in zip(offers, ranks, strict=True) if x.seen <= settled and is_lacking(x, rank)]


def _full(reply: Reply, query: Query) -> frozenset[str]:
    """Networks that no (further) offer of is due: those that the asker has, or of which the reply shows enough."""
    shown = Counter(network_of(record.body.direct, record.body.relay) for record in reply.records)
    enough = (net for net, count in shown.items() if net and query.per_net and count >= query.per_net)
    return frozenset((*query.avoid_nets, *enough))


def _is_due(rank: Rank, reach: Rank | None, found: Found, query: Query, full: frozenset[str]) -> bool:
    """Whether an honest answer that reaches as far as *reach* shows it."""
    if found.offer.provider in query.avoid or _net(found) in full:
        return False
    return (query.near or not rank.misfits) and (reach is None or rank < reach)


def _whole(everything: Sequence[Found], query: Query) -> Answer:
    """Filtered here."""
    fitting = sum(not rank.misfits for rank in _ranks(everything, query.wish))
    return Answer(_ranked(everything, query), fitting, len(everything), ())


def _ranks(found: Iterable[Found], wish: Wish) -> list[Rank]:
    price_of = hourly_ceilings(wish.limits)
    return [rank_of(x.offer, wish, price_of) for x in found]


def _ranked(found: Sequence[Found], query: Query) -> tuple[Found, ...]:
    all_ = replace(query, most=max(1, len(found)))
    picked = pick([x.offer for x in found], all_, lambda number: _net(found[number]))
    return tuple(found[number] for number, _ in picked.chosen)


def _net(found: Found) -> str:
    return network_of(found.address.direct, found.address.relay)


def _with(own: Iterable[Found], others: Iterable[Found]) -> list[Found]:
    """What our own machines tell us themselves counts before what is shown to everybody."""
    return list({x.offer.provider: x for x in (*others, *own)}.values())


def _newest(found: Iterable[Found]) -> list[Found]:
    """One of each provider: whoever shows an older one, the newer one counts."""
    best: dict[NodeKey, Found] = {}
    for one in found:
        held = best.get(one.offer.provider)
        if held is None or held.seen < one.seen:
            best[one.offer.provider] = one
    return list(best.values())
