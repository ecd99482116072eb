"""What a provider can state that nobody else counts, and what that may cost: the room that each check of a bill leaves.

Counterpart: ``statement.py``, which refuses what is beyond it. The one rule: a lie that fits in may cost a tenant half
a day's rent, never a channel.
"""

from __future__ import annotations

from .pricing import Tariff
from .units import GIB, MIB, SECOND, Duration, Msat, Sat, msat
from .usage import Usage

CLOCK_SLACK = Duration(5 * SECOND)
"""Two machines' clocks, a message on its way, a start-up charged at once."""
IN_FLIGHT = 32 * MIB
"""Tunnel bytes that one end has counted and the other has not yet."""
INTERNET_RATE = 12_500_000
"""Bytes a second (100 Mbit/s, sustained). The tenant can't count what a container sends to the internet by
itself: this bounds what a liar can make of it."""
INTERNET_BURST = 256 * MIB
REPLICA_RATE = 1_250_000_000
"""Bytes a second (10 Gbit/s, sustained) between containers: the tenant can't count these from outside either."""

AT_ONCE = Usage(
    net_in_bytes=IN_FLIGHT,
    net_out_bytes=IN_FLIGHT,
    internet_out_bytes=INTERNET_BURST + INTERNET_RATE * CLOCK_SLACK // SECOND,
    replica_out_bytes=REPLICA_RATE * CLOCK_SLACK // SECOND,
)
"""In the first statement of a lease in which nothing was done."""
HOURS, LEAST = 12, msat(Sat(250))
"""It may cost the worst case of so many hours, or so much: what costs little by the hour, such as a place at a gateway,
is paid by the byte."""

SETUP_USUAL = Sat(1000)
"""A provider's light wallet needs a third of it to see its channel."""


def unseen(tariff: Tariff, *, runs: bool = True) -> Msat:
    """``price(AT_ONCE, tariff)``, for thousands of tariffs. *runs*: what is rented can hold containers."""
    passed = AT_ONCE.net_in_bytes * tariff.net_in_gib + AT_ONCE.net_out_bytes * tariff.net_out_gib
    if runs:
        passed += AT_ONCE.internet_out_bytes * tariff.internet_out_gib
        passed += AT_ONCE.replica_out_bytes * tariff.replica_out_gib
    return Msat(passed // GIB)


def is_risky(unseen_msat: Msat, msat_hour: Msat) -> bool:
    """Whether a lie would cost too much; *msat_hour* is the worst case of what is rented, network aside."""
    return unseen_msat > max(HOURS * msat_hour, LEAST)


def is_bait(setup: Sat, msat_hour: Msat) -> bool:
    """Whether a provider that only takes the *setup* output of a funding, and never serves, would gain much."""
    return setup > SETUP_USUAL and msat(setup) > HOURS * msat_hour
