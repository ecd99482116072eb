"""Whether a relay is paid for, by whom nobody else can reach: decided here, performed by ``daemon/paidrelay.py``.

Free relays come first: one is rented once none has answered for a while, within a budget for a day, and given back once
a free one is in use. A relay that takes what we send and brings nothing is left.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from dockage.domain.identity import LeaseId
from dockage.domain.pricing import Tariff, price
from dockage.domain.reason import Reason
from dockage.domain.resources import INGRESS
from dockage.domain.units import HOUR, SECOND, Duration, Instant, Msat, Sat, after, msat
from dockage.domain.unseen import IN_FLIGHT
from dockage.domain.usage import Usage, full_use

PATIENCE = Duration(5 * SECOND)
"""Without a free relay before a paid one is looked for."""
AGAIN, AGAIN_MAX = Duration(5 * SECOND), Duration(300 * SECOND)
"""After one that was not to be had or failed; doubled with each."""
DEAF_BYTES, DEAF_AFTER = 1 << 16, Duration(15 * SECOND)
"""So much sent, so long ago, and nothing came since: a connection is never that quiet."""
DAY = Duration(24 * HOUR)
UNEARNED = Usage(net_in_bytes=IN_FLIGHT, net_out_bytes=IN_FLIGHT) + full_use(INGRESS, HOUR)
"""What a relay that passes nothing on can state in an hour without being found out."""

NO_BUDGET = Reason(
    "relay.none",
    "no free relay answers, and node.relay_budget_sat is 0: who is behind another NAT may not reach this node. Name a "
    "relay (node.relays), or set a budget to rent one",
)
SPENT = Reason(
    "relay.budget",
    "the day's budget for relays is spent (node.relay_budget_sat): until tomorrow only free ones are used",
)
FREE = Reason("relay.free", "a free relay is used again")
DEAF = Reason("relay.deaf", "the relay takes what we send and passes nothing on to us")
RESTARTED = Reason("lease.cancelled", "the daemon was restarted")


class Spending(msgspec.Struct, frozen=True):
    """What was paid to relays on one day (UTC)."""

    day: int = 0
    """Since the epoch."""
    spent: Msat = Msat(0)
    lease: LeaseId = LeaseId(b"")
    seen: Msat = Msat(0)
    """Of that lease, counted already."""


def spend(before: Spending, lease: LeaseId, due: Msat, now: Instant) -> Spending:
    """*due* is all that the lease has come to; only what is new is added."""
    day, known = now // DAY, before.seen if before.lease == lease else 0
    spent = (before.spent if day == before.day else 0) + max(0, due - known)
    return Spending(day, Msat(spent), lease, Msat(max(due, known)))


def is_affordable(tariff: Tariff, budget: Sat) -> bool:
    """Whether a lie costs a small part of the day's budget. Without this one statement could take a whole channel."""
    return 4 * price(UNEARNED, tariff) <= msat(budget)


class Heard(msgspec.Struct, frozen=True):
    """Bytes by our own count when something came last."""

    sent: int = 0
    received: int = 0
    at: Instant = Instant(0)


class PaidRelay(msgspec.Struct, frozen=True):
    budget_sat: Sat = Sat(0)
    """For a day; 0: never."""
    spending: Spending = Spending()
    lease: LeaseId | None = None
    heard: Heard = Heard()
    lacking: Instant = Instant(0)
    """Since when there is no free one; 0: there is."""
    again: Instant = Instant(0)
    failures: int = 0
    trouble: Reason | None = None
    """Why there is no relay that we could be reached by."""

    def spent_on(self, now: Instant) -> Msat:
        """On the day of *now*."""
        return self.spending.spent if self.spending.day == now // DAY else Msat(0)


class Looked(msgspec.Struct, frozen=True):
    has_free: bool
    """A free relay answers."""
    uses_free: bool
    """And is the one that we are reached by."""
    due: Msat = Msat(0)
    """What our lease has come to, or the last one that we had."""
    sent: int = 0
    received: int = 0
    """Through it, by our own count."""
    ended: Reason | None = None
    """Why our lease is over or leaving, if it is."""


class Rented(msgspec.Struct, frozen=True):
    lease: LeaseId


class NotRented(msgspec.Struct, frozen=True):
    reason: Reason


class Rent(msgspec.Struct, frozen=True):
    """The cheapest that fits; ``Rented`` or ``NotRented`` is to follow."""


class End(msgspec.Struct, frozen=True):
    lease: LeaseId
    reason: Reason
    failed: bool = False
    """It is not to be asked again for a while."""


Event: TypeAlias = Looked | Rented | NotRented
Effect: TypeAlias = Rent | End


def step(state: PaidRelay, event: Event, now: Instant) -> tuple[PaidRelay, tuple[Effect, ...]]:
    match event:
        case Looked():
            return _looked(state, event, now)
        case Rented(lease):
            return replace(state, lease=lease, heard=Heard(at=now), trouble=None), ()
        case NotRented(reason):
            return _failed(state, reason, now), ()


def _looked(state: PaidRelay, event: Looked, now: Instant) -> tuple[PaidRelay, tuple[Effect, ...]]:
    lease = state.lease
    if known := lease or state.spending.lease:
        state = replace(state, spending=spend(state.spending, known, event.due, now))
    if lease is None:
        return _without(state, event, now)
    if event.received > state.heard.received:
        heard = Heard(event.sent, event.received, now)
        state = replace(state, heard=heard, failures=0)
    if event.ended is not None:
        return _failed(state, event.ended, now), (End(lease, event.ended, failed=True),)
    if _is_spent(state, now):
        return replace(state, lease=None, trouble=SPENT), (End(lease, SPENT),)
    if event.uses_free:
        return replace(state, lease=None, lacking=Instant(0)), (End(lease, FREE),)
    if event.sent - state.heard.sent >= DEAF_BYTES and now - state.heard.at >= DEAF_AFTER:
        return _failed(state, DEAF, now), (End(lease, DEAF, failed=True),)
    return state, ()


def _without(state: PaidRelay, event: Looked, now: Instant) -> tuple[PaidRelay, tuple[Effect, ...]]:
    if event.has_free:
        return replace(state, lacking=Instant(0), again=Instant(0), failures=0, trouble=None), ()
    state = replace(state, lacking=state.lacking or now)
    if now - state.lacking < PATIENCE:
        return state, ()
    if not state.budget_sat:
        return replace(state, trouble=NO_BUDGET), ()
    if _is_spent(state, now):
        return replace(state, trouble=SPENT), ()
    return state, (Rent(),) if now >= state.again else ()


def _is_spent(state: PaidRelay, now: Instant) -> bool:
    return state.spent_on(now) >= msat(state.budget_sat)


def _failed(state: PaidRelay, reason: Reason, now: Instant) -> PaidRelay:
    pause = Duration(min(AGAIN_MAX, AGAIN << min(state.failures, 10)))
    return replace(state, lease=None, trouble=reason, again=after(now, pause), failures=state.failures + 1)
