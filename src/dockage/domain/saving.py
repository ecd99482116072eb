"""Whether a cheaper offer is worth a move: by our user's own threshold, and not too often.

Counterpart: ``node/controller_saving.py``. The one rule: a move must save the threshold of what is paid now, by the
price that the new provider really quotes; so prices that go up and down within it move nothing.
"""

from __future__ import annotations

import msgspec

from .units import HOUR, Duration, Msat


class Saving(msgspec.Struct, frozen=True):
    """What our user allows (labels ``dockage.move-*``)."""

    percent: int | None = None
    """At least so much cheaper; None: nothing moves for its price."""
    pause: Duration = HOUR
    """Between two moves, and after the beginning."""

    def limit(self, now: Msat) -> Msat:
        """The most that the new one may cost an hour, beside *now*. Rounded down: in our user's favour."""
        return Msat(now * (100 - (self.percent or 0)) // 100)
