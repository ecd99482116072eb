"""The indexes that we know, and what they say: found on the board or named in the config, never taken at their word.

Counterpart: ``indexing.py``. Each record of an answer is opened here, and must be what was asked for; who sends
anything else is not asked again for a while. What an index leaves out no signature shows: ``queries.py`` looks for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import msgspec
import structlog

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.domain.offer import hourly_ceilings
from dockage.domain.query import Query, Rank, rank_of
from dockage.domain.units import MINUTE, Duration, Instant, after
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Address, Directory, PeerLink, Stream
from dockage.protocol import streams
from dockage.protocol.index_messages import (
    ANSWER_MAX,
    Announce,
    Answer,
    Ask,
    Request,
    Selection,
    Taken,
    decode_answer,
    encode,
)
from dockage.protocol.records import IndexBody, Record, indexes_topic, open_record
from dockage.wire.ahead import Ahead, Headed
from dockage.wire.frames import frame, read_frame, write_frame

log = structlog.get_logger("dockage.indexes")

ASK_SEC = 3.0
"""One page of an index, dialling included."""
FIND_EVERY = 60.0
"""Seconds for which the board's list of indexes is remembered; offers never are."""
AVOID = Duration(10 * MINUTE)
"""An index that lied or did not answer."""
KNOWN_MAX = 64
ASKED = 2
"""Indexes that one question goes to: what one of them leaves out the other shows."""
TOLD = 8
"""Indexes that a provider tells its new offer."""
PAGES_MAX = 64
SKEW = frozenset({"record.expired", "record.horizon"})
"""Refusals that differing clocks explain."""


class Reply(NamedTuple):
    """What one index answered: only records that hold, best first."""

    by: NodeKey
    records: tuple[Record, ...]
    is_whole: bool
    """It says that nothing else fits."""
    fitting: int
    known: int


class Indexes:
    def __init__(
        self,
        directory: Directory,
        link: PeerLink,
        keys: Keys,
        clock: Clock,
        named: Sequence[tuple[NodeKey, Address]],
        rand: Random,
    ) -> None:
        """*named*: indexes from the config, asked before others."""
        self._directory, self._link, self._keys, self._clock = directory, link, keys, clock
        self._named, self._rand = [key for key, _ in named], rand
        for key, address in named:
            link.learn(key, address)
        self._found: dict[str, tuple[float, list[NodeKey]]] = {}
        self._avoided: dict[NodeKey, Instant] = {}
        self.refused: Counter[str] = Counter()
        """What indexes did wrong, by code."""

    # -- who there is ----------------------------------------------------------------------------------
    async def of(self, region: str, most: int = ASKED) -> list[NodeKey]:
        """Some indexes of *region*: those of the config first, then others in random order."""
        now = self._clock.now()
        others = list(await self._on_board(region))
        self._rand.shuffle(others)
        every = dict.fromkeys([*self._named, *others])
        return [x for x in every if x != self._keys.node and self._avoided.get(x, 0) <= now][:most]

    async def _on_board(self, region: str) -> list[NodeKey]:
        loop = asyncio.get_running_loop()
        until, known = self._found.get(region, (0.0, []))
        if loop.time() < until:
            return known
        try:
            blobs = await self._directory.search(indexes_topic(region))
        except Unavailable:
            return known
        found = [key for blob in blobs[:KNOWN_MAX] if (key := self._index(blob, region)) is not None]
        if len(self._found) >= KNOWN_MAX:
            self._found.clear()
        self._found[region] = (loop.time() + FIND_EVERY, found)
        return found

    def _index(self, blob: bytes, region: str) -> NodeKey | None:
        try:
            record = open_record(blob, self._keys.verify, self._clock.now())
        except PeerError:
            return None
        if not isinstance(record.body, IndexBody) or record.body.region != region:
            return None
        self._link.learn(record.key, Address(record.body.relay, record.body.direct))
        return record.key

    def blame(self, index: NodeKey, code: str) -> None:
        """Not asked for a while."""
        self.refused[code] += 1
        if len(self._avoided) >= 1024:
            self._avoided.clear()
        self._avoided[index] = after(self._clock.now(), AVOID)
        log.info("index.avoided", index=short(index), code=code)

    # -- asking ----------------------------------------------------------------------------------------
    async def ask(self, index: NodeKey, query: Query, most: int) -> Reply | None:
        """Up to *most* records, page by page. None: no answer, or a wrong one; the index is not asked again soon."""
        try:
            answer, records = await self._pages(index, query, most)
        except PeerError as error:
            self.blame(index, error.code)
            return None
        except (Unavailable, TimeoutError):
            self.blame(index, "index.silent")
            return None
        return Reply(index, tuple(records[:most]), not answer.more, answer.fitting, answer.known)

    async def _pages(self, index: NodeKey, query: Query, most: int) -> tuple[Selection, list[Record]]:
        """The last answer, and the records of all."""
        answer = await self._page(index, query)
        records = self._open(answer, query)
        for _ in range(PAGES_MAX):
            if not answer.more or answer.last is None or len(records) >= most:
                break
            query = _next(query, answer.last)
            answer = await self._page(index, query)
            records += self._open(answer, query)
        return answer, records

    async def _page(self, index: NodeKey, query: Query) -> Selection:
        answer = await self._exchange(index, Ask(query))
        if not isinstance(answer, Selection):
            raise PeerError("index.out-of-turn", "an index answered another question")
        if len(answer.records) > query.most:
            raise PeerError("index.unasked", "an index sent more offers than were asked for")
        return answer

    def _open(self, answer: Selection, query: Query) -> list[Record]:
        """Raises PeerError for what no honest index would send."""
        found = []
        price_of = hourly_ceilings(query.wish.limits)
        for blob in answer.records:
            try:
                record = open_record(blob, self._keys.verify, self._clock.now())
            except PeerError as error:
                if error.code in SKEW:
                    continue
                raise
            if record.kind != "offer" or not _is_wanted(
                rank_of(record.body.offer, query.wish, price_of), query
            ):
                raise PeerError("index.unasked", "an index sent what was not asked for")
            found.append(record)
        return found

    async def announce(self, region: str, blob: bytes) -> int:
        """Tell some indexes what we have put on the board; they would read it there half a minute later. Returns how
        many took it."""
        indexes = await self.of(region, TOLD)
        async with asyncio.TaskGroup() as tasks:
            told = [tasks.create_task(self._tell(index, blob)) for index in indexes]
        return sum(task.result() for task in told)

    async def _tell(self, index: NodeKey, blob: bytes) -> bool:
        try:
            answer = await self._exchange(index, Announce((blob,)))
        except (PeerError, Unavailable, TimeoutError):
            return False
        return answer == Taken((True,))

    async def _exchange(self, index: NodeKey, request: Request) -> Answer:
        async with asyncio.timeout(ASK_SEC):
            stream = await self._open_stream(index)
            try:
                await write_frame(stream, encode(request))
                await stream.finish()
                return decode_answer(await read_frame(Ahead(stream), ANSWER_MAX))
            finally:
                stream.abort()

    async def _open_stream(self, index: NodeKey) -> Stream:
        return Headed(await self._link.open(index, ASK_SEC), _HEADER)


_HEADER = frame(streams.encode_header(streams.Index()))


def _is_wanted(rank: Rank, query: Query) -> bool:
    return (query.near or not rank.misfits) and (query.after is None or rank > query.after)


def _next(query: Query, last: Rank) -> Query:
    if query.after is not None and last <= query.after:
        raise PeerError("index.stuck", "an index gave the same page again")
    return msgspec.structs.replace(query, after=last)
