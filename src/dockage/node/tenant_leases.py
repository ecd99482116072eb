"""The tenant rents: it asks one candidate after another, opens, grows, and leaves.

Counterpart: ``provider_leases.py``. The one rule: each state is left in a limited time, by an answer, by the next
candidate or by the end.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.channel import ChannelState
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import METERED, Ending, LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import ceiling
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, after, since
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from .rented import (
    Effects,
    RentedLease,
    Tenant,
    ask_again,
    ask_quote,
    ask_to_open,
    end,
    enter,
    next_candidate,
    open_,
    renting_channel,
    rolled,
    store,
)
from .tenant_channels import abandon, proposal, propose
from .tenant_checks import on_running_tick

REQUOTES_MAX = 3
"""Quotes that may expire on one provider before the next candidate is asked."""

LATE = MINUTE
"""By how much a message can be overtaken: what it says was true then, not now."""

NO_ANSWER = Reason("provider.no-answer", "the provider does not answer")
NO_CANDIDATE = Reason("market.nothing-fits", "no offer fits what was asked for")
NO_CHANNEL = Reason("channel.none", "no channel to the provider came about")
DEARER = Reason("quote.dearer", "the quote is dearer than the offer was")
ALTERED = Reason("quote.altered", "the quote is not what was asked for")
SILENT = Reason("provider.silent", "nothing was heard of the provider for too long")
UNKNOWN_THERE = Reason("lease.unknown-there", "the provider no longer knows the lease")

HAUNT_AGAIN, HAUNT_MAX = Duration(15 * SECOND), Duration(24 * HOUR)
"""How often, and for how long, a lost provider is told that its lease is over."""
WAIT = frozenset({"account.unpaid", "channel.unconfirmed", "provider.busy"})
"""Refusals that pass by themselves: the tick asks again until ``open_within``."""
ANOTHER_CHANNEL = frozenset({"channel.none", "channel.exhausted"})


# -- asking ------------------------------------------------------------------------------------------
def on_rent(state: Tenant, event: told.RentRequested, now: Instant) -> tuple[Tenant, Effects]:
    if event.lease in state.leases:
        return state, ()
    lease = RentedLease(
        event.lease,
        event.deployment,
        event.limits,
        event.candidates,
        since=now,
        asked_at=now,
        service=event.service,
    )
    if not event.candidates:
        return store(state, enter(lease, LeaseState.ENDED, now, NO_CANDIDATE)), ()
    return store(state, lease), (ask_quote(lease),)


def on_quote(
    state: Tenant, lease: RentedLease, quote: Quote, signature: bytes, now: Instant
) -> tuple[Tenant, Effects]:
    if lease.state is not LeaseState.QUOTING:
        return state, ()
    wrong = _quote_fault(state, lease, quote)
    if wrong is not None:
        return next_candidate(state, lease, wrong, now)
    lease = replace(lease, quote=quote, quote_signature=signature)
    return _to_channel(state, lease, now)


def _quote_fault(state: Tenant, lease: RentedLease, quote: Quote) -> Reason | None:
    listed = lease.candidates[0]
    if quote.tenant != state.me or quote.limits != lease.limits:
        return ALTERED
    if listed.tariff is not None and quote.tariff.exceeds(listed.tariff):
        return DEARER
    return DEARER if ceiling(quote.limits, quote.tariff, HOUR) > listed.msat_hour else None


def _to_channel(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """To open at once where nothing has to be paid or a channel is there; else by way of a new channel."""
    if lease.tariff.is_free or renting_channel(state, lease.provider) is not None:
        return ask_to_open(state, lease, now)
    return propose(state, lease, now)


# -- what the provider says --------------------------------------------------------------------------
def on_refused(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    if lease.haunts and reason.code == "lease.unknown":
        return store(state, replace(lease, haunts=False)), ()
    if lease.is_over or lease.state is LeaseState.FUNDING:
        return state, ()
    if lease.state is LeaseState.OPENING:
        return _on_not_opened(state, lease, reason, now)
    if lease.state is LeaseState.QUOTING:
        return next_candidate(state, lease, reason, now)
    if reason.code == "lease.unknown":
        why = lease.reason if lease.state is LeaseState.ENDING else UNKNOWN_THERE
        return store(state, enter(lease, LeaseState.ENDED, now, why)), ()
    return store(state, replace(rolled(lease, now), wanted=None, reason=reason)), ()  # a refused growth


def _on_not_opened(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    if reason.code == "quote.expired" and _times_refused(lease, reason) < REQUOTES_MAX:
        again = replace(enter(lease, LeaseState.QUOTING, now), quote=None, refusals=_noted(lease, reason))
        return store(state, again), (ask_quote(again),)
    if reason.code in WAIT:
        return store(state, _not_yet(lease, reason, now)), ()
    plan = lease.candidates[0].plan
    if reason.code in ANOTHER_CHANNEL and plan is not None and plan.id not in state.channels:
        return propose(state, lease, now)
    return next_candidate(state, lease, reason, now)


def _not_yet(lease: RentedLease, reason: Reason | None, now: Instant) -> RentedLease:
    """It had not begun when this was said, so no earlier time can be charged; it may have been said a while ago."""
    begins = lease.reason is not None and reason is None  # the wait for confirmations is over
    said = Instant(max(lease.limits_at, now - LATE))
    return replace(lease, opened_at=now, limits_at=said, reason=reason, since=now if begins else lease.since)


def _noted(lease: RentedLease, reason: Reason) -> tuple[tuple[NodeKey, Reason], ...]:
    return (*lease.refusals, (lease.provider, reason))


def _times_refused(lease: RentedLease, reason: Reason) -> int:
    return sum(who == lease.provider and why.code == reason.code for who, why in lease.refusals)


def on_notice(
    state: Tenant, lease: RentedLease, notice: say.LeaseNotice, now: Instant
) -> tuple[Tenant, Effects]:
    """Which moves the provider may announce: it opens, freezes, thaws and ends; it never begins again."""
    if lease.is_over:
        still_there = notice.state in METERED or notice.state is LeaseState.OPENING
        if lease.haunts and not still_there:
            state = store(state, replace(lease, haunts=False))
        return state, ((want.Send(lease.provider, say.EndLease(lease.id)),) if still_there else ())
    lease = _granted(replace(lease, heard_at=now), notice, now)
    if lease.state is LeaseState.OPENING and notice.state is LeaseState.OPENING:
        lease = _not_yet(lease, notice.reason, now)
    if lease.state is LeaseState.OPENING and notice.state in METERED:
        lease = enter(lease, LeaseState.RUNNING, now)
    if notice.state in (LeaseState.ENDING, LeaseState.ENDED):
        return _on_ended(state, lease, notice, now)
    if lease.state in METERED and notice.state in METERED and lease.state is not notice.state:
        lease = enter(lease, notice.state, now, notice.reason)
    return store(state, lease), ()


def on_ending(state: Tenant, lease: RentedLease, word: say.LeaseEnding) -> tuple[Tenant, Effects]:
    """Nothing is done about it here: whoever looks after the deployment has until then. A word that was overtaken by
    a newer one changes nothing."""
    if lease.is_leaving or (lease.ending is not None and word.at < lease.ending.said_at):
        return state, ()
    told = Ending(word.ends_at, word.reason, word.at)
    return store(state, replace(lease, ending=told)), ()


def _on_ended(
    state: Tenant, lease: RentedLease, notice: say.LeaseNotice, now: Instant
) -> tuple[Tenant, Effects]:
    if lease.state is LeaseState.QUOTING or lease.state is notice.state:
        return store(state, lease), ()
    if lease.state is LeaseState.FUNDING:
        return store(state, enter(lease, LeaseState.ENDED, now, notice.reason)), ()
    reason = lease.reason if lease.state is LeaseState.ENDING else notice.reason
    until = lease.left_until or after(now, state.policy.end_within)
    return store(state, replace(enter(lease, notice.state, now, reason), left_until=until)), ()


def _granted(lease: RentedLease, notice: say.LeaseNotice, now: Instant) -> RentedLease:
    """Limits change only to what we asked for: the provider can't grow the reserved bill by itself."""
    if lease.wanted is not None and notice.limits == lease.wanted:
        return replace(rolled(lease, now), limits=notice.limits, wanted=None)
    return lease


