"""The whole verified order book of some regions, in memory: what an index answers from. Spec: docs/spec/03b-index.md.

The board's own store holds it, so the same checks and bounds apply; a record that is here already costs a hash, not a
signature. It is not written to disk: the market's nodes have it all, and a crawl after a restart takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dockage.domain.errors import PeerError
from dockage.domain.query import Listed, Query, network_of, pick
from dockage.domain.units import Instant

from .index_messages import PAGE_BYTES, Selection
from .record_store import RecordStore, StoreLimits
from .records import OfferBody, Record, Verify, offers_topics, open_record, tag

BOOK = StoreLimits(per_topic=16_384, total=65_536)
"""At some 450 bytes an offer, and about as much again opened: 100 MiB at most."""


class OrderBook:
    def __init__(self, verify: Verify, regions: Sequence[str], limits: StoreLimits = BOOK) -> None:
        self._verify, self._regions = verify, tuple(regions)
        self._topics = frozenset(topic for region in regions for topic in offers_topics(region))
        self._store = RecordStore(verify, limits)
        self._networks: dict[bytes, str] = {}
        self._tags: set[bytes] = set()
        """Of what was taken since the last ``expire``: replaced ones too, which are as little news."""

    def __len__(self) -> int:
        return len(self._store)

    def put(self, blob: bytes, now: Instant) -> bool:
        """Whether it is held now, or was. Raises PeerError("record.*" | "index.foreign")."""
        seen = tag(blob)
        if seen in self._tags:
            return True
        record = open_record(blob, self._verify, now)
        if record.topic not in self._topics:
            raise PeerError("index.foreign", "a record that is no offer of a region that this index keeps")
        if not self._store.admit(record):
            return False
        self._tags.add(seen)
        return True

    def expire(self, now: Instant) -> None:
        self._store.expire(now)
        self._tags = {record.tag for record in self._store}
        self._networks = {tag: net for tag, net in self._networks.items() if tag in self._tags}

    def _listed(self, record: Record) -> Listed:
        """Worked out once for each record."""
        found = self._networks.get(record.tag)
        if found is None:
            body: OfferBody = record.body
            found = self._networks[record.tag] = network_of(body.direct, body.relay)
        return Listed(record.body.offer, found)

    def select(self, query: Query, now: Instant, budget: int = PAGE_BYTES) -> Selection:
        """One page, up to *budget* bytes."""
        records = list(self._live(query.wish.region, now))
        picked = pick(map(self._listed, records), query)
        blobs: list[bytes] = []
        last, size = None, 0
        for number, rank in picked.chosen:
            size += len(records[number].blob)
            if size > budget and blobs:
                break
            blobs.append(records[number].blob)
            last = rank
        more = picked.more or len(blobs) < len(picked.chosen)
        return Selection(tuple(blobs), more, last, picked.fitting, picked.known)

    def _live(self, region: str, now: Instant) -> Iterator[Record]:
        for name in (region,) if region else self._regions:
            for topic in offers_topics(name):
                yield from _offers(self._store.under(topic), now)


def _offers(records: Iterable[Record], now: Instant) -> Iterator[Record]:
    return (record for record in records if record.kind == "offer" and record.expires > now)
