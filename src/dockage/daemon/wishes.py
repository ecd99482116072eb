"""The ``dockage.*`` labels: what Docker has no word for. Each field's docstring is its manual entry."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dockage.domain.errors import UsageError
from dockage.domain.offer import ISOLATIONS, OPACITIES
from dockage.domain.units import Msat, Sat, msat

PREFIX = "dockage."


class Wishes(msgspec.Struct, frozen=True):
    region: str = ""
    """``dockage.region``: only providers of this region."""
    provider: str = ""
    """``dockage.provider``: only the provider whose key begins with these hex digits."""
    max_msat_hour: Msat | None = None
    """``dockage.max-price``: sat per hour that the worst case may cost, network aside."""
    channel_sat: Sat | None = None
    """``dockage.channel-sat``: the size of a new payment channel, in satoshis; without it, what ``channel.hours`` of
    the worst case cost."""
    opacity: str = "open"
    """``dockage.opacity``: what the provider may see at most: ``open``, ``sealed`` or ``confidential``."""
    isolation: str = "container"
    """``dockage.isolation``: what keeps the container from the provider's machine at least: ``container``, ``gvisor``
    or ``vm``."""


def read_wishes(labels: Mapping[str, str]) -> Wishes:
    """From a container's labels; others than ``dockage.*`` are ignored. Raises UsageError("label.*")."""
    wishes = Wishes()
    for label, value in labels.items():
        if label.startswith(PREFIX):
            wishes = msgspec.structs.replace(wishes, **_read(label.removeprefix(PREFIX), value.strip()))
    return wishes


def _read(name: str, value: str) -> dict[str, object]:
    match name:
        case "region" | "provider":
            return {name: value.lower()}
        case "max-price":
            return {"max_msat_hour": msat(_sat(name, value))}
        case "channel-sat":
            return {"channel_sat": _sat(name, value)}
        case "opacity":
            return {name: _one_of(name, value, OPACITIES)}
        case "isolation":
            return {name: _one_of(name, value, ISOLATIONS)}
        case _:
            raise UsageError(
                "label.unknown", f"there is no label {PREFIX}{name}; see docs/reference/labels.md"
            )


def _sat(name: str, value: str) -> Sat:
    if not value.isdecimal() or len(value) > 15:
        raise UsageError("label.number", f"{PREFIX}{name} takes a whole number of satoshis, not {value!r}")
    return Sat(int(value))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError("label.value", f"{PREFIX}{name} is one of {', '.join(allowed)}, not {value!r}")
    return value
