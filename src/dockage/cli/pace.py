"""How fast counters move: each thing's over its own last seconds, by the clock that it was counted by.

Not by ours: a statement that comes late would look like a burst.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

WINDOW_MS = 6000
"""Shorter jumps with every tick, longer hides a change."""
SILENT_SEC = 5.0
"""What has not been counted anew for so long does not move."""

Counts = tuple[int, ...]
Rates = tuple[float, ...]
"""A second."""


class Pace:
    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[int, Counts]]] = {}
        self._heard: dict[str, float] = {}

    def look(self, things: Mapping[str, tuple[int, Counts]], now: float | None = None) -> dict[str, Rates]:
        """*things*: when each was counted (ms, its clock) and its counters. None before the second look at one; what
        is not named any more is forgotten."""
        at = time.monotonic() if now is None else now
        self._looks = {name: looks for name, looks in self._looks.items() if name in things}
        self._heard = {name: heard for name, heard in self._heard.items() if name in things}
        found = {name: self._one(name, *thing, at) for name, thing in things.items()}
        return {name: rates for name, rates in found.items() if rates is not None}

    def _one(self, name: str, at_ms: int, counts: Counts, now: float) -> Rates | None:
        looks = self._looks.setdefault(name, deque())
        if looks and at_ms < looks[-1][0]:
            looks.clear()  # its clock was set back
        if not looks or at_ms > looks[-1][0]:
            looks.append((at_ms, counts))
            self._heard[name] = now
        while len(looks) > 2 and looks[1][0] <= at_ms - WINDOW_MS:
            looks.popleft()
        if now - self._heard[name] > SILENT_SEC:
            return (0.0,) * len(counts)
        (began, before), (ended, after) = looks[0], looks[-1]
        if ended == began:
            return None
        pairs = zip(before, after, strict=True)
        return tuple(max(0, b - a) * 1000 / (ended - began) for a, b in pairs)
