"""Market nodes that answered us once: what a node enters the market by after a restart, with no seed and no server.

Pure: ``daemon/contacts.py`` keeps it on disk. Only who answered is in it, few of one network, so that whoever
floods us with invented or neighbouring nodes pushes nobody out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dockage.domain.identity import NodeKey
from dockage.domain.units import Instant

from .kademlia import PER_NETWORK, Contact, Space

LIMIT = 256
"""Nodes in the book: at an MTBF of days some of them are alive after months."""


class Met(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    contact: Contact
    answered: Instant
    """The last time we know of."""


class ContactBook:
    def __init__(self, space: Space, met: Iterable[Met] = (), limit: int = LIMIT) -> None:
        self._space, self._limit = space, limit
        self._met: dict[NodeKey, Met] = {}
        for each in met:
            self.answered(each.contact, each.answered)

    @classmethod
    def load(cls, blob: bytes, space: Space) -> ContactBook:
        """What ``dump`` gave; a book that cannot be read is an empty one: seeds and neighbours still help."""
        try:
            return cls(space, msgspec.msgpack.decode(blob, type=list[Met]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls(space)

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(list(self._met.values()))

    def __len__(self) -> int:
        return len(self._met)

    def answered(self, contact: Contact, now: Instant) -> None:
        """*contact* was alive at *now*. Whoever was silent longest makes room, in its network first."""
        if not self._space.admits(contact):
            return
        self._met.pop(contact.key, None)
        network = self._space.network(contact)
        neighbours = [met for met in self._met.values() if self._space.network(met.contact) == network]
        if len(neighbours) >= PER_NETWORK:
            self._forget_one(neighbours)
        elif len(self._met) >= self._limit:
            self._forget_one(self._met.values())
        self._met[contact.key] = Met(contact, now)

    def best(self, count: int) -> list[Contact]:
        """Those heard from last, first: the likeliest to be there still."""
        in_order = sorted(self._met.values(), key=lambda met: (-met.answered, met.contact.key))
        return [met.contact for met in in_order[:count]]

    def _forget_one(self, among: Iterable[Met]) -> None:
        oldest = min(among, key=lambda met: (met.answered, met.contact.key))
        del self._met[oldest.contact.key]
