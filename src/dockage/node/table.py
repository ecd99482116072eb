"""Records by id and by the peer they are about: what a mind looks up at each tick costs no walk through all it knows.

Counterpart: ``records.py``, which writes what differs between two of them. The one rule: a table never changes; a new
one shares every other record with the old one, so a refused event leaves no trace and identity tells what differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, ValuesView
from typing import Any, Protocol, TypeVar

from dockage.domain.identity import NodeKey

TRAIL_MIN = 64
"""Newest changes that are remembered, at least; in a large table an eighth of its size, so that a comparison which
has to look at every record is rare enough not to count."""


class Record(Protocol):
    @property
    def id(self) -> Any: ...
    @property
    def peer(self) -> NodeKey: ...


K = TypeVar("K")
V = TypeVar("V", bound=Record)


class Table(Mapping[K, V]):
    """The oldest first: all of them, and those of each peer."""

    __slots__ = ("_all", "_of", "_put", "_trail")

    def __init__(self, records: Iterable[V] = ()) -> None:
        self._all: dict[K, V] = {}
        self._of: dict[NodeKey, tuple[K, ...]] = {}
        self._trail = object()
        self._put: dict[K, None] = {}
        """What was put since the beginning of the trail: tables on one trail differ in nothing else."""
        for record in records:
            self._all[record.id] = record
            self._of[record.peer] = (*self._of.get(record.peer, ()), record.id)

    def put(self, record: V) -> Table[K, V]:
        """With *record* in the place of what has its id."""
        table = Table[K, V]()
        table._all = {**self._all, record.id: record}
        table._of = self._index(self._all.get(record.id), record)
        if len(self._put) < max(TRAIL_MIN, len(self._all) // 8):
            table._trail, table._put = self._trail, {**self._put, record.id: None}
        else:
            table._put = {record.id: None}
        return table

    def _index(self, before: V | None, after: V) -> dict[NodeKey, tuple[K, ...]]:
        if before is not None and before.peer == after.peer:
            return self._of
        index = dict(self._of)
        if before is not None:
            index[before.peer] = tuple(key for key in index[before.peer] if key != before.id)
        index[after.peer] = (*index.get(after.peer, ()), after.id)
        return index

    def drop(self, keys: Collection[K]) -> Table[K, V]:
        return Table(record for key, record in self._all.items() if key not in keys)

    def of(self, peer: NodeKey) -> list[V]:
        return [self._all[key] for key in self._of.get(peer, ())]

    def since(self, before: Table[K, V]) -> list[V]:
        """The records that are not the very ones in *before*."""
        keys = {**before._put, **self._put} if self._trail is before._trail else self._all
        return [x for key in keys if (x := self._all.get(key)) is not None and x is not before._all.get(key)]

    def __getitem__(self, key: K) -> V:
        return self._all[key]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[K]:
        return iter(self._all)

    def values(self) -> ValuesView[V]:
        return self._all.values()
