"""Every bound of the market directory in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds."""

    question_sec: float = 2.0
    """One request and its answer, dialling included."""
    paging_sec: float = 4.0
    """All further pages of one peer."""
    lookup_sec: float = 15.0
    """A whole publication or search; a search then returns what it has."""
    questions: int = 64
    """Of ours under way at once, over all lookups."""
    pages: int = 64
    """Of one peer's listing."""
    seeds: int = 32
    """Remembered of each source: one that is full of lies pushes out only its own."""
    rate: int = 50
    """Requests a second that one peer is answered; a put counts one for each record besides."""
    burst: int = 500
    served: int = 256
    """Requests of all peers being answered at once."""
    expire_sec: float = 30.0
    refresh_sec: float = 300.0


DEFAULT = Limits()
