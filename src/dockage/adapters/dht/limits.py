"""Every bound of the market directory in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dockage.domain.units import SECOND, Duration
from dockage.protocol.dht_node import Upkeep


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds."""

    question_sec: float = 2.0
    """One request and its answer, dialling included."""
    lookup_sec: float = 15.0
    """A whole publication or search; a search then returns what it has."""
    questions: int = 64
    """Of ours under way at once, over all lookups."""
    seeds: int = 32
    """Remembered of each source: one that is full of lies pushes out only its own."""
    served: int = 256
    """Requests of all peers being answered at once."""
    rate: int = 50
    """Requests a second that one peer is answered; a put counts one for each record besides."""
    burst: int = 500
    refresh_sec: float = 3600.0
    """Of one bucket of the routing table."""
    refill_sec: float = 300.0
    """Of one that is less than half full."""
    upkeep_sec: float = 30.0
    """Between two looks at what is over, due for a refresh, or for a newcomer."""
    repairs: int = 256
    """Waiting puts to holders that lacked a record; the oldest are dropped."""

    @property
    def upkeep(self) -> Upkeep:
        refresh, refill = (Duration(int(sec * SECOND)) for sec in (self.refresh_sec, self.refill_sec))
        return Upkeep(self.rate, self.burst, refresh, refill)


DEFAULT = Limits()
