"""Who may act for a deployment now: a term is a promise with an end, given by those who route its traffic.

A controller acts only within its term, and renews it with a majority of the *witnesses* (the deployment's gateways). A
witness says yes to another controller only once the old term is over on its own clock. So two controllers never both
act, as long as clocks run at the same pace within ``DRIFT``. Without deputies there is nobody to ask: one controller,
one term without an end.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec.structs import replace

from .identity import NodeKey
from .units import SECOND, Duration, Instant, after

LENGTH = Duration(15 * SECOND)
DRIFT = Duration(2 * SECOND)
"""A holder stops so much before its end: pace of clocks, and what is under way."""
NOBODY = NodeKey(b"")


class Term(msgspec.Struct, frozen=True):
    """As its holder knows it."""

    epoch: int = 0
    until: Instant = Instant(0)
    sole: bool = False
    """There are no deputies: nobody has to be asked."""
    asked_at: Instant = Instant(0)
    """When the renewal that is under way was sent: the term counts from then, not from the answers."""
    granted_by: frozenset[NodeKey] = frozenset()

    def allows(self, now: Instant) -> bool:
        return self.sole or now + DRIFT < self.until


SOLE = Term(sole=True)


def ask(term: Term, epoch: int, now: Instant) -> Term:
    """Begin to renew (the same *epoch*) or to take over (a higher one)."""
    return replace(term, epoch=epoch, asked_at=now, granted_by=frozenset())


def granted(term: Term, by: NodeKey, epoch: int, asked_at: Instant, witnesses: Collection[NodeKey]) -> Term:
    """A witness said yes to what was asked at *asked_at*; an answer to an older question counts for nothing."""
    if by not in witnesses or epoch != term.epoch or asked_at != term.asked_at or not term.asked_at:
        return term
    by_now = term.granted_by | {by}
    if 2 * len(by_now) <= len(witnesses):
        return replace(term, granted_by=by_now)
    return replace(term, granted_by=by_now, until=max(term.until, after(term.asked_at, LENGTH)))


class Witness(msgspec.Struct, frozen=True):
    """One gateway's memory of one deployment."""

    epoch: int = 0
    holder: NodeKey = NOBODY
    until: Instant = Instant(0)


def consider(witness: Witness, holder: NodeKey, epoch: int, now: Instant) -> tuple[Witness, bool]:
    """Whether *holder* may have the term: its own again, or a newer one once the old is over."""
    if epoch < witness.epoch or (epoch == witness.epoch and holder != witness.holder):
        return witness, False
    if holder != witness.holder and now < witness.until:
        return witness, False
    return Witness(epoch, holder, after(now, LENGTH)), True
