"""The provider sells: it quotes, opens, grows and clears leases.

Counterpart: ``tenant_leases.py``. The one rule: a quote binds us and nobody remembers it; it comes back signed
by ourselves, and what is left of the machine decides again.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import digest
from dockage.domain.units import Instant, Sat, after, since, whole_sat
from dockage.domain.usage import Meter
from dockage.protocol import messages as say

from . import effects as want
from .events import HostFailed, HostPrepared
from .provider_billing import fits_credit, is_behind, say_again, tick_of
from .provider_ending import on_running, why_closed
from .sold import (
    Effects,
    Provider,
    SoldLease,
    account_of,
    credit_of,
    end_lease,
    enter,
    notice,
    owned,
    store,
)

HOST_SLOW = Reason("host.slow", "the provider's machine did not get the lease ready in time")
UNCONFIRMED = Reason("channel.unconfirmed", "the channel's funding is not deep enough yet")


def free(state: Provider) -> Resources:
    """What is left to rent: the capacity less what is reserved. A lease begins where all of its limits fit in; what it
    has not reserved may be sold to others afterwards. Never negative, also where the operator took capacity back."""
    left = state.policy.capacity
    for lease in state.leases.values():
        if lease.state is not LeaseState.ENDED:
            most = lease.limits if lease.growing is None else lease.limits.covering(lease.growing)
            left = left - most.reserved
    return left.covering(Resources())


# -- selling -----------------------------------------------------------------------------------------
def on_ask_quote(
    state: Provider, peer: NodeKey, lease: LeaseId, limits: Resources, now: Instant
) -> tuple[Provider, Effects]:
    """Stateless. A tenant that owes us hears the unpaid bills first: they may have been lost on the way."""
    refusal = _why_not(state, peer, limits, now)
    answer = say.Refusal(lease, refusal) if refusal else _quote(state, peer, lease, limits, now)
    return state, (*say_again(state, peer), want.Send(peer, answer))


def _quote(state: Provider, peer: NodeKey, lease: LeaseId, limits: Resources, now: Instant) -> Quote:
    policy = state.policy
    tariff = policy.tariff_for(peer)
    return Quote(
        lease=lease,
        tenant=peer,
        limits=limits,
        tariff=tariff,
        network="" if tariff.is_free else policy.network,
        confirmations=policy.confirmations(Sat(0)),
        credit_sat=credit_of(state, peer),
        expires=after(now, policy.quote_life),
    )


def _why_not(state: Provider, peer: NodeKey, limits: Resources, now: Instant) -> Reason | None:
    policy = state.policy
    if closed := why_closed(state, now):
        return closed
    if state.unpriced is not None and not policy.tariff_for(peer).is_free:
        return state.unpriced
    if not policy.serves(peer):
        return Reason("provider.not-for-you", "this provider does not serve your key")
    if policy.is_too_small(limits, policy.tariff_for(peer)):
        least = whole_sat(policy.min_msat_hour)
        return Reason("provider.too-small", f"no lease is sold for less than {least} sat an hour at most")
    known = state.leases.of(peer)
    held = sum(not lease.is_over for lease in known)
    if held >= policy.leases_per_tenant or len(known) >= policy.remembered_per_tenant:
        return Reason("provider.too-many-leases", f"{held} leases held and {len(known)} in the last while")
    lacking = limits.lacking(free(state))
    if lacking:
        return Reason("provider.full", f"not enough left: {', '.join(lacking)}")
    return None


def on_open(state: Provider, peer: NodeKey, quote: Quote, now: Instant) -> tuple[Provider, Effects]:
    """The quote's signature (our own) was verified at the edge."""
    if quote.lease in state.leases:
        return state, (want.Send(peer, notice(owned(state, peer, quote.lease), now)),)
    if quote.tenant != peer:
        raise PeerError("quote.not-yours", "the quote was made for another tenant")
    refusal = _why_not(state, peer, quote.limits, now) or _why_unpayable(state, peer, quote, now)
    if quote.expires < now:
        refusal = Reason("quote.expired", "the quote has expired; ask for a new one")
    waits = refusal is UNCONFIRMED and _is_worth_waiting(state, peer)
    if refusal and not waits:
        return state, (*say_again(state, peer), want.Send(peer, say.Refusal(quote.lease, refusal)))
    lease = SoldLease(
        quote.lease,
        peer,
        quote.limits,
        quote.tariff,
        opened_at=now,
        terms=digest(quote),
        since=now,
        waits=waits,
        reason=refusal,
    )
    if waits:
        return store(state, lease), (want.Send(peer, notice(lease, now)),)
    return store(state, lease), (want.Prepare(lease.id, lease.limits),)


def _is_worth_waiting(state: Provider, peer: NodeKey) -> bool:
    """Who has really sent the funding off finds its room still there once it has confirmed. One lease each: room
    is not kept for nothing but a transaction's fee."""
    on_its_way = any(c.seen and c.serves_at(state.height) for c in state.channels.of(peer))
    return on_its_way and not any(lease.waits for lease in state.leases.of(peer))


