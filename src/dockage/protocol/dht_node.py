"""One node of the market without I/O: table, board, what it answers, what it does next. Spec: docs/spec/03-dht.md.

The same object lives in adapters/dht on iroh and in the simulator's thousands. ``wall`` is the clock of records,
``now`` a steady one for silences; in the simulator they are one. Nothing that a peer says is believed: records are
opened by each holder and reader, contacts count once they answered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.query import Query
from dockage.domain.units import HOUR, MINUTE, Duration, Instant

from .allowance import Allowance
from .dht_messages import PAGE_BYTES, TAG, Answer, Best, Find, Get, Listing, Pick, Put, Request, Taken
from .dht_operations import Publish, Puts, Question, Search, Walk, batches
from .dht_survey import CLOSE, Survey
from .kademlia import Contact, K, Lookup, Space, network_of, places
from .record_store import READING, RecordStore
from .records import Record, check_place, open_record
from .routing_table import BITS, HALF, Density, RoutingTable
from .selecting import live, select
from .signed import Verify

HANDERS = 3
"""Of those closest to a place so many tell a newcomer what lies there: one may be dead, one a liar."""
HANDED_MAX = 2048
"""Records handed to one newcomer."""
NEWCOMERS_MAX = 32
CHECKED = 3
"""Long silent contacts that one refresh asks."""
RANKED_FOR_ONE = 128
"""Offers that are ranked for the price of one request: some 0.3 ms."""
SAMPLE = 3
"""The closest to a random id that a refresh takes in."""
MEASURED = 8
"""The closest to it whose distance tells how dense the market is."""
RANDOM_ORDERS = range(BITS - 3, BITS + 1)
"""Buckets so far that an id in them is as good as any."""


class Upkeep(NamedTuple):
    """How much one peer gets, and how often the table is looked after."""

    rate: int = 50
    """Requests a second that one peer is answered; a put counts one for each record besides."""
    burst: int = 500
    refresh: Duration = HOUR
    """Of one bucket."""
    refill: Duration = Duration(5 * MINUTE)
    """Of one that is less than half full."""


DEFAULT = Upkeep()
EXPECTED: dict[type[Request], type[Answer]] = {Find: Listing, Get: Listing, Pick: Best, Put: Taken}
"""What answers what."""


class DhtNode:
    """*me* is our own contact, None unless we hold records for others; *id_* our id then, else any."""

    def __init__(
        self,
        key: NodeKey,
        space: Space,
        verify: Verify,
        rand: Random,
        *,
        server: bool,
        upkeep: Upkeep = DEFAULT,
    ) -> None:
        self.key, self.space, self.is_server = key, space, server
        self.me: Contact | None = None
        self._verify, self._rand, self._upkeep = verify, rand, upkeep
        self.own_id = Space(bound=False).id(Contact(key, ""))
        self.table = RoutingTable(key, self.own_id, space)
        self.store = RecordStore(verify)
        self.density = Density()
        self._allowance = Allowance(upkeep.rate, upkeep.burst)
        self._refreshed: dict[int, Instant] = {}
        self._newcomers: deque[Contact] = deque(maxlen=NEWCOMERS_MAX)
        self.refused: Counter[str] = Counter()
        """What peers did wrong, by code."""

    def move(self, me: Contact | None) -> None:
        """Our address, and with it our id, is this now."""
        self.me = me if self.is_server else None
        self.own_id = self.space.id(self.me) if self.me else Space(bound=False).id(Contact(self.key, ""))
        self.table.move(self.own_id)

    # -- what others ask of us -------------------------------------------------------------------------
    def serve(self, peer: NodeKey, request: Request, seen: str, wall: Instant, now: Instant) -> Answer:
        """*seen* is the ``ip:port`` that *peer* uses. Raises PeerError("dht.*"), which ends the stream."""
        if not self._allowance.take(peer, self._cost(request), now):
            raise PeerError("dht.flood", "more requests than one peer is answered")
        self._welcome(peer, request.me, seen, now)
        match request:
            case Find(target=target):
                return Listing(tuple(self.table.closest(target)))
            case Get(target=target, topic=topic, after=after, known=known):
                tags = frozenset(known[at : at + TAG] for at in range(0, len(known), TAG))
                page = self.store.page(topic, after, tags, wall, PAGE_BYTES)
                contacts = () if after else tuple(self.table.closest(target))
                return Listing(contacts, page.records, page.more, page.last)
            case Pick(targets=targets, topic=topic, query=query):
                near = dict.fromkeys(contact for goal in targets for contact in self.table.closest(goal))
                return self._best(tuple(near), topic, query, wall)
            case Put(topic=topic, records=records):
                giver = self._giver(peer, seen)
                return Taken(tuple(self._hold(topic, blob, giver, wall) for blob in records))

    def _cost(self, request: Request) -> int:
        match request:
            case Put(records=records):
                return 1 + len(records)
            case Pick(topic=topic):
                return 1 + len(self.store.under(topic)) // RANKED_FOR_ONE
            case _:
                return 1

    def _best(self, contacts: tuple[Contact, ...], topic: bytes, query: Query, wall: Instant) -> Best:
        page = select(live(self.store.under(topic), wall), query, PAGE_BYTES)
        return Best(contacts, page.records, page.more, page.fitting, page.known)

    def _welcome(self, peer: NodeKey, contact: Contact | None, seen: str, now: Instant) -> None:
        """A market node that asks is a contact: its key is proven; its address only if the path agrees."""
        if contact is None:
            return
        if contact.key != peer:
            raise PeerError("dht.impostor", "a request in another node's name")
        if self.space.confirms(contact, seen):
            self._met(contact, now)

    def _giver(self, peer: NodeKey, seen: str) -> bytes:
        """Whose share of the board a put counts on: keys are free, networks are not."""
        return (network_of(seen) or b"relayed") if self.space.bound else peer

    def _hold(self, topic: bytes, blob: bytes, giver: bytes, wall: Instant) -> bool:
        try:
            return self.store.put(topic, blob, wall, giver)
        except PeerError as error:
            self.refused[error.code] += 1
            return False

    # -- what others answer us -------------------------------------------------------------------------
    def took(self, question: Question, answer: Answer, seen: str, now: Instant) -> bool:
        """Whether *answer* may be used: it is of the right kind, from where the contact says it is."""
        contact, expected = question.contact, EXPECTED[type(question.request)]
        if not isinstance(answer, expected):
            self.blame(contact.key, "dht.out-of-turn", now)
            return False
        if not self.space.confirms(contact, seen):
            self.blame(contact.key, "dht.address", now)
            return False
        self._met(contact, now)
        return True

    def silent(self, question: Question, now: Instant) -> None:
        self.table.failed(question.contact.key, now)

    def unheard(self, question: Question) -> None:
        """The operation is over, and *question* has waited for longer than SOFT."""
        self.table.missed(question.contact.key)

    def blame(self, key: NodeKey, code: str, now: Instant) -> None:
        self.refused[code] += 1
        self.table.failed(key, now)

    def _met(self, contact: Contact, now: Instant) -> None:
        is_new = self.table.find(contact.key) is None
        if self.table.heard(contact, now) and is_new and self.table.is_near(self.table.order(contact)):
            self._newcomers.append(contact)

    # -- what we do ------------------------------------------------------------------------------------
    def publish(self, topic: bytes, blob: bytes, wall: Instant, now: Instant) -> Publish:
        """Raises PeerError("record.*") for a record that no node would take. At midnight the places move: what is
        published before must be found after."""
        record = open_record(blob, self._verify, wall)
        check_place(record, topic)
        if self.is_server:
            self.store.put(topic, blob, wall)
        goals = dict.fromkeys((*places(topic, wall), *places(topic, record.expires)))
        walks = [Walk(self._lookup(goal, now), Find(self.me, goal)) for goal in goals]
        return Publish(walks, Put(self.me, topic, (blob,)))

    def search(self, topic: bytes, wall: Instant, now: Instant) -> Search:
        found = RecordStore(self._verify, READING)
        if self.is_server:
            for blob in self.store.page(topic, b"", frozenset(), wall, 1 << 30).records:
                found.put(topic, blob, wall)
        lookups = {place: self._lookup(place, now) for place in places(topic, wall)}
        return Search(topic, lookups, self.me, found, lambda key, code: self.blame(key, code, now), wall)

    def survey(self, topic: bytes, query: Query, wall: Instant, now: Instant) -> Survey:
        """The best offers under *topic*, of some of its holders."""
        lookups = {place: self._lookup(place, now, CLOSE) for place in places(topic, wall)}
        survey = Survey(
            topic,
            query,
            lookups,
            self.me,
            self._verify,
            lambda key, code: self.blame(key, code, now),
            wall,
            self._rand,
            self.density.radius,
        )
        if self.is_server and self.store.under(topic):
            survey.own(self._best((), topic, query, wall))
        return survey

    def enter(self, seeds: Iterable[Contact], now: Instant) -> Walk:
        """To our own id, by *seeds* and whom we know."""
        lookup = self._lookup(self.own_id, now)
        return Walk(lookup, Find(self.me, self.own_id), [s for s in seeds if s.key != self.key])

    def refresh(self, order: int, now: Instant) -> Walk:
        """Of one bucket: those silent for longest are asked for a random id in it; see ``refreshed``."""
        self._refreshed[order] = now
        target = self.table.within(order, self._rand.randbytes(32))
        lookup = self._lookup(target, now, width=MEASURED)
        return Walk(lookup, Find(self.me, target), self.table.silent(order, CHECKED))

    def refreshed(self, order: int, walk: Walk, now: Instant) -> None:
        """The closest that the walk found live fill the bucket, and tell how dense the market is."""
        for contact in walk.lookup.closest()[:SAMPLE]:
            self.table.chosen(contact, now)
        if order in RANDOM_ORDERS:
            self.density.seen(walk.lookup.distances()[:MEASURED])

    def due(self, now: Instant) -> int | None:
        """The bucket to refresh now, if any: the farthest first, where most of all lookups begin."""
        for order in self.table.orders():
            patience = self._upkeep.refresh if self.table.drawn(order) >= HALF else self._upkeep.refill
            if now - self._refreshed.get(order, -self._upkeep.refresh) >= patience:
                return order
        return None

    def hand_over(self, wall: Instant) -> Puts | None:
        """The records that a new neighbour should hold from now on. None: nobody came."""
        if not self._newcomers:
            return None
        newcomer = self._newcomers.popleft()
        if self.table.find(newcomer.key) is None:
            return None
        return Puts(batches(self._due_to(newcomer, wall), newcomer, self.me))

    def _due_to(self, newcomer: Contact, wall: Instant) -> Iterator[Record]:
        count = 0
        for topic in self.store.topics():
            if not any(self._hands(place, newcomer) for place in places(topic, wall)):
                continue
            for record in list(self.store.under(topic)):
                if record.expires > wall:
                    count += 1
                    yield record
            if count >= HANDED_MAX:
                return

    def _hands(self, place: bytes, newcomer: Contact) -> bool:
        """Whether *newcomer* is to hold what lies at *place*, and we are among those to tell it."""
        near = self.table.closest(place)
        if newcomer not in near:
            return False
        gap = int.from_bytes(place, "big")
        own = int.from_bytes(self.own_id, "big") ^ gap
        closer = sum(self.space.number(c) ^ gap < own for c in near if c != newcomer)
        return closer < HANDERS

    def _lookup(self, target: bytes, now: Instant, width: int = K) -> Lookup:
        def avoid(key: NodeKey) -> bool:
            return key == self.key or self.table.is_dead(key, now)

        expected = self.density.radius
        radius = expected if width == K else 0
        start = self.table.closest(target)
        return Lookup(target, start, self.space, avoid, width=width, radius=radius, expected=expected)
