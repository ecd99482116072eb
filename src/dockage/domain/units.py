"""Quantities that must never be mixed up, and never be floats.

Every unit of money, time and use in dockage is one of these integers; conversions
live here and nowhere else.
"""

from decimal import Decimal, InvalidOperation
from typing import NewType

Msat = NewType("Msat", int)
"""Thousandths of a satoshi: what is owed. On-chain and channel amounts are whole satoshis."""
Sat = NewType("Sat", int)
"""Satoshis: what a channel signs and the chain settles."""
Instant = NewType("Instant", int)
"""Nanoseconds since the Unix epoch, as read from the node's clock port."""
Duration = NewType("Duration", int)
"""Nanoseconds."""

MILLISECOND = Duration(1_000_000)
SECOND = Duration(1_000_000_000)
MINUTE = Duration(60 * SECOND)
HOUR = Duration(60 * MINUTE)

MIB = 1 << 20
GIB = 1 << 30


def micro(text: str) -> int:
    """``61234.5`` in millionths, exactly. Raises ValueError for what is no positive number below 10^15."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"no positive number: {text[:40]!r}") from None
    if not (number.is_finite() and 0 < number < 10**15):
        raise ValueError(f"no positive number: {text[:40]!r}")
    return int(number * 1_000_000)


def whole_sat(amount: Msat) -> Sat:
    """The part of *amount* that a channel can sign; the remainder stays with the tenant."""
    return Sat(amount // 1000)


def msat(amount: Sat) -> Msat:
    return Msat(amount * 1000)


def after(instant: Instant, duration: Duration) -> Instant:
    return Instant(instant + duration)


def since(earlier: Instant, now: Instant) -> Duration:
    return Duration(now - earlier)
