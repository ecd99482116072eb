"""What a node does in the market, each as a machine: walk, publish, search, hand over. Spec: docs/spec/03-dht.md.

A driver sends what ``next`` gives, reports each ``answered`` or ``failed``, and asks ``next`` again after each report
and after SOFT, until ``is_done``. Counterparts: adapters/dht/driving.py on real streams, sim/market in the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Duration, Instant

from .dht_messages import PUT_MAX, Answer, Find, Get, Listing, Put, Request, Taken
from .kademlia import ALPHA, Contact, Lookup
from .record_store import RecordStore
from .records import Record, tag

PAGES = 64
"""Of one peer's listing."""
PAGING = Duration(4 * SECOND)
"""All further pages of one peer."""
REPAIRED = 4
"""Listings of at most so many records are repaired: they are asked of everybody in full, so that gaps show."""
REPAIRS = 16
"""Holders that one search mends."""
SKEW = ("record.expired", "record.horizon")
"""Two honest clocks may differ on these: no reason to blame the holder."""

Blame = Callable[[NodeKey, str], None]


class Question(NamedTuple):
    contact: Contact
    request: Request
    part: int = 0
    """Which part of an operation asks."""


class Operation(Protocol):
    def next(self, now: Instant) -> Sequence[Question]: ...

    def answered(self, question: Question, answer: Answer, now: Instant) -> None: ...

    def failed(self, question: Question, now: Instant) -> None: ...

    def is_done(self, now: Instant) -> bool: ...


class Walk:
    """To the nodes closest to an id. *first* are asked whether or not they are close: to see whether they live."""

    def __init__(self, lookup: Lookup, request: Find, first: Iterable[Contact] = ()) -> None:
        self.lookup, self._request, self._first = lookup, request, list(first)

    def next(self, now: Instant) -> Sequence[Question]:
        first, self._first = self._first, []
        for contact in first:
            self.lookup.ask(contact, now)
        return [Question(contact, self._request) for contact in first + self.lookup.next(now)]

    def answered(self, question: Question, answer: Answer, now: Instant) -> None:
        if isinstance(answer, Listing):
            self.lookup.answered(question.contact.key, answer.contacts)

    def failed(self, question: Question, now: Instant) -> None:
        self.lookup.failed(question.contact.key)

    def is_done(self, now: Instant) -> bool:
        return self.lookup.is_done(now)


class Puts:
    """A row of puts, ALPHA under way at a time unless *width* says more."""

    def __init__(self, questions: Iterable[Question], width: int = ALPHA) -> None:
        self._left, self._width = iter(questions), width
        self._waiting, self._is_over = 0, False
        self.holders: set[NodeKey] = set()
        """Who took all that it was given."""

    def next(self, now: Instant) -> Sequence[Question]:
        found: list[Question] = []
        while self._waiting < self._width and not self._is_over:
            question = next(self._left, None)
            if question is None:
                self._is_over = True
            else:
                self._waiting += 1
                found.append(question)
        return found

    def answered(self, question: Question, answer: Answer, now: Instant) -> None:
        self._waiting -= 1
        if isinstance(answer, Taken) and answer.taken and all(answer.taken):
            self.holders.add(question.contact.key)

    def failed(self, question: Question, now: Instant) -> None:
        self._waiting -= 1

    def is_done(self, now: Instant) -> bool:
        return self._is_over and not self._waiting


class Publish:
    """Look all places up, then put the record at each."""

    PUTTING = -1

    def __init__(self, walks: Sequence[Walk], put: Put) -> None:
        self._walks, self._put = walks, put
        self._puts: Puts | None = None

    @property
    def holders(self) -> set[NodeKey]:
        return self._puts.holders if self._puts else set()

    def next(self, now: Instant) -> Sequence[Question]:
        if self._puts is None:
            walking = [q._replace(part=i) for i, walk in enumerate(self._walks) for q in walk.next(now)]
            if walking or not all(walk.is_done(now) for walk in self._walks):
                return walking
            near = {c.key: c for walk in self._walks for c in walk.lookup.closest()}
            self._puts = Puts(
                (Question(c, self._put, self.PUTTING) for c in near.values()), max(1, len(near))
            )
        return self._puts.next(now)

    def answered(self, question: Question, answer: Answer, now: Instant) -> None:
        self._part(question).answered(question, answer, now)

    def failed(self, question: Question, now: Instant) -> None:
        self._part(question).failed(question, now)

    def is_done(self, now: Instant) -> bool:
        return self._puts is not None and self._puts.is_done(now)

    def _part(self, question: Question) -> Walk | Puts:
        if question.part == self.PUTTING and self._puts is not None:
            return self._puts
        return self._walks[question.part]


