"""Every bound of the market directory in one place."""

from __future__ import annotations

from dataclasses import dataclass

from dockage.protocol.dht_node import DEFAULT as UPKEEP
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
    upkeep: Upkeep = UPKEEP
    upkeep_sec: float = 30.0
    """Between two looks at what is over, due for a refresh, or for a newcomer."""
    repairs: int = 256
    """Waiting puts to holders that lacked a record; the oldest are dropped."""


DEFAULT = Limits()
