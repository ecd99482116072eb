"""The best of some held offers for a query, as one bounded page: what an index and a holder of the board both answer.

Counterparts: ``order_book.py`` and ``dht_node.py`` hold, ``index_messages.py`` and ``dht_messages.py`` carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dockage.domain.query import Query, Rank, network_of, pick
from dockage.domain.units import Instant

from .records import Record


class Page(NamedTuple):
    records: tuple[bytes, ...]
    """In the order of the query."""
    more: bool
    last: Rank | None
    """Of the last record: the ``after`` of the next page."""
    fitting: int
    known: int


def select(records: Sequence[Record], query: Query, budget: int) -> Page:
    """*records* are live offers. Up to *budget* bytes."""
    picked = pick([record.body.offer for record in records], query, lambda number: _net(records[number]))
    blobs: list[bytes] = []
    last, size = None, 0
    for number, rank in picked.chosen:
        size += len(records[number].blob)
        if size > budget and blobs:
            break
        blobs.append(records[number].blob)
        last = rank
    more = picked.more or len(blobs) < len(picked.chosen)
    return Page(tuple(blobs), more, last, picked.fitting, picked.known)


def _net(record: Record) -> str:
    return network_of(record.body.direct, record.body.relay)


def live(records: Iterable[Record], now: Instant) -> list[Record]:
    """The offers among them whose time is not over."""
    return [record for record in records if record.kind == "offer" and record.expires > now]
