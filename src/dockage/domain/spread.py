"""Which providers may stand beside each other: two replicas on one machine, line or operator fail together.

Measured in simulation (docs/explanation/it-stays-up.md): keeping replicas of two apart cut the unavailability tenfold.
The one rule: never two with one key or one /24 (/48 of IPv6); regions differ where the market lets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address

import msgspec

from .identity import NodeKey
from .offer import Offer


class Place(msgspec.Struct, frozen=True):
    """Where a replica is, as far as anybody can tell from outside."""

    provider: NodeKey
    lines: frozenset[str] = frozenset()
    """The /24 and /48 of its public addresses; empty where it shows none."""
    region: str = ""


def line_of(address: str) -> str:
    """The network of an ``ip:port``, in hex; "" of a private or loopback one, which say nothing: every home has
    192.168.1.x."""
    try:
        ip = ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed[: 6 if isinstance(ip, IPv6Address) else 3].hex() if ip.is_global else ""


def lines_of(direct: Iterable[str]) -> frozenset[str]:
    """The networks of a provider's addresses, as far as they tell."""
    return frozenset(line for address in direct if (line := line_of(address)))


def apart(one: Place, other: Place) -> bool:
    return one.provider != other.provider and not one.lines & other.lines


def spread(offers: Sequence[tuple[Offer, Place]], taken: Sequence[Place]) -> tuple[Offer, ...]:
    """Of *offers*, best first, those that stand apart from all of *taken*; those of a new region before the others,
    else in their order."""
    fit = [(offer, place) for offer, place in offers if all(apart(place, other) for other in taken)]
    regions = {place.region for place in taken}
    return tuple(offer for offer, _ in sorted(fit, key=lambda pair: pair[1].region in regions))
