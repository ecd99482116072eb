"""The tenant pays: each statement is checked against what it knows by itself, and only then signed for.

Counterpart: ``provider_billing.py``. The one rule: a wrong statement is never paid, not in part and not later;
nothing that was used after the lease's end is paid either.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.checks import after_statement
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.lease import METERED
from dockage.domain.offer import ENGINE
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.domain.statement import Statement, View, contradiction, fault, overcharge
from dockage.domain.units import Duration, Instant, Sat, since
from dockage.protocol import messages as say

from . import effects as want
from .rented import (
    BY_LOOKS,
    LEAVING,
    Effects,
    RentedLease,
    Tenant,
    account,
    accused,
    disputed,
    end,
    paced,
    paying_channels,
    put_channel,
    reconciled,
    store,
)
from .tenant_refill import is_refilling

HEALS = frozenset({"statement.impossible"})
"""Faults that a later statement can make right: one side was late, or its counters were."""
DISPUTED = Reason("lease.disputed", "what is stated is not what we know, and it did not heal")
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
    if lease.fenced:
        return state, (want.Send(lease.provider, say.EndLease(lease.id)),)
    if lease.last is not None and statement == lease.last:
        return _pay(state, lease, statement.received_sat, now)  # said again: our payment was lost
    if lease.last is not None and statement.seq < lease.last.seq:
        return state, ()  # overtaken on the way: totals are cumulative, so nothing is missed
    wrong = _fault(lease, statement, view or BLIND, now)
    if wrong is not None:
        proof = _accuse(lease, statement, signature)
        faulty = replace(lease, heard_at=now, faults=lease.faults + 1)
        state, effects = _on_fault(state, accused(faulty, wrong, now) if proof else faulty, wrong, now)
        return state, (*proof, *effects)
    if lease.dispute is not None and not lease.dispute.code.startswith(BY_LOOKS):
        lease = reconciled(lease)
    checks = after_statement(lease.checks, statement, now)
    agreed = replace(
        lease,
        heard_at=now,
        last=statement,
        last_signature=signature,
        faults=0,
        checks=checks,
        pace=paced(lease, statement),
    )
    if is_unsettled(state, agreed, now):
        return end(store(state, agreed), agreed, agreed.dispute or DISPUTED, now)
    state, effects = _pay(store(state, agreed), agreed, statement.received_sat, now)
    return state, (*effects, *_leave_again(agreed, now))


def _fault(lease: RentedLease, statement: Statement, view: View, now: Instant) -> Reason | None:
    seen = View(view.sent_bytes, view.received_bytes, lease.elapsed(now))
    assert lease.quote is not None
    runs = lease.service == ENGINE
    return fault(statement, lease.last, lease.most, lease.quote, seen, lease.allowed, runs=runs)


def is_unsettled(state: Tenant, lease: RentedLease, now: Instant) -> bool:
    """A dispute that only a look could have healed, and none did in time."""
    waited = since(lease.disputed_at, now)
    return lease.dispute is not None and waited > state.policy.dispute_max and lease.state in METERED


def _accuse(lease: RentedLease, statement: Statement, signature: bytes) -> Effects:
    """If what the provider signed before proves the fault to anybody, and not only to us."""
    if lease.last is not None and contradiction(lease.last, statement):
        return (want.Accuse(lease.provider, lease.last, lease.last_signature, statement, signature),)
    if lease.quote is not None and overcharge(lease.quote, statement):
        return (want.Accuse(lease.provider, lease.quote, lease.quote_signature, statement, signature),)
    return ()


def _on_fault(state: Tenant, lease: RentedLease, wrong: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """Payment pauses. What can't heal is a breach after a few in a row; what can, once it takes too long. Not after we
    left, though: a provider that could not hear of it goes on billing the time, honestly and in vain."""
    hopeless = wrong.code not in HEALS and lease.faults >= state.policy.faults_max
    lease = disputed(lease, wrong, now)
    waited = since(lease.disputed_at, now)
    too_long = wrong.code in HEALS and waited > state.policy.dispute_max and not lease.is_leaving
    if hopeless or too_long:
        lease = accused(lease, wrong, now)
    state = store(state, lease)
    if (hopeless or too_long) and lease.state in METERED:
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
    """What is owed goes on the channels that can pay, one after the other; what was signed before and never
    arrived, again."""
    provider = lease.provider
    before = account(state, provider)
    again = _pay_again(state, provider) if before.paid > received else ()
    owed, new = before.owed_sat, dict[ChannelId, want.Pay]()
    for channel in paying_channels(state, provider) if owed else ():
        paid = Sat(channel.paid + min(owed, channel.remaining))
        owed = Sat(owed - (paid - channel.paid))
        state = put_channel(state, channels.pay(channel, paid, b""))
        new[channel.id] = want.Pay(provider, channel.id, paid)
        if not owed:
            break
    effects: Effects = (*(x for x in again if x.channel not in new), *new.values())
    if new or not owed or lease.tariff.is_free or is_refilling(state, provider):
        return state, effects
    state, more = end(state, lease, _exhausted(state, provider), now)
    return state, (*effects, *more)


def _exhausted(state: Tenant, provider: NodeKey) -> Reason:
    refill = state.refills.get(provider)
    if refill is None or refill.hindrance is None:
        return EXHAUSTED
    text = f"the channel is used up, and there is no successor: {refill.hindrance.text}"
    return Reason(EXHAUSTED.code, text[:TEXT_MAX])


def _pay_again(state: Tenant, provider: NodeKey) -> tuple[want.Pay, ...]:
    """The provider holds less than we signed: a payment was lost, or is still on its way. It is cumulative."""
    mine = [c for c in state.channels.of(provider) if c.is_live and c.paid]
    return tuple(want.Pay(provider, c.id, c.paid) for c in mine)
