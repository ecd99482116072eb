"""When a channel needs a successor: early enough that nobody has to wait for a confirmation.

The tenant opens the successor while the old channel still pays; payments move over by themselves, since what is due
and what is signed are sums over the pair. So this is the whole of a refill: to know when.
"""

from __future__ import annotations

from collections.abc import Iterable

from .channel import STOP_BEFORE_EXPIRY, Channel, ChannelState
from .units import HOUR, MINUTE, Duration, Msat, Sat

BLOCK = Duration(10 * MINUTE)
REFILL_BEFORE_EXPIRY = STOP_BEFORE_EXPIRY + 72
"""Blocks. Half a day for the tenant's machine to come online before leases end."""
HANDLING = Duration(2 * MINUTE)
"""To agree on the successor and to build its funding, where credit bridges the confirmations."""


def lead(needed: int) -> Duration:
    """How long *needed* confirmations may take: longer in 3 of 1,000 cases (a Poisson process of ten minutes)."""
    return Duration((2 * needed + 4) * BLOCK)


def floor(msat_hour: Msat, needed: int, credit: Sat) -> Sat:
    """What must be left when a successor is proposed, at this rate; *credit* is served before it confirms."""
    until_confirmed = _used(msat_hour, lead(needed)) - credit
    return Sat(max(until_confirmed, _used(msat_hour, HANDLING)))


def _used(msat_hour: Msat, time: Duration) -> int:
    """Satoshis, rounded up."""
    return -(-msat_hour * time // (HOUR * 1000))


def needs_successor(channels: Iterable[Channel], height: int, msat_hour: Msat, credit: Sat) -> bool:
    """Whether the *channels* of one pair will not last. One that is being opened is enough. A channel that is too
    small for the rate is refilled at half: else each would want its successor at once."""
    known = list(channels)
    if any(c.state is ChannelState.OPENING for c in known):
        return False
    lasting = [c for c in known if c.serves_at(height + REFILL_BEFORE_EXPIRY - STOP_BEFORE_EXPIRY)]
    largest = max(lasting, key=lambda c: c.terms.spendable, default=None)
    if largest is None:
        return True
    left = sum(c.remaining for c in lasting)
    return left <= min(floor(msat_hour, largest.needed, credit), largest.terms.spendable // 2)
