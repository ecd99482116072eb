"""The tenant's side of its channels: propose, fund, watch, take the rest back.

Counterpart: ``provider_channels.py``. The one rule: our own view of the chain decides on our money, whatever the
provider says of a channel.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel, ChannelState, Terms, with_setup
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, after
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from .rented import (
    Effects,
    RentedLease,
    Tenant,
    ask_to_open,
    end,
    enter,
    for_each,
    next_candidate,
    put_channel,
    store,
)

Change = Callable[[Channel], Channel]

TAKING_BACK = frozenset({ChannelState.EXPIRED, ChannelState.REFUNDING})
DEARER_SETUP = Reason(
    "channel.setup", "the provider wants more of the funding for itself than its offer says"
)
NO_WALLET = Reason("wallet.none", "the offer is not free and there is no wallet to pay from")


# -- opening -----------------------------------------------------------------------------------------
def propose(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """One channel per pair: a second lease waits for the channel that the first one is opening."""
    plan = lease.candidates[0].plan
    if plan is None:
        return next_candidate(state, lease, NO_WALLET, now)
    state = store(state, enter(lease, LeaseState.FUNDING, now))
    if plan.id in state.channels or any(
        c.state is ChannelState.OPENING for c in state.channels.of(lease.provider)
    ):
        return state, ()
    channel = planned(state, lease.provider, plan)
    return put_channel(state, channel), (proposal(channel),)


def planned(state: Tenant, provider: NodeKey, plan: told.ChannelPlan) -> Channel:
    terms = Terms(
        plan.tenant_key,
        b"",
        plan.expiry_height,
        plan.capacity,
        plan.tenant_script,
        setup_sat=plan.setup_sat,
    )
    return Channel(plan.id, provider, terms, opened_height=state.height)


def proposal(channel: Channel) -> want.Send:
    terms = channel.terms
    return want.Send(
        channel.peer,
        say.ProposeChannel(
            channel.id, terms.tenant_key, terms.expiry_height, terms.capacity, terms.tenant_script
        ),
    )


def own_channel(state: Tenant, peer: NodeKey, channel: ChannelId) -> Channel:
    found = state.channels.get(channel)
    if found is None or found.peer != peer:
        raise PeerError("channel.unknown", "no such channel of ours with you")
    return found


def on_accept(
    state: Tenant, peer: NodeKey, accept: say.AcceptChannel, now: Instant
) -> tuple[Tenant, Effects]:
    channel = own_channel(state, peer, accept.channel)
    if channel.terms.provider_key and channel.terms.provider_key != accept.provider_key:
        raise PeerError("channel.rekeyed", "the provider named another key for the same channel")
    if channel.terms.provider_key or channel.state is not ChannelState.OPENING:
        return state, ()
    if accept.setup_sat > channel.terms.setup_sat:
        state, effects = on_channel_refused(state, channel, DEARER_SETUP, now)
        return state, (want.Send(peer, say.CloseChannel(channel.id)), *effects)
    terms = with_setup(channel.terms, accept.setup_script, accept.setup_sat)
    terms = replace(terms, provider_key=accept.provider_key)
    agreed = replace(channel, terms=terms, needed=accept.confirmations)
    return put_channel(state, agreed), (want.Fund(channel.id, terms),)


def on_funding_built(state: Tenant, event: told.FundingBuilt, now: Instant) -> tuple[Tenant, Effects]:
    """The leases ask for their room at once: it is kept while the funding confirms. A transaction that also funds
    a channel which was given up meanwhile is not used at all: coins would lie in it that nobody remembers."""
    opened = (event, *event.also)
    if not all(_waits_for_funding(state.channels.get(one.channel)) for one in opened):
        return state, ()
    effects: list[want.AnyEffect] = []
    for one in opened:
        state, more = _funded(state, one, now)
        effects += more
    return state, tuple(effects)


def _waits_for_funding(channel: Channel | None) -> bool:
    return channel is not None and channel.state is ChannelState.OPENING and bool(channel.terms.provider_key)


def _funded(state: Tenant, event: told.FundingBuilt, now: Instant) -> tuple[Tenant, Effects]:
    funded = channels.fund(state.channels[event.channel], event.txid, event.vout, state.height)
    funded = replace(funded, funding_raw=event.raw, funding_fee=event.fee)
    state, asked = for_each(
        put_channel(state, funded), waiting_for(state, funded.peer), lambda s, x: ask_to_open(s, x, now)
    )
    return state, (*announce(funded), *asked)


def announce(channel: Channel) -> Effects:
    return (
        want.Broadcast(channel.id, channel.funding_raw),
        want.Send(channel.peer, say.AnnounceFunding(channel.id, channel.txid, channel.vout)),
    )


def on_funding_failed(state: Tenant, id_: ChannelId, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """Our wallet's failing, so no other candidate would do better: the leases end with the reason."""
    channel = state.channels.get(id_)
    if channel is None or channel.state is not ChannelState.OPENING:
        return state, ()
    state, told_ = abandon(state, channel, reason)
    state, more = for_each(state, waiting_for(state, channel.peer), lambda s, x: end(s, x, reason, now))
    return state, (*told_, *more)


def abandon(state: Tenant, channel: Channel, reason: Reason | None) -> tuple[Tenant, Effects]:
    """Never funded, and it never will be: the provider may forget it."""
    state = put_channel(state, channels.move(channel, ChannelState.ABANDONED, reason))
    return state, (want.Send(channel.peer, say.CloseChannel(channel.id)),)


