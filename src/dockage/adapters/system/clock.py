"""The machine's clock: the only place in dockage that reads wall time."""

from __future__ import annotations

import time

from dockage.domain.units import Instant


class SystemClock:
    def now(self) -> Instant:
        return Instant(time.time_ns())