# -- our user ----------------------------------------------------------------------------------------
def on_grow(state: Tenant, id_: LeaseId, limits: Resources, now: Instant) -> tuple[Tenant, Effects]:
    lease = state.leases.get(id_)
    if lease is None or lease.state not in METERED:
        return state, ()
    asking = replace(rolled(lease, now), wanted=limits, asked_at=now)
    return store(state, asking), (want.Send(lease.provider, say.GrowLease(id_, limits)),)


def on_renamed(state: Tenant, id_: LeaseId, deployment: str) -> tuple[Tenant, Effects]:
    lease = state.leases.get(id_)
    if lease is None or lease.state not in METERED:
        return state, ()
    return store(state, replace(lease, deployment=deployment)), ()


# -- time --------------------------------------------------------------------------------------------
def on_lease_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    policy, waited = state.policy, since(lease.since, now)
    match lease.state:
        case LeaseState.RUNNING | LeaseState.PAUSED:
            state, effects = _on_silence(state, lease, now)
            state, more = on_running_tick(state, state.leases[lease.id], now)
            return state, (*effects, *more)
        case LeaseState.QUOTING if waited > policy.answer_within:
            return next_candidate(state, lease, NO_ANSWER, now)
        case LeaseState.QUOTING:
            return ask_again(state, lease, ask_quote(lease), now)
        case LeaseState.OPENING:
            return _on_opening_tick(state, lease, now)
        case LeaseState.FUNDING:
            return _on_funding_tick(state, lease, now)
        case LeaseState.ENDING if waited > policy.end_within:
            return store(state, enter(lease, LeaseState.ENDED, now, lease.reason)), ()
        case LeaseState.ENDING:
            return ask_again(state, lease, _leave(lease), now)
        case _:
            return state, ()


