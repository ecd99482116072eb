"""A question to the market: which offers fit a wish, best first, and how far the answer goes.

Asked of an index, and of offers that one holds oneself: the same function ranks both, so that an index's order can be
checked. The one rule: nothing here knows reputation; that is the asker's own, and applied by the asker.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from .identity import NodeKey
from .offer import Offer, Wish, hourly_ceiling, misfits
from .pricing import Tariff
from .units import Msat

MOST_MAX = 256
"""Offers in one answer."""
AVOID_MAX = 64
NET_MAX = 64
"""Characters of a network's name."""

Entry = tuple[tuple[int, Msat, NodeKey], int, str]
"""Place, number and network."""


class Rank(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """Where an offer stands in an answer: what fits first, then the cheapest; the key makes it one order for all."""

    misfits: int
    msat_hour: Msat
    provider: NodeKey


class Query(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    wish: Wish
    near: bool = False
    """Also what does not fit, nearest first: for lists, and to say why nothing fits."""
    most: int = 64
    after: Rank | None = None
    """Only what stands behind it: the next page."""
    avoid: tuple[NodeKey, ...] = ()
    """Operators that the asker has already."""
    avoid_nets: tuple[str, ...] = ()
    """Networks (``network_of``) that it has already."""
    per_net: int = 0
    """At most so many offers of one network in a page; 0: any number."""

    @property
    def is_sane(self) -> bool:
        return (
            self.wish.is_sane
            and 0 < self.most <= MOST_MAX
            and max(len(self.avoid), len(self.avoid_nets)) <= AVOID_MAX
            and all(len(key) == 32 for key in self.avoid)
            and all(len(net) <= NET_MAX for net in self.avoid_nets)
            and 0 <= self.per_net <= MOST_MAX
        )


class Listed(NamedTuple):
    """One offer as it is held somewhere."""

    offer: Offer
    net: str
    """The network its provider says it is in."""


class Picked(NamedTuple):
    """The numbers of the chosen entries, in order, and what there was."""

    chosen: tuple[tuple[int, Rank], ...]
    more: bool
    fitting: int
    known: int


def network_of(direct: Iterable[str], relay: str) -> str:
    """The /24 (IPv4) or /48 (IPv6) of a provider's first address, or its relay: who shares it may be one operator, and
    falls with it."""
    first = next(iter(direct), "")
    if not first:
        return relay[:NET_MAX]
    host, _, _ = first.rpartition(":")
    if host.startswith("["):
        return ":".join(host.strip("[]").split(":")[:3])[:NET_MAX]
    return ".".join(host.split(".")[:3])[:NET_MAX]


def rank_of(offer: Offer, wish: Wish, prices: dict[Tariff, Msat]) -> Rank:
    """*prices* is kept between calls with the same wish: most offers share a few tariffs."""
    return Rank(*_place(offer, wish, prices))


def _place(offer: Offer, wish: Wish, prices: dict[Tariff, Msat]) -> tuple[int, Msat, NodeKey]:
    """The fields of a Rank, in its order; a plain tuple, for there are tens of thousands."""
    seen = offer.as_seen_by(wish.tenant) if offer.free_for else offer
    price = prices.get(seen.tariff)
    if price is None:
        price = prices[seen.tariff] = hourly_ceiling(seen, wish.limits)
    return len(misfits(seen, wish, price)), price, seen.provider


def pick(listed: Iterable[Listed], query: Query) -> Picked:
    """The best entries for *query*, at most ``most``."""
    prices: dict[Tariff, Msat] = {}
    wish, near = query.wish, query.near
    avoid, nets = frozenset(query.avoid), frozenset(query.avoid_nets)
    behind = (query.after.misfits, query.after.msat_hour, query.after.provider) if query.after else None
    found: list[Entry] = []
    known = fitting = 0
    for number, (offer, net) in enumerate(listed):
        known += 1
        if offer.provider in avoid or net in nets:
            continue
        place = _place(offer, wish, prices)
        fitting += not place[0]
        if (near or not place[0]) and (behind is None or place > behind):
            found.append((place, number, net))
    best = _best(found, query)
    chosen = tuple((number, Rank(*place)) for place, number, _ in best[: query.most])
    return Picked(chosen, len(best) > query.most, fitting, known)


def _best(found: list[Entry], query: Query) -> list[Entry]:
    """One more than asked for, where there is one: it shows that there is a next page."""
    if not query.per_net:
        return heapq.nsmallest(query.most + 1, found)
    taken: dict[str, int] = {}
    best = []
    for entry in sorted(found):
        taken[entry[2]] = taken.get(entry[2], 0) + 1
        if taken[entry[2]] <= query.per_net:
            best.append(entry)
            if len(best) > query.most:
                break
    return best