def on_waited_for(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    effects: list[want.AnyEffect] = []
    for lease in state.leases.of(channel.peer):
        if not lease.waits or lease.state is not LeaseState.OPENING:
            continue
        if channel.state is ChannelState.OPEN:
            begun = replace(lease, waits=False, since=now, reason=None)
            state = store(state, begun)
            effects.append(want.Prepare(lease.id, lease.limits))
        elif channel.is_over:
            state, more = end_lease(state, lease, channel.reason or UNCONFIRMED, now)
            effects += more
    return state, tuple(effects)


def _why_unpayable(state: Provider, peer: NodeKey, quote: Quote, now: Instant) -> Reason | None:
    if quote.tariff.is_free:
        return None
    serving = [c for c in state.channels.of(peer) if c.serves_at(state.height)]
    if not serving and any(c.state is ChannelState.OPENING for c in state.channels.of(peer)):
        return UNCONFIRMED  # the announcement was overtaken
    if not serving:
        return Reason("channel.none", "open a channel first, with enough blocks left before its expiry")
    if not any(c.remaining for c in serving):
        return Reason("channel.exhausted", "the channel has nothing left to pay with")
    if not any(c.state is ChannelState.OPEN and c.remaining for c in serving) and not (
        any(c.seen for c in serving) and fits_credit(state, peer, tick_of(state, quote.limits, quote.tariff))
    ):
        return UNCONFIRMED
    if is_behind(state, peer, now):
        owed = account_of(state, peer).owed_sat
        return Reason("account.unpaid", f"{owed} sat of earlier leases are unpaid; pay them first")
    return None


def on_grow(
    state: Provider, peer: NodeKey, lease: LeaseId, limits: Resources, now: Instant
) -> tuple[Provider, Effects]:
    """The machine first: the new limits are in force, and charged, once it has them. Frozen leases wait."""
    mine = owned(state, peer, lease)
    if mine.state is not LeaseState.RUNNING or mine.limits == limits or mine.growing == limits:
        return state, (want.Send(peer, notice(mine, now)),)
    grown = (limits - mine.limits).hard.covering(limits.reserved - mine.limits.reserved)
    lacking = grown.covering(Resources()).lacking(free(store(state, replace(mine, growing=None))))
    if lacking:
        reason = Reason("provider.full", f"not enough left to grow: {', '.join(lacking)}")
        return state, (want.Send(peer, say.Refusal(lease, reason)),)
    return store(state, replace(mine, growing=limits)), (want.Prepare(lease, limits),)


# -- the machine's answers ---------------------------------------------------------------------------
def on_prepared(
    state: Provider, lease: LeaseId, answer: HostPrepared, now: Instant
) -> tuple[Provider, Effects]:
    """A lease that grows is not read for it: its tenant chose the moment."""
    mine = state.leases.get(lease)
    if mine is None:
        return state, ()
    if mine.state is LeaseState.OPENING:
        if mine.waits:
            return state, ()
        state, begun = enter(state, replace(mine, meter=Meter(last=answer.opening)), LeaseState.RUNNING, now)
        state, told = on_running(state, state.leases[lease], now)
        return state, (*begun, *told)
    if not _answers_growth(answer, mine):
        return state, ()
    grown = replace(mine, limits=mine.growing, growing=None)
    return store(state, grown), (want.Send(mine.tenant, notice(grown, now)),)


def _answers_growth(answer: HostPrepared | HostFailed, mine: SoldLease) -> bool:
    """Not so where a restart had the machine prepared once more as it was."""
    return mine.growing is not None and answer.limits in (None, mine.growing)


def on_failed(state: Provider, lease: LeaseId, answer: HostFailed, now: Instant) -> tuple[Provider, Effects]:
    """A lease that can't begin ends; one that can't grow stays as it was."""
    mine = state.leases.get(lease)
    if mine is None:
        return state, ()
    if mine.state is LeaseState.OPENING:
        return end_lease(state, mine, answer.reason, now)
    if not _answers_growth(answer, mine):
        return state, ()
    as_before = store(state, replace(mine, growing=None))
    return as_before, (
        want.Prepare(lease, mine.limits),
        want.Send(mine.tenant, say.Refusal(lease, answer.reason)),
    )


def on_cleared(state: Provider, lease: LeaseId, now: Instant) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or mine.state is not LeaseState.ENDING:
        return state, ()
    return enter(state, mine, LeaseState.ENDED, now, mine.reason)


def on_lease_tick(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    """Nothing that only the machine can end is waited for without limit."""
    waited = since(lease.since, now)
    if lease.state is LeaseState.OPENING and lease.waits and waited >= state.policy.fund_within:
        return end_lease(state, lease, UNCONFIRMED, now)
    if lease.state is LeaseState.OPENING and not lease.waits and waited >= state.policy.prepare_within:
        return end_lease(state, lease, HOST_SLOW, now)
    if lease.state is LeaseState.ENDING and waited >= state.policy.grace:
        return store(state, replace(lease, since=now)), (want.Finish(lease.id),)
    return state, ()
