"""Everybody in order of id: who is closest to what, as only the simulator, or an attacker who knows all, can say."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from random import Random
from typing import Protocol

from dockage.domain.units import Instant
from dockage.protocol.dht_node import SAMPLE, DhtNode
from dockage.protocol.kademlia import Contact, K, Space

FAIR_SAMPLES = 5


class HasContact(Protocol):
    contact: Contact


class Census:
    def __init__(self, space: Space, peers: Iterable[HasContact], rand: Random) -> None:
        self._space, self._random = space, rand
        self._all = sorted((space.number(p.contact), p.contact.key, p.contact) for p in peers)
        self._numbers = [number for number, _, _ in self._all]

    def __len__(self) -> int:
        return len(self._all)

    def acquaint(self, node: DhtNode) -> None:
        """Fill its table with a fair sample of each distance, and let it know how dense the market is."""
        table, own, now = node.table, int.from_bytes(node.own_id, "big"), Instant(0)
        for order in range(256, 0, -1):
            top = 1 << (order - 1)
            low = (own ^ top) & ~(top - 1)
            first, last = bisect_left(self._numbers, low), bisect_left(self._numbers, low + top)
            some = range(first, last)
            for index in self._random.sample(some, min(K, len(some))):
                table.chosen(self._all[index][2], now)
            around = bisect_left(self._numbers, own & ~(2 * top - 1))
            if bisect_left(self._numbers, (own | (2 * top - 1)) + 1) - around <= 1:
                break
        for _ in range(FAIR_SAMPLES):
            target = self._random.getrandbits(256)
            gaps = sorted(self._space.number(c) ^ target for c in self.closest(target, SAMPLE))
            node.density.seen(gaps)

    def closest(self, target: int, count: int = K) -> list[Contact]:
        at, reach = bisect_left(self._numbers, target), 4 * count
        window = self._all[max(0, at - reach) : at + reach]
        return [c for _, _, c in sorted(window, key=lambda entry: entry[0] ^ target)[:count]]
