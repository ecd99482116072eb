"""When a deployment that nobody asks for anything may sleep, and when it wakes: by what its gateways say.

Counterpart: ``scaling.py``, for how many there are while it is awake. The one rule: it sleeps only while every gateway
is heard; who is not heard may hold a request.
"""

from __future__ import annotations

import msgspec

from .units import Duration, Instant, since


class Asked(msgspec.Struct, frozen=True):
    """Of all gateways of a deployment together."""

    in_flight: int
    """Requests and connections now."""
    total: int
    """So far, by each gateway's own beginning: any change is a request."""
    wanted: bool
    """Somebody waits, and nothing serves."""


class Rest(msgspec.Struct, frozen=True):
    asked_at: Instant = Instant(0)
    """The last moment at which somebody may have wanted something."""
    total: int = -1


def step(rest: Rest, seen: Asked | None, after: Duration, now: Instant) -> tuple[Rest, bool]:
    """The next moment, and whether it may sleep. *seen*: None while a gateway is not heard."""
    if seen is None:
        return Rest(now, rest.total), False
    if seen.in_flight or seen.wanted or seen.total != rest.total:
        return Rest(now, seen.total), False
    return rest, since(rest.asked_at, now) >= after
