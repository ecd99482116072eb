"""The notice board of one node: opened records by topic, bounded in every direction.

One record per publisher and topic; the highest ``seq`` wins, so replaying an older one changes nothing. Whoever gives
us records has a share of the room and no more. On a board that fills up a newcomer must show some work, and when there
is no room, work decides: a flood must outwork those whom it wants to displace. A reader collects the answers of many
nodes in one of these too: the same checks, the same bounds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Set
from typing import NamedTuple

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import Instant

from .records import Record, check_place, open_record
from .signed import Verify


class StoreLimits(NamedTuple):
    per_topic: int = 4096
    total: int = 32_768
    """At most 64 MiB, at some 450 bytes an offer about 15."""
    share: int = 8
    """One giver fills at most this fraction of a topic, and of all: 1/8."""
    floor: int = 12
    """Bits of work that a newcomer must show once a topic, or all, is half full."""


DEFAULT = StoreLimits()
READING = StoreLimits(floor=0)
OURS = b""
"""The giver of what we put ourselves: no share binds it."""


class Page(NamedTuple):
    records: tuple[bytes, ...]
    more: bool
    """There are records with a key beyond the last one of this page."""
    last: bytes
    """Where the next page begins: pass it as ``after``."""


class RecordStore:
    def __init__(self, verify: Verify, limits: StoreLimits = DEFAULT) -> None:
        self._verify, self._limits = verify, limits
        self._topics: dict[bytes, dict[NodeKey, Record]] = {}
        self._cheapest: list[tuple[int, Instant, bytes, NodeKey]] = []
        """A heap over all records; entries of records that were replaced since are skipped when met."""
        self._total = 0
        self._givers: dict[tuple[bytes, NodeKey], bytes] = {}
        self._given: Counter[tuple[bytes, bytes]] = Counter()
        """Records held for each (giver, topic), and under the topic b"" for each giver in all."""

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Record]:
        return (record for held in self._topics.values() for record in held.values())

    def topics(self) -> list[bytes]:
        return list(self._topics)

    def put(self, topic: bytes, blob: bytes, now: Instant, giver: bytes = OURS) -> bool:
        """Whether the record is held now. False: a newer one is, or there is no room. *giver* is the network, or the
        key, that a peer gives it from. Raises PeerError("record.*")."""
        record = open_record(blob, self._verify, now)
        check_place(record, topic)
        return self.admit(record, giver)

    def admit(self, record: Record, giver: bytes = OURS) -> bool:
        """The same for a record that was opened already."""
        topic = record.topic
        held = self._topics.get(topic, {})
        old = held.get(record.key)
        if old is not None and (old.seq, old.work) >= (record.seq, record.work):
            return old.seq == record.seq and old.body == record.body
        if old is None:
            self._check_share(topic, giver)
            self._check_work(record, len(held))
            if not self._make_room(topic, record):
                return False
            self._count(record, giver)
        self._hold(record)
        return True

    def under(self, topic: bytes) -> Collection[Record]:
        """All that is held, expired ones too."""
        return self._topics.get(topic, {}).values()

    def page(self, topic: bytes, after: bytes, known: Set[bytes], now: Instant, budget: int) -> Page:
        """Live records with a key greater than *after*, in order of key, up to *budget* bytes; those whose
        ``tag`` is in *known* are left out."""
        found: list[bytes] = []
        size, last = 0, after
        held = self._topics.get(topic, {})
        for key in sorted(key for key in held if key > after):
            record = held[key]
            if record.expires > now and record.tag not in known:
                size += len(record.blob)
                if size > budget and found:
                    return Page(tuple(found), True, last)
                found.append(record.blob)
            last = key
        return Page(tuple(found), False, last)

    def expire(self, now: Instant) -> int:
        """Drop what is over; returns how many."""
        gone = [(r.topic, r.key) for r in self if r.expires <= now]
        for topic, key in gone:
            self._drop(topic, key)
        self._cheapest = [_entry(record) for record in self]
        heapq.heapify(self._cheapest)
        return len(gone)

    # -- shares ----------------------------------------------------------------------------------------
    def _check_share(self, topic: bytes, giver: bytes) -> None:
        limits = self._limits
        is_full = self._given[giver, topic] >= max(1, limits.per_topic // limits.share)
        if giver and (is_full or self._given[giver, b""] >= max(1, limits.total // limits.share)):
            raise PeerError("record.share", "one network gives more records than its share of the board")

    def _check_work(self, record: Record, held: int) -> None:
        is_filling = 2 * held >= self._limits.per_topic or 2 * self._total >= self._limits.total
        if is_filling and record.work < self._limits.floor:
            raise PeerError(
                "record.weak",
                f"{record.work} bits of work; a board that fills up asks for {self._limits.floor}",
            )

    def _count(self, record: Record, giver: bytes) -> None:
        self._total += 1
        if giver:
            self._givers[record.topic, record.key] = giver
            self._given.update([(giver, record.topic), (giver, b"")])

    def _discount(self, topic: bytes, key: NodeKey) -> None:
        self._total -= 1
        giver = self._givers.pop((topic, key), OURS)
        for place in ((giver, topic), (giver, b"")) if giver else ():
            self._given[place] -= 1
            if not self._given[place]:
                del self._given[place]

    # -- room ------------------------------------------------------------------------------------------
    def _make_room(self, topic: bytes, record: Record) -> bool:
        held = self._topics.get(topic, {})
        if len(held) >= self._limits.per_topic:
            weakest = min(held.values(), key=_entry)
        elif self._total >= self._limits.total:
            weakest = self._weakest()
        else:
            return True
        if weakest.work >= record.work:
            return False
        self._drop(weakest.topic, weakest.key)
        return True

    def _weakest(self) -> Record:
        while True:
            entry = self._cheapest[0]
            record = self._topics.get(entry[2], {}).get(entry[3])
            if record is not None and _entry(record) == entry:
                return record
            heapq.heappop(self._cheapest)

    def _hold(self, record: Record) -> None:
        self._topics.setdefault(record.topic, {})[record.key] = record
        heapq.heappush(self._cheapest, _entry(record))
        if len(self._cheapest) > 2 * self._limits.total:
            self._cheapest = [_entry(each) for each in self]
            heapq.heapify(self._cheapest)

    def _drop(self, topic: bytes, key: NodeKey) -> None:
        held = self._topics[topic]
        del held[key]
        self._discount(topic, key)
        if not held:
            del self._topics[topic]


def _entry(record: Record) -> tuple[int, Instant, bytes, NodeKey]:
    """Least worth keeping first: little work, then soon over."""
    return record.work, record.expires, record.topic, record.key
