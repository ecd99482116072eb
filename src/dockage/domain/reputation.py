"""What this node itself has seen of a provider, and how much dearer that makes its offers.

Evidence is local: statements that were agreed to and paid, channels that settled, breaches that were found. Nothing
that anybody claims counts. It is not kept anywhere by itself: it follows from the leases and channels in the journal.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .reason import Reason
from .units import HOUR, Duration, Instant, Msat, Sat

NEW_PERMILLE = 100
"""The risk of a provider we know nothing of: a tenth on top of its price."""
TRUSTED_TICKS = 24 * 3600
"""Agreed statements after which nothing of that is left: a day by the second."""
HALF_LIFE = Duration(7 * 24 * HOUR)
"""After which a breach weighs half."""
AVOIDED_PERMILLE = 3_000
"""Beyond this risk a provider is not chosen, unless our user names it."""
BREACHES_MAX = 8
"""Kept of one lease."""
WEIGHTS = {
    "statement.forked": 20_000,
    "statement.backwards": 20_000,
    "statement.sum": 10_000,
    "statement.terms": 10_000,
    "statement.impossible": 2_000,
    "meter.overstated": 6_000,
    "meter.short": 2_000,
    "provider.silent": 500,
    "host.slow": 200,
}
"""Permille that a breach of this code adds. What proves itself to others weighs most, accidents little; a machine that
is too busy is dear rather than shunned: it may have been a bad hour."""
SLOW_PERCENT = 60
"""A core slower than this part of the usual one weighs by how much slower it is."""


class Breach(msgspec.Struct, frozen=True):
    reason: Reason
    at: Instant


class Evidence(msgspec.Struct, frozen=True):
    """All that we know of one provider."""

    ticks: int = 0
    """Statements agreed to."""
    due_msat: Msat = Msat(0)
    settled: int = 0
    """Channels that closed as they should."""
    settled_sat: Sat = Sat(0)
    breaches: tuple[Breach, ...] = ()
    scores: tuple[int, ...] = ()
    """Of the newest probes of each lease, hashes per core-millisecond."""

    @property
    def score(self) -> int:
        """The median; 0 if it was never probed."""
        return sorted(self.scores)[len(self.scores) // 2] if self.scores else 0


UNKNOWN = Evidence()


def weight(breach: Breach, now: Instant) -> int:
    halvings = max(0, now - breach.at) // HALF_LIFE
    return WEIGHTS.get(breach.reason.code, 0) >> min(halvings, 32)


def risk_permille(evidence: Evidence, now: Instant, usual_score: int = 0) -> int:
    """What to add to a price: 100 is a tenth. *usual_score* is the median over all providers; 0 = not known."""
    unproven = NEW_PERMILLE * max(0, TRUSTED_TICKS - evidence.ticks) // TRUSTED_TICKS
    broken = sum(weight(breach, now) for breach in evidence.breaches)
    return unproven + broken + _slowness(evidence.score, usual_score)


def _slowness(score: int, usual: int) -> int:
    """A core that does half the work costs twice as much for it."""
    if not score or score * 100 >= usual * SLOW_PERCENT:
        return 0
    return usual * 1000 // score - 1000


def usual_score(known: Iterable[Evidence]) -> int:
    """The median speed over providers: replicas of one deployment are compared by it too. Two tell nothing."""
    scores = sorted(evidence.score for evidence in known if evidence.score)
    return scores[len(scores) // 2] if len(scores) > 2 else 0


def is_avoided(risk: int) -> bool:
    return risk >= AVOIDED_PERMILLE


def worst(evidence: Evidence, now: Instant) -> Breach | None:
    return max(evidence.breaches, key=lambda breach: (weight(breach, now), breach.at), default=None)