class Search:
    """Look all *places* up, taking along the records under *topic* of every node on the way. *found* is a board of
    the reader's own: the same checks, the newest wins."""

    def __init__(
        self,
        topic: bytes,
        places: Mapping[bytes, Lookup],
        me: Contact | None,
        found: RecordStore,
        blame: Blame,
        wall: Instant,
    ) -> None:
        self._topic, self._me, self._blame, self._wall = topic, me, blame, wall
        self._places, self._lookups = list(places), list(places.values())
        self.found = found
        self._bad: set[bytes] = set()
        self._more: deque[Question] = deque()
        self._reading: dict[tuple[NodeKey, int], tuple[int, Instant]] = {}
        """Further pages under way: how many so far, and since when."""
        self._shown: dict[NodeKey, set[bytes]] = {}

    def next(self, now: Instant) -> Sequence[Question]:
        questions = list(self._more)
        self._more.clear()
        for part, lookup in enumerate(self._lookups):
            questions += [self._ask(contact, part, b"") for contact in lookup.next(now)]
        return questions

    def answered(self, question: Question, answer: Answer, now: Instant) -> None:
        if not isinstance(answer, Listing):
            return
        contact, part = question.contact, question.part
        if not self._after(question):
            self._lookups[part].answered(contact.key, answer.contacts)
        pages, since = self._reading.pop((contact.key, part), (0, now))
        is_honest = self._file(contact, answer.records)
        is_further = answer.last > self._after(question)
        if is_honest and answer.more and is_further and pages < PAGES and now - since < PAGING:
            self._reading[contact.key, part] = pages + 1, since
            self._more.append(self._ask(contact, part, answer.last))

    def failed(self, question: Question, now: Instant) -> None:
        self._reading.pop((question.contact.key, question.part), None)
        if not self._after(question):
            self._lookups[question.part].failed(question.contact.key)

    def is_done(self, now: Instant) -> bool:
        is_reading = any(now - since < PAGING for _, since in self._reading.values())
        return not is_reading and all(lookup.is_done(now) for lookup in self._lookups)

    @property
    def has_answers(self) -> bool:
        return bool(self._shown)

    @property
    def asked(self) -> int:
        """Nodes questioned, over all places."""
        return sum(lookup.questions for lookup in self._lookups)

    def repairs(self) -> list[Question]:
        """After the search: what those who should hold these records and did not show them are given."""
        records = {record.tag: record.blob for record in self.found}
        if not 0 < len(records) <= REPAIRED:
            return []
        near = {c.key: c for lookup in self._lookups for c in lookup.closest()}
        lacking = [
            (c, [b for t, b in records.items() if t not in self._shown[key]]) for key, c in near.items()
        ]
        puts = [Question(c, Put(self._me, self._topic, tuple(blobs))) for c, blobs in lacking if blobs]
        return puts[:REPAIRS]

    def _ask(self, contact: Contact, part: int, after: bytes) -> Question:
        many = len(self.found) > REPAIRED
        known = b"".join(record.tag for record in self.found) if many else b""
        return Question(contact, Get(self._me, self._places[part], self._topic, after, known), part)

    @staticmethod
    def _after(question: Question) -> bytes:
        return question.request.after if isinstance(question.request, Get) else b""

    def _file(self, contact: Contact, blobs: Sequence[bytes]) -> bool:
        """False once the holder showed a record that no honest one would have kept: it is not read on."""
        shown = self._shown.setdefault(contact.key, set())
        have = {record.tag for record in self.found} | self._bad
        for blob in blobs:
            mark = tag(blob)
            shown.add(mark)
            if mark in have:
                continue  # several nodes hold the same: opening costs far more than a hash
            try:
                self.found.put(self._topic, blob, self._wall)
            except PeerError as error:
                if error.code not in SKEW:
                    self._blame(contact.key, error.code)
                    return False
                self._bad.add(mark)
        return True


def batches(records: Iterable[Record], to: Contact, me: Contact | None) -> Iterator[Question]:
    """*records*, by topic, as puts to one node."""
    topic, batch = b"", list[bytes]()
    for record in records:
        if batch and (record.topic != topic or len(batch) == PUT_MAX):
            yield Question(to, Put(me, topic, tuple(batch)))
            batch = []
        topic = record.topic
        batch.append(record.blob)
    if batch:
        yield Question(to, Put(me, topic, tuple(batch)))
