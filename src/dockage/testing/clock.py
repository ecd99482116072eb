"""A Clock that stands still until it is told."""

from __future__ import annotations

from dockage.domain.units import SECOND, Duration, Instant

START = Instant(1_800_000_000 * SECOND)


class ManualClock:
    def __init__(self, at: Instant = START) -> None:
        self._at = at

    def now(self) -> Instant:
        return self._at

    def pass_(self, time: Duration) -> None:
        self._at = Instant(self._at + time)