def on_haunting_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """A provider that was lost does not know that its copy is no longer wanted; we are told where it is, not it."""
    if since(lease.since, now) > HAUNT_MAX:
        return store(state, replace(lease, haunts=False)), ()
    if since(lease.asked_at, now) < HAUNT_AGAIN:
        return state, ()
    return store(state, replace(lease, asked_at=now)), (_leave(lease),)


def _leave(lease: RentedLease) -> want.Send:
    return want.Send(lease.provider, say.EndLease(lease.id))


def _on_opening_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """Confirmations take as long as they take; a machine does not. A funding that is gone ends the wait."""
    policy, channel = state.policy, renting_channel(state, lease.provider)
    if channel is None and not lease.tariff.is_free:
        return _give_up(state, replace(lease, reason=_why_none(state, lease)), now)
    confirming = channel is not None and channel.state is ChannelState.FUNDED and lease.reason is not None
    if since(lease.since, now) > (policy.fund_within if confirming else policy.open_within):
        return _give_up(state, lease, now)
    if confirming and since(lease.asked_at, now) < policy.answer_within:
        return state, ()
    return ask_again(state, lease, open_(lease), now)


def _give_up(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """It may yet open: it is told to leave it, now and at each sign of life that comes later."""
    state, effects = next_candidate(state, lease, lease.reason or NO_ANSWER, now)
    return state, (_leave(lease), *effects)


def _on_funding_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """The channel came, or the provider that should accept it is silent, or there is none any more."""
    policy, waited = state.policy, since(lease.since, now)
    ready = renting_channel(state, lease.provider)
    if ready is not None:
        return ask_to_open(state, lease, now)
    opening = [c for c in state.channels.of(lease.provider) if c.state is ChannelState.OPENING]
    if not opening:
        return next_candidate(state, lease, _why_none(state, lease), now)
    if waited > policy.fund_within:
        return end(state, lease, NO_CHANNEL, now)
    unaccepted = [c for c in opening if not c.terms.provider_key]
    if unaccepted and waited > policy.answer_within:
        state, told_ = abandon(state, unaccepted[0], NO_ANSWER)
        state, more = next_candidate(state, lease, NO_ANSWER, now)
        return state, (*told_, *more)
    if unaccepted:
        return ask_again(state, lease, proposal(unaccepted[0]), now)
    return state, ()


def _why_none(state: Tenant, lease: RentedLease) -> Reason:
    reasons = [c.reason for c in state.channels.of(lease.provider) if c.reason is not None]
    return reasons[-1] if reasons else NO_CHANNEL


def _on_silence(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    policy, silent = state.policy, since(max(lease.heard_at, lease.since), now)
    if silent > policy.silence_max:
        return store(state, enter(lease, LeaseState.ENDED, now, SILENT)), (_leave(lease),)
    if silent > policy.silence or lease.state is LeaseState.PAUSED:
        return ask_again(state, lease, want.Send(lease.provider, say.AskLease(lease.id)), now)
    if lease.wanted is not None:
        return ask_again(state, lease, want.Send(lease.provider, say.GrowLease(lease.id, lease.wanted)), now)
    return state, ()
