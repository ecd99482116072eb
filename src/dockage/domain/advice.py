"""Why nothing fits a wish, and which single change would help, the smallest first: what ``dockage why`` says.

Only what one change alone would cure is advice; how large a change is, is measured against what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .identity import NodeKey
from .offer import Offer, Risk, Wish, hourly_ceiling, misfits, nobody
from .reputation import is_avoided
from .units import Msat, whole_sat

SIZES = ("cpu_milli", "memory_bytes", "disk_bytes")
OTHER = {
    "region": 1000,
    "opacity": 1500,
    "isolation": 1500,
    "min_msat_hour": 1500,
    "architecture": 2000,
    "network": 3000,
}
"""Permille of effort that a change counts which is not one of an amount."""
FIXED = ("tenant", "service", "traffic", "setup")
"""What nobody can ask for otherwise."""


class Change(NamedTuple):
    what: str
    """The field of ``Wish`` or ``Resources`` that stands in the way."""
    text: str
    """What to ask for instead."""
    effort_permille: int
    offers: int
    """How many would fit then."""
    provider: NodeKey
    """The cheapest of them."""
    msat_hour: Msat


class _Near(NamedTuple):
    """An offer with one thing in its way."""

    effort: int
    msat_hour: Msat
    provider: NodeKey
    offer: Offer


def changes(offers: Sequence[Offer], wish: Wish, risk: Risk = nobody) -> tuple[Change, ...]:
    """One for each thing that alone stands in the way of some offer, the smallest change first."""
    near: dict[str, list[_Near]] = {}
    for offer in offers:
        price = hourly_ceiling(offer, wish.limits)
        names = misfits(offer, wish, price)
        if len(names) == 1 and names[0] not in FIXED and not is_avoided(risk(offer.provider)):
            effort = _effort(names[0], offer, wish, price)
            near.setdefault(names[0], []).append(_Near(effort, price, offer.provider, offer))
    found = [_change(name, some, wish) for name, some in near.items()]
    return tuple(sorted(found, key=lambda x: (x.effort_permille, x.msat_hour, x.what)))


def _change(name: str, some: list[_Near], wish: Wish) -> Change:
    least = min(some)
    same = [x for x in some if x.effort <= least.effort]
    return Change(name, _text(name, least, wish), least.effort, len(same), least.provider, least.msat_hour)


def _effort(name: str, offer: Offer, wish: Wish, price: Msat) -> int:
    if name in SIZES:
        asked, free = getattr(wish.limits, name), getattr(offer.free, name)
        return int((asked - free) * 1000 // asked)
    if name == "max_msat_hour":
        most = wish.max_msat_hour or 0
        return (price - most) * 1000 // max(1, most)
    return OTHER[name]


def _text(name: str, near: _Near, wish: Wish) -> str:
    offer = near.offer
    match name:
        case "cpu_milli":
            return f"{offer.free.cpu_milli / 1000:g} cores instead of {wish.limits.cpu_milli / 1000:g}"
        case "memory_bytes" | "disk_bytes":
            free, asked = getattr(offer.free, name) >> 20, getattr(wish.limits, name) >> 20
            return f"{free} MiB of {name.removesuffix('_bytes')} instead of {asked}"
        case "max_msat_hour":
            return f"a maximum price of {-(-near.msat_hour // 1000)} sat an hour"
        case "min_msat_hour":
            return f"a larger deployment, of {whole_sat(offer.min_msat_hour)} sat an hour"
        case "network":
            return f"a wallet on {offer.network}"
        case _:
            return f"{name} {getattr(offer, name)}"
