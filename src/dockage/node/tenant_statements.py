"""The tenant pays: each statement is checked against what it knows by itself, and only then signed for.

Counterpart: ``provider_billing.py``. The one rule: a wrong statement is never paid, not in part and not later;
nothing that was used after the lease's end is paid either.
"""

from __future__ import annotations

from dataclasses import replace

from dockage.domain import channel as channels
from dockage.domain.identity import NodeKey
from dockage.domain.lease import METERED
from dockage.domain.reason import Reason
from dockage.domain.statement import Statement, View, contradiction, fault, overcharge
from dockage.domain.units import Duration, Instant, Sat
from dockage.protocol import messages as say

from . import effects as want
from .rented import (
    LEAVING,
    Effects,
    RentedLease,
    Tenant,
    account,
    channels_to,
    end,
    paying_channel,
    put_channel,
    store,
)

BILLED = METERED | LEAVING
EXHAUSTED = Reason("channel.exhausted", "the channel is used up; open a larger one")
BLIND = View(sent_bytes=0, received_bytes=0, elapsed=Duration(0))


def on_statement(
    state: Tenant,
    lease: RentedLease,
    statement: Statement,
    signature: bytes,
    view: View | None,
    now: Instant,
) -> tuple[Tenant, Effects]:
    if lease.quote is None or lease.state not in BILLED:
        return state, ()
    if lease.last is not None and statement == lease.last:
        return _pay(state, lease, statement.received_sat, now)  # said again: our payment was lost
    if lease.last is not None and statement.seq < lease.last.seq:
        return state, ()  # overtaken on the way: totals are cumulative, so nothing is missed
    wrong = _fault(lease, statement, view or BLIND, now)
    if wrong is not None:
        state, effects = _on_fault(state, replace(lease, heard_at=now, faults=lease.faults + 1), wrong, now)
        return state, (*_accuse(lease, statement, signature), *effects)
    agreed = replace(lease, heard_at=now, last=statement, last_signature=signature, faults=0)
    state, effects = _pay(store(state, agreed), agreed, statement.received_sat, now)
    return state, (*effects, *_leave_again(agreed, now))


def _fault(lease: RentedLease, statement: Statement, view: View, now: Instant) -> Reason | None:
    seen = View(view.sent_bytes, view.received_bytes, lease.elapsed(now))
    assert lease.quote is not None
    return fault(statement, lease.last, lease.most, lease.quote, seen, lease.allowed)


def _accuse(lease: RentedLease, statement: Statement, signature: bytes) -> Effects:
    """If what the provider signed before proves the fault to anybody, and not only to us."""
    if lease.last is not None and contradiction(lease.last, statement):
        return (want.Accuse(lease.provider, lease.last, lease.last_signature, statement, signature),)
    if lease.quote is not None and overcharge(lease.quote, statement):
        return (want.Accuse(lease.provider, lease.quote, lease.quote_signature, statement, signature),)
    return ()


def _on_fault(state: Tenant, lease: RentedLease, wrong: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """After a few wrong statements in a row we leave."""
    state = store(state, lease)
    if lease.faults >= state.policy.faults_max and lease.state in METERED:
        return end(state, lease, wrong, now)
    return state, _leave_again(lease, now)


def _leave_again(lease: RentedLease, now: Instant) -> Effects:
    """Bills for a time after we left: the provider does not know that we did."""
    if not lease.is_over or now <= lease.left_until:
        return ()
    if lease.last is not None and lease.last.at <= lease.left_until and not lease.faults:
        return ()
    return (want.Send(lease.provider, say.EndLease(lease.id)),)


def _pay(state: Tenant, lease: RentedLease, received: Sat, now: Instant) -> tuple[Tenant, Effects]:
    """What is owed goes on the oldest channel that can pay; what was signed before and never arrived, again."""
    before = account(state, lease.provider)
    again = _pay_again(state, lease.provider) if before.paid > received else ()
    if not before.owed_sat:
        return state, again
    channel = paying_channel(state, lease.provider)
    if channel is None:
        if lease.tariff.is_free:
            return state, again
        state, effects = end(state, lease, EXHAUSTED, now)
        return state, (*again, *effects)
    paid = Sat(min(channel.paid + before.owed_sat, channel.terms.spendable))
    state = put_channel(state, channels.pay(channel, paid, b""))
    older = tuple(x for x in again if x.channel != channel.id)
    return state, (*older, want.Pay(lease.provider, channel.id, paid))


def _pay_again(state: Tenant, provider: NodeKey) -> tuple[want.Pay, ...]:
    """The provider holds less than we signed: a payment was lost, or is still on its way. It is cumulative."""
    mine = [c for c in channels_to(state, provider) if c.is_live and c.paid]
    return tuple(want.Pay(provider, c.id, c.paid) for c in mine)