def on_channel_refused(
    state: Tenant, channel: Channel, reason: Reason, now: Instant
) -> tuple[Tenant, Effects]:
    if channel.state is ChannelState.OPENING:
        state = put_channel(state, channels.move(channel, ChannelState.ABANDONED, reason))
        waiting = waiting_for(state, channel.peer)
        return for_each(state, waiting, lambda s, x: next_candidate(s, x, reason, now))
    if channel.is_live and reason.code == "channel.unknown":
        # It lost its memory. Nothing more can be paid there; the refund after the expiry returns the rest.
        return put_channel(state, channels.move(channel, ChannelState.CLOSING, reason)), ()
    return state, ()


def waiting_for(state: Tenant, provider: NodeKey) -> list[RentedLease]:
    return [x for x in state.leases.of(provider) if x.state is LeaseState.FUNDING]


# -- watching ----------------------------------------------------------------------------------------
def on_channel(state: Tenant, id_: ChannelId, change: Change, now: Instant) -> tuple[Tenant, Effects]:
    """What the chain shows."""
    channel = state.channels.get(id_)
    changed = change(channel) if channel else None
    if channel is None or changed is None or changed == channel:
        return state, ()
    state = put_channel(state, changed)
    if changed.state is ChannelState.OPEN and channel.state is not ChannelState.OPEN:
        return for_each(state, opening_at(state, channel.peer), lambda s, x: ask_to_open(s, x, now))
    return state, ()


def on_channel_notice(
    state: Tenant, peer: NodeKey, notice: say.ChannelNotice, *, ours: bool
) -> tuple[Tenant, Effects]:
    channel = own_channel(state, peer, notice.channel)
    if ours and channel.is_live and channel.paid < notice.paid <= channel.terms.spendable:
        # Our own signature over more than we remember: an older backup of ours catches up.
        channel = channels.pay(channel, notice.paid, b"")
    if notice.state is ChannelState.CLOSING and channel.is_live:
        channel = channels.move(channel, ChannelState.CLOSING)
    if notice.reason not in (None, channel.reason) and not channel.is_over:
        channel = replace(channel, reason=notice.reason)
    if channel is not state.channels[notice.channel]:
        state = put_channel(state, channel)
    return state, pay_again(channel) if notice.paid < channel.paid else ()


def resume(channel: Channel) -> Effects:
    """Ask for the newest payment that the provider holds. Of one that is not open yet the announcement asks."""
    if channel.state is not ChannelState.OPEN:
        return ()
    return (want.Send(channel.peer, say.ResumeChannel(channel.id)),)


def opening_at(state: Tenant, provider: NodeKey) -> list[RentedLease]:
    return [x for x in state.leases.of(provider) if x.state in (LeaseState.FUNDING, LeaseState.OPENING)]


def pay_again(channel: Channel) -> Effects:
    """The newest payment once more: it may have been lost, and it is cumulative."""
    return (want.Pay(channel.peer, channel.id, channel.paid),) if channel.is_live and channel.paid else ()


# -- leaving -----------------------------------------------------------------------------------------
def on_close(state: Tenant, id_: ChannelId, now: Instant) -> tuple[Tenant, Effects]:
    """Asked for again at each look at the chain, until the provider closes or the expiry comes."""
    channel = state.channels.get(id_)
    if channel is None or channel.is_over or channel.settled_txid:
        return state, ()
    if channel.state is ChannelState.OPENING:
        return abandon(state, channel, None)
    if not channel.is_live:
        return state, (want.Send(channel.peer, say.CloseChannel(id_)),)
    wished = replace(channel, close_at=after(now, state.policy.end_within))
    return put_channel(state, wished), (want.Send(channel.peer, say.CloseChannel(id_)),)


def on_refund_built(state: Tenant, id_: ChannelId, tx: channels.SpendingTx) -> tuple[Tenant, Effects]:
    channel = state.channels.get(id_)
    if channel is None or channel.settled_txid or channel.state not in TAKING_BACK:
        return state, ()
    refunding = channels.spend(channel, tx, ChannelState.REFUNDING)
    refunding = replace(refunding, spent_height=state.height)
    return put_channel(state, refunding), (want.Broadcast(id_, tx.raw),)


def on_block(state: Tenant, height: int) -> tuple[Tenant, Effects]:
    fresh, state = height != state.height, replace(state, height=height)
    effects: list[want.AnyEffect] = []
    for channel in list(state.channels.values()):
        due = channels.expire(channel, height)
        state = put_channel(state, due) if due is not channel else state
        effects += resume(due) if fresh else ()
        effects += keep_going(due, height)
    return state, tuple(effects)


def keep_going(channel: Channel, height: int) -> Effects:
    """Ask again for what may have been lost: idempotent, and ended by the channel's own progress."""
    match channel.state:
        case ChannelState.OPENING if channel.terms.provider_key:
            return (want.Fund(channel.id, channel.terms),)
        case ChannelState.OPENING:
            return (proposal(channel),)
        case ChannelState.FUNDED:
            return announce(channel) + _wish_to_close(channel)
        case ChannelState.OPEN:
            return _wish_to_close(channel)
        case ChannelState.EXPIRED if not channel.settled_txid:
            return (want.Refund(channel.id),)
        case ChannelState.REFUNDING if channel.spending and not channel.is_spent_by_other:
            return _keep_refunding(channel, height)
        case _:
            return ()


def _wish_to_close(channel: Channel) -> Effects:
    refused = channel.reason is not None and channel.reason.code == "channel.nothing-paid"
    if not channel.close_at or refused:
        return ()
    return (want.Send(channel.peer, say.CloseChannel(channel.id)),)


def _keep_refunding(channel: Channel, height: int) -> Effects:
    again = want.Broadcast(channel.id, channel.spending[-1].raw)
    if not channel.settled_txid and height - channel.spent_height >= channels.BUMP_AFTER:
        return (again, want.Refund(channel.id))
    return (again,)
