"""The notice board: offers as they were at the last publishing, so a little stale, as in the real market.

Counterpart: ``adapters/dht`` and ``daemon/market.py``. The one rule: what is listed binds nobody; placement is the
real ``domain.offer.rank``.
"""

from __future__ import annotations

from random import Random

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Risk, Wish, nobody, rank


class Market:
    def __init__(self, random: Random, *, shard: int = 40) -> None:
        self._random, self._shard = random, shard
        self._offers: dict[NodeKey, Offer] = {}

    def publish(self, offer: Offer) -> None:
        self._offers[offer.provider] = offer

    def withdraw(self, provider: NodeKey) -> None:
        self._offers.pop(provider, None)

    def search(self, wish: Wish, risk: Risk = nobody, most: int = 4) -> tuple[Offer, ...]:
        """The best of a random part of the market: nobody sees all of it."""
        offers = list(self._offers.values())
        seen = self._random.sample(offers, min(self._shard, len(offers)))
        return rank(tuple(seen), wish, risk)[:most]
