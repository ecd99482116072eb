"""A question to the market: which offers fit a wish, best first, and how far the answer goes.

Asked of an index, and of offers that one holds oneself: the same function ranks both, so that an index's order can be
checked. The one rule: nothing here knows reputation; that is the asker's own, and applied by the asker.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from .identity import NodeKey
from .offer import Offer, Wish, hourly_ceilings, misfits
from .pricing import Tariff
from .spread import line_of
from .units import Msat

MOST_MAX = 256
"""Offers in one answer."""
AVOID_MAX = 64
NET_MAX = 64
"""Characters of a network's name."""

Entry = tuple[tuple[int, Msat, NodeKey], int]
"""Place and number."""


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
    """At most so many offers of one network in a page, if it is known; 0: any number."""

    @property
    def asks_nets(self) -> bool:
        """Whether it matters in which network a provider is."""
        return bool(self.avoid_nets or self.per_net)

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


class Picked(NamedTuple):
    """The numbers of the chosen entries, in order, and what there was."""

    chosen: tuple[tuple[int, Rank], ...]
    more: bool
    fitting: int
    known: int


class Excerpt(NamedTuple):
    """What some holders of one part of the market showed for a query."""

    records: tuple[bytes, ...]
    """The newest of each publisher, verified; in no order."""
    reach: Rank | None
    """Each of them showed all that it holds up to there. None: all there is."""
    fitting: int
    known: int
    """By their word: what most of them say."""


def network_of(direct: Iterable[str], relay: str) -> str:
    """The /24 (IPv4) or /48 (IPv6) of a provider's first public address in hex (``spread.line_of``), else its relay:
    who shares it may be one operator, and falls with it. "": nobody knows."""
    return next((line for address in direct if (line := line_of(address))), relay[:NET_MAX])


def rank_of(offer: Offer, wish: Wish, price_of: Callable[[Tariff], Msat]) -> Rank:
    """*price_of*: ``hourly_ceilings(wish.limits)``, made once for many offers."""
    seen = offer.as_seen_by(wish.tenant)
    price = price_of(seen.tariff)
    return Rank(len(misfits(seen, wish, price)), price, seen.provider)


def pick(offers: Iterable[Offer], query: Query, net_of: Callable[[int], str] = lambda _: "") -> Picked:
    """The best of *offers* for *query*, at most ``most``. *net_of*: the ``network_of`` an offer by its number, asked
    for few of them and only if the query says something of networks.

    There are tens of thousands: without ``near``, what is most often in the way and cheapest to see is looked at first,
    and places are plain tuples in the order of a Rank."""
    wish, near, limits, most = query.wish, query.near, query.wish.limits, query.wish.max_msat_hour
    cpu, memory, price_of = limits.cpu_milli, limits.memory_bytes, hourly_ceilings(limits)
    avoid = frozenset(query.avoid)
    behind = (query.after.misfits, query.after.msat_hour, query.after.provider) if query.after else None
    found: list[Entry] = []
    known = fitting = 0
    for number, offer in enumerate(offers):
        known += 1
        free = offer.free
        if not near and (free.cpu_milli < cpu or free.memory_bytes < memory):
            continue
        seen = offer.as_seen_by(wish.tenant) if offer.free_for else offer
        price = price_of(seen.tariff)
        if (not near and most is not None and price > most) or offer.provider in avoid:
            continue
        place = len(misfits(seen, wish, price)), price, seen.provider
        fitting += not place[0]
        if (near or not place[0]) and (behind is None or place > behind):
            found.append((place, number))
    best = _spread(found, query, net_of) if query.asks_nets else heapq.nsmallest(query.most + 1, found)
    chosen = tuple((number, Rank(*place)) for place, number in best[: query.most])
    return Picked(chosen, len(best) > query.most, fitting, known)


def _spread(found: list[Entry], query: Query, net_of: Callable[[int], str]) -> list[Entry]:
    """The best, without networks to avoid and with few of each; one more than asked for, where there is one: it shows
    that there is a next page."""
    heapq.heapify(found)
    taken: dict[str, int] = {}
    best: list[Entry] = []
    while found and len(best) <= query.most:
        entry = heapq.heappop(found)
        net = net_of(entry[1])
        taken[net] = taken.get(net, 0) + 1
        is_full = net and query.per_net and taken[net] > query.per_net
        if net not in query.avoid_nets and not is_full:
            best.append(entry)
    return best
