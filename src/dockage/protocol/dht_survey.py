"""Ask some holders of a topic for their best offers, instead of reading all that all of them hold. Spec: 03-dht.md.

A holder can only leave out: what it shows is opened here, and must be what was asked for. So that leaving out helps
nobody, many are asked: the closest to each of the topic's places, and some of each region whom nobody can foretell;
where a crowd shows, the whole region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import hourly_ceilings
from dockage.domain.query import Excerpt, Query, Rank, rank_of
from dockage.domain.units import Instant

from .dht_messages import Answer, Best, Pick
from .dht_operations import SKEW, Blame, Question
from .kademlia import SALTS, Contact, K, Lookup
from .record_store import READING, RecordStore
from .records import open_record, tag
from .signed import Verify

CLOSE = 2
"""Asked of each place, the closest."""
DRAWN = 3
"""Asked besides, of all regions together, by chance."""
CROWD = 2 * K
"""Where K nodes are expected, so many are no accident (four standard deviations)."""


class Survey:
    """*lookups* are narrow ones, by place; *radius* is that of a region, 0 if not known."""

    def __init__(
        self,
        topic: bytes,
        query: Query,
        lookups: Mapping[bytes, Lookup],
        me: Contact | None,
        verify: Verify,
        blame: Blame,
        wall: Instant,
        rand: Random,
        radius: int,
    ) -> None:
        self._topic, self._query = topic, query
        self._lookups = list(lookups.values())
        self._pick = Pick(me, tuple(lookups), topic, query)
        self._verify, self._blame, self._wall, self._rand, self._radius = verify, blame, wall, rand, radius
        self._found = RecordStore(verify, READING)
        self._ranks: dict[bytes, Rank | None] = {}
        """Of what was opened, by tag. None: its time is over."""
        self._price_of = hourly_ceilings(query.wish.limits)
        self._is_drawn = False
        self._told: list[tuple[int, int]] = []
        self._reaches: list[Rank] = []

    # -- the machine -----------------------------------------------------------------------------------
    def next(self, now: Instant) -> Sequence[Question]:
        chosen = self._chosen(now)
        if not chosen and not self._is_drawn and all(x.is_done(now) for x in self._lookups):
            self._is_drawn = True
            self._widen()
            chosen = self._drawn() or self._chosen(now)
        for contact in chosen.values():
            for lookup in self._lookups:
                lookup.ask(contact, now)
        return [Question(contact, self._pick) for contact in chosen.values()]

    def answered(self, question: Question, answer: Answer, now: Instant) -> None:
        if isinstance(answer, Best):
            for lookup in self._lookups:
                lookup.answered(question.contact.key, answer.contacts, SALTS * K)
            self._file(question.contact.key, answer)

    def failed(self, question: Question, now: Instant) -> None:
        for lookup in self._lookups:
            lookup.failed(question.contact.key)

    def is_done(self, now: Instant) -> bool:
        return self._is_drawn and all(lookup.is_done(now) for lookup in self._lookups)

    def _chosen(self, now: Instant) -> dict[NodeKey, Contact]:
        """Whom a node asks it asks for all places."""
        return {contact.key: contact for lookup in self._lookups for contact in lookup.next(now)}

    # -- whom nobody can foretell ----------------------------------------------------------------------
    def _widen(self) -> None:
        for lookup in self._lookups:
            if self._radius and len(lookup.near(0, self._radius)) > CROWD:
                lookup.widen(K, self._radius)

    def _drawn(self) -> dict[NodeKey, Contact]:
        near = {c.key: c for lookup in self._lookups for c in lookup.near(K, self._radius)}
        rest = sorted(key for key in near if not self._lookups[0].has_asked(key))
        return {key: near[key] for key in self._rand.sample(rest, min(DRAWN, len(rest)))}

    # -- what they show --------------------------------------------------------------------------------
    def own(self, answer: Best) -> None:
        """We are a holder ourselves."""
        self._file(None, answer)

    def _file(self, holder: NodeKey | None, answer: Best) -> None:
        try:
            ranks = [self._open(blob) for blob in answer.records]
            self._check(answer, [rank for rank in ranks if rank is not None])
        except PeerError as error:
            if holder is not None:
                self._blame(holder, error.code)

    def _open(self, blob: bytes) -> Rank | None:
        """Raises PeerError for what no honest holder would show."""
        mark = tag(blob)
        if mark not in self._ranks:
            try:
                record = open_record(blob, self._verify, self._wall)
            except PeerError as error:
                if error.code not in SKEW:
                    raise
                self._ranks[mark] = None
                return None
            if record.kind != "offer" or record.topic != self._topic:
                raise PeerError("dht.unasked", "a holder showed what was not asked for")
            self._ranks[mark] = rank_of(record.body.offer, self._query.wish, self._price_of)
            self._found.admit(record)
        return self._ranks[mark]

    def _check(self, answer: Best, ranks: Sequence[Rank]) -> None:
        query = self._query
        is_wanted = all(
            (query.near or not rank.misfits) and (query.after is None or rank > query.after) for rank in ranks
        )
        if not is_wanted or len(answer.records) > query.most or list(ranks) != sorted(ranks):
            raise PeerError("dht.unasked", "a holder showed what was not asked for, or out of order")
        if answer.known:
            self._told.append((answer.known, answer.fitting))
        if answer.more and ranks:
            self._reaches.append(ranks[-1])

    @property
    def has_answers(self) -> bool:
        return bool(self._told) or any(lookup.has_answers for lookup in self._lookups)

    def excerpt(self) -> Excerpt:
        known, fitting = (_middle(words) for words in zip(*self._told, strict=True)) if self._told else (0, 0)
        blobs = tuple(record.blob for record in self._found)
        return Excerpt(blobs, min(self._reaches, default=None), min(fitting, known), known)


def _middle(words: Iterable[int]) -> int:
    """A liar among many does not move it."""
    ordered = sorted(words)
    return ordered[len(ordered) // 2]
