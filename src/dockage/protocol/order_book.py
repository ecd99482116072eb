"""The whole verified order book of some regions, in memory: what an index answers from. Spec: docs/spec/03b-index.md.

The board's own store holds it, so the same checks and bounds apply; a record that is here already costs a hash, not a
signature. It is not written to disk: the market's nodes have it all, and a crawl after a restart takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from dockage.domain.errors import PeerError
from dockage.domain.query import Query
from dockage.domain.units import Instant

from .index_messages import PAGE_BYTES, Selection
from .record_store import RecordStore, StoreLimits
from .records import Record, offers_topics, open_record, tag
from .selecting import live, select
from .signed import Verify

BOOK = StoreLimits(per_topic=16_384, total=65_536)
"""At some 450 bytes an offer, and about as much again opened: 100 MiB at most."""


class OrderBook:
    def __init__(self, verify: Verify, regions: Sequence[str], limits: StoreLimits = BOOK) -> None:
        self._verify, self._regions = verify, tuple(regions)
        self._topics = frozenset(topic for region in regions for topic in offers_topics(region))
        self._store = RecordStore(verify, limits)
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

    def held(self, query: Query, now: Instant) -> list[Record]:
        """The live offers of the regions that are asked about."""
        regions = (query.wish.region,) if query.wish.region else self._regions
        topics = (topic for region in regions for topic in offers_topics(region))
        return [record for topic in topics for record in live(self._store.under(topic), now)]

    def select(self, query: Query, now: Instant, budget: int = PAGE_BYTES) -> Selection:
        return page(self.held(query, now), query, budget)


def page(held: Sequence[Record], query: Query, budget: int = PAGE_BYTES) -> Selection:
    """One page, up to *budget* bytes. Touches nothing but its arguments: a large book's is made in a thread."""
    return Selection(*select(held, query, budget))
