"""The machine's clock: the only place in dockage that reads wall time.

Bills and terms are about how much time has passed, so a step (somebody, or a time server, sets the clock) does not
move ours: it goes on by what the kernel counts since the boot, time asleep included, until it is told to ``follow``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from dockage.domain.units import Duration, Instant

_since_boot = partial(time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    def __init__(
        self, wall: Callable[[], int] = time.time_ns, passed: Callable[[], int] = _since_boot
    ) -> None:
        self._wall, self._passed = wall, passed
        self._ahead = wall() - passed()

    def now(self) -> Instant:
        return Instant(self._passed() + self._ahead)

    def stepped(self) -> Duration:
        """How far the machine's clock was set forwards, or back (below zero), and we did not follow."""
        return Duration(self._wall() - self._passed() - self._ahead)

    def follow(self) -> None:
        self._ahead += self.stepped()
