"""How many replicas a load needs: by CPU from the meter, by requests in flight from the gateways, or both.

As the Kubernetes autoscaler counts (want = ceil(ready * measured / target), nothing within a tenth), with two bounds of
our own: up at most twofold in half a minute, down only to the most that was wanted in the last minutes. The one rule:
what a provider reports may cost our user more replicas, but never more than the labels and the ceiling allow.
"""

from __future__ import annotations

import msgspec

from .units import MINUTE, SECOND, Duration, Instant, since

TOLERANCE_PERCENT = 10
DOUBLING = Duration(30 * SECOND)
"""In this time the number at most doubles."""
RECENT_MAX = 512


class Scaling(msgspec.Struct, frozen=True):
    """What our user wants (labels ``dockage.scale-*``)."""

    least: int = 1
    most: int = 1
    cpu_percent: int | None = None
    """Of each replica's cores."""
    requests: int | None = None
    """In flight at once, each replica."""
    down_after: Duration = Duration(5 * MINUTE)

    @property
    def is_on(self) -> bool:
        return self.most > self.least and (self.cpu_percent is not None or self.requests is not None)


class Load(msgspec.Struct, frozen=True):
    """Of all replicas that serve, together."""

    cpu_milli: int | None = None
    """Used in the last seconds; None where nobody has told."""
    cpu_milli_each: int = 0
    """What one replica may use."""
    in_flight: int | None = None


class Scaler(msgspec.Struct, frozen=True):
    """What was wanted lately, oldest first: (when, how many, how many there were)."""

    recent: tuple[tuple[Instant, int, int], ...] = ()


def needed(scaling: Scaling, load: Load, ready: int) -> int:
    """Before any patience. Without a measure it stays as it is."""
    found = list[int]()
    if scaling.requests and load.in_flight is not None:
        found.append(_steady(load.in_flight, scaling.requests, ready))
    if scaling.cpu_percent and load.cpu_milli is not None and load.cpu_milli_each:
        found.append(_steady(load.cpu_milli * 100, scaling.cpu_percent * load.cpu_milli_each, ready))
    return max(found) if found else ready


def _steady(measured: int, target: int, ready: int) -> int:
    """Enough for *measured* at *target* each; *ready* where that is off by a tenth at most."""
    if ready and abs(measured - ready * target) * 100 <= TOLERANCE_PERCENT * ready * target:
        return ready
    return -(-measured // target)


def step(scaler: Scaler, scaling: Scaling, load: Load, ready: int, now: Instant) -> tuple[Scaler, int]:
    """The next moment, and how many should serve."""
    want = max(scaling.least, min(scaling.most, needed(scaling, load, ready)))
    kept = [each for each in scaler.recent if since(each[0], now) < scaling.down_after]
    recent = (*kept, (now, want, ready))[-RECENT_MAX:]
    if want < ready:
        want = min(ready, max(n for _, n, _ in recent))
    elif want > ready:
        before = [there for at, _, there in recent if since(at, now) < DOUBLING]
        want = max(ready, min(want, 2 * max(1, min(before))))
    return Scaler(recent), want
