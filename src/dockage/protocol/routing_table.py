"""The contacts of one node, K for each order of distance from its own id, and how dense the market is.

A place is no prize for whoever calls first or names its friends most often: far buckets are filled only to half by
such, and they give way to the closest of random ids (``chosen``), where hostile nodes win no more often than they are
many. Nor is it for life: honest nodes leave and hostile ones do not, so in a full bucket the newest drawn takes the
place of the one who was drawn longest ago. Precedent: "new" and "tried" of Bitcoin Core (Heilman et al. 2015).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from dockage.domain.identity import NodeKey
from dockage.domain.units import MINUTE, Duration, Instant

from .kademlia import PER_NETWORK, Contact, K, Space

DEAD_FOR = Duration(MINUTE)
DEAD_MAX = 1024
HALF = K // 2
SAMPLES = 15
BITS = 256


class Entry(NamedTuple):
    """A contact, and what is asked of it thousands of times: entries sort by number and never by contact."""

    number: int
    key: NodeKey
    network: bytes
    contact: Contact


class RoutingTable:
    def __init__(self, own: NodeKey, own_id: bytes, space: Space) -> None:
        self._own, self._own_id, self._space = own, int.from_bytes(own_id, "big"), space
        self._buckets: dict[int, dict[NodeKey, Entry]] = {}
        self._order: dict[NodeKey, int] = {}
        """The bucket of each contact."""
        self._heard: dict[NodeKey, Instant] = {}
        self._dead: dict[NodeKey, Instant] = {}
        self._drawn: dict[NodeKey, Instant] = {}
        """When it was last among the closest to an id that we drew."""
        self._missed: set[NodeKey] = set()
        """Who was too slow the last time."""
        self._farthest_near: int | None = None
        """The farthest near bucket; None: to be reckoned anew."""

    def __len__(self) -> int:
        return len(self._order)

    def all(self) -> list[Contact]:
        return [entry.contact for bucket in self._buckets.values() for entry in bucket.values()]

    def find(self, key: NodeKey) -> Contact | None:
        order = self._order.get(key)
        return self._buckets[order][key].contact if order is not None else None

    def closest(self, target: bytes, count: int = K) -> list[Contact]:
        crowd: dict[bytes, int] = {}
        found: list[Contact] = []
        for _, (_, _, network, contact) in self._outward(int.from_bytes(target, "big")):
            crowd[network] = held = crowd.get(network, 0) + 1
            if held <= PER_NETWORK:
                found.append(contact)
                if len(found) == count:
                    break
        return found

    # -- who comes in ----------------------------------------------------------------------------------
    def heard(self, contact: Contact, now: Instant) -> bool:
        """*contact* is alive: it answered, or called. Whether it has a place now."""
        return self._take(contact, now, self._is_open)

    def chosen(self, contact: Contact, now: Instant) -> bool:
        """*contact* is alive, and among the closest to an id that we drew. In a far bucket it may have any free place
        beyond the first half, and otherwise that of whoever only called, or was drawn longest ago: those who never
        leave, as hostile nodes do not, would have them all in the end."""
        is_taken = self._take(contact, now, self._has_room)
        if is_taken:
            self._drawn[contact.key] = now
        return is_taken

    def _has_room(self, order: int) -> bool:
        bucket = self._buckets.get(order, {})
        if len(bucket) < HALF or self.is_near(order):
            return len(bucket) < K
        first = min(bucket, key=lambda key: (self._drawn.get(key, 0), self._heard[key]))
        if len(bucket) == K or first not in self._drawn:
            self._remove(first)
        return True

    def _take(self, contact: Contact, now: Instant, is_open: Callable[[int], bool]) -> bool:
        key = contact.key
        old = self.find(key)
        if old == contact:
            self._heard[key] = now
            self._missed.discard(key)
            return True
        if key == self._own or not self._space.admits(contact):
            return False
        if old is not None:
            self._remove(key)  # it moved: with ids bound to addresses, to another bucket perhaps
        self._dead.pop(key, None)
        entry = Entry(self._space.number(contact), key, self._space.network(contact), contact)
        order = (entry.number ^ self._own_id).bit_length()
        if self._is_crowded(order, entry.network) or not is_open(order):
            return False
        self._buckets.setdefault(order, {})[key] = entry
        self._order[key], self._heard[key] = order, now
        self._farthest_near = None
        return True

    def _is_open(self, order: int) -> bool:
        """Far buckets to half; near ones wholly: nobody else can name us our neighbours."""
        held = len(self._buckets.get(order, ()))
        return held < HALF or (held < K and self.is_near(order))

    def is_near(self, order: int) -> bool:
        """Whether whoever is at that distance is among the K closest to us that we know."""
        if self._farthest_near is None:
            self._farthest_near = self._reckon_near()
        return order <= self._farthest_near

    def _reckon_near(self) -> int:
        closer = 0
        for order in sorted(self._buckets):
            closer += len(self._buckets[order])
            if closer >= K:
                return order
        return BITS

    def order(self, contact: Contact) -> int:
        return (self._space.number(contact) ^ self._own_id).bit_length()

    def _is_crowded(self, order: int, network: bytes) -> bool:
        bucket = self._buckets.get(order, {})
        return [entry.network for entry in bucket.values()].count(network) >= PER_NETWORK

    # -- who goes --------------------------------------------------------------------------------------
    def failed(self, key: NodeKey, now: Instant) -> None:
        """It did not answer or lied: out of the table, and not asked again for a while."""
        self._remove(key)
        self._dead.pop(key, None)
        self._dead[key] = Instant(now + DEAD_FOR)
        if len(self._dead) > DEAD_MAX:
            del self._dead[next(iter(self._dead))]

    def missed(self, key: NodeKey) -> None:
        """It had not answered when the answer was no longer needed. Twice in a row, and its place is free: those who
        are gone must not stay because nobody waits for them."""
        if key in self._missed:
            self._remove(key)
        elif key in self._order:
            self._missed.add(key)

    def is_dead(self, key: NodeKey, now: Instant) -> bool:
        return self._dead.get(key, Instant(0)) > now

    def move(self, own_id: bytes) -> None:
        """Our own address, and with it our id, changed."""
        number = int.from_bytes(own_id, "big")
        if number != self._own_id:
            contacts, heard = self.all(), self._heard
            self._buckets, self._order, self._heard, self._own_id = {}, {}, {}, number
            self._missed.clear()
            self._farthest_near = None
            for contact in contacts:
                self.chosen(contact, heard[contact.key])

    def _remove(self, key: NodeKey) -> None:
        order = self._order.pop(key, None)
        if order is not None:
            del self._buckets[order][key], self._heard[key]
            self._drawn.pop(key, None)
            self._missed.discard(key)
            self._farthest_near = None
            if not self._buckets[order]:
                del self._buckets[order]

    # -- upkeep ----------------------------------------------------------------------------------------
    def orders(self) -> range:
        """The buckets worth keeping full: from the farthest to the one that our neighbours share."""
        near = BITS
        while near > 1 and not self.is_near(near):
            near -= 1
        return range(BITS, near - 1, -1)

    def size(self, order: int) -> int:
        return len(self._buckets.get(order, ()))

    def drawn(self, order: int) -> int:
        """Of those in the bucket so many came by ``chosen``; of a near one, all count."""
        return (
            self.size(order)
            if self.is_near(order)
            else sum(k in self._drawn for k in self._buckets.get(order, ()))
        )

    def within(self, order: int, chance: bytes) -> bytes:
        """An id in that bucket, random as *chance* is."""
        top = 1 << (order - 1)
        return (self._own_id ^ top ^ (int.from_bytes(chance, "big") & (top - 1))).to_bytes(32, "big")

    def silent(self, order: int, count: int) -> list[Contact]:
        """Those of the bucket that were not heard from for longest; the one that our neighbours share counts with all
        that are closer."""
        least = 0 if order == self.orders()[-1] else order
        keys = [key for other in range(least, order + 1) for key in self._buckets.get(other, ())]
        found = (self.find(key) for key in sorted(keys, key=lambda key: self._heard[key])[:count])
        return [contact for contact in found if contact]

    def _outward(self, target: int) -> Iterator[tuple[int, Entry]]:
        """All entries with their distance, the closest to *target* first: whole buckets are closer than others, as
        their highest bit says, so that few are sorted."""
        gap, buckets = self._own_id ^ target, self._buckets
        orders = sorted(buckets)
        nearer = [order for order in reversed(orders) if order and gap >> (order - 1) & 1]
        farther = [order for order in orders if not order or not gap >> (order - 1) & 1]
        for order in nearer + farther:
            yield from sorted([(entry[0] ^ target, entry) for entry in buckets[order].values()])


class Density:
    """How far the K closest nodes of any id are, from the closest ones of ids that we drew ourselves.

    Whoever crowds around one topic does not change what is seen at random ids, so that the crowd shows: a place is
    all of its region, not the crowd alone. Precedent: the region-based queries of Sridhar et al. 2023 (IPFS)."""

    def __init__(self) -> None:
        self._radii: deque[int] = deque(maxlen=SAMPLES)

    def seen(self, distances: list[int]) -> None:
        """Distances of the closest to a random id, nearest first."""
        if distances:
            self._radii.append(distances[-1] * K // len(distances))

    @property
    def radius(self) -> int:
        """0 while nothing is known. The median: some samples come from liars."""
        return sorted(self._radii)[len(self._radii) // 2] if self._radii else 0
