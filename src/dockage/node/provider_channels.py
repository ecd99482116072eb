"""The provider's side of its channels: agree on one, watch its funding, begin to close it in time.

Counterpart: ``tenant_channels.py``; how it is closed: ``provider_closing.py``. The one rule: after the expiry the
tenant's refund races our close, so everything that leads there starts a day early and is asked for again at every
look at the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import FORGET_UNFUNDED, Channel, ChannelState, Terms, with_setup
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import Duration, Instant, after
from dockage.protocol import messages as say

from . import effects as want
from . import provider_closing as closing
from .sold import (
    Effects,
    Provider,
    SoldLease,
    account_of,
    describe,
    end_lease,
    with_channel,
)

Change = Callable[[Channel], Channel]

CHANNEL_CLOSING = Reason("channel.closing", "the channel that pays for the lease is being closed")
EXPIRING = Reason("channel.expiring", "the channel is too near to its expiry to be served on")
UNFUNDED = Reason("channel.unfunded", "no funding was announced for a day")


# -- opening -----------------------------------------------------------------------------------------
def on_proposal(
    state: Provider, peer: NodeKey, proposal: say.ProposeChannel, our_key: bytes, our_setup: bytes
) -> tuple[Provider, Effects]:
    terms = Terms(
        proposal.tenant_key, our_key, proposal.expiry_height, proposal.capacity, proposal.tenant_script
    )
    known = state.channels.get(proposal.channel)
    if known is not None:
        if known.peer != peer or known.terms != with_setup(
            terms, known.terms.setup_script, known.terms.setup_sat
        ):
            raise PeerError("channel.taken", "that channel id is already in use with other terms")
        return state, (want.Send(peer, _accept(known)),)
    refusal = _why_no_channel(state, peer, terms)
    if refusal:
        return state, (want.Send(peer, say.Refusal(proposal.channel, refusal)),)
    if state.policy.setup_sat:
        terms = with_setup(terms, our_setup, state.policy.setup_sat)
    needed = state.policy.confirmations(terms.capacity)
    channel = Channel(proposal.channel, peer, terms, needed=needed, opened_height=state.height)
    state, _ = with_channel(state, channel)
    return state, (want.Send(peer, _accept(channel)),)


def _accept(channel: Channel) -> say.AcceptChannel | say.ChannelNotice:
    if channel.state is ChannelState.OPENING:
        terms = channel.terms
        return say.AcceptChannel(
            channel.id, terms.provider_key, channel.needed, terms.setup_script, terms.setup_sat
        )
    return describe(channel)


def _why_no_channel(state: Provider, peer: NodeKey, terms: Terms) -> Reason | None:
    policy = state.policy
    if not policy.network:
        return Reason("provider.no-wallet", "this provider takes no payment")
    if state.height <= 0:
        return Reason("chain.unknown", "the provider does not see the chain yet; try again in a minute")
    if not policy.serves(peer):
        return Reason("provider.not-for-you", "this provider does not serve your key")
    if terms.capacity < policy.smallest_channel:
        return Reason("channel.small", f"the smallest channel here is {policy.smallest_channel} sat")
    if terms.capacity > policy.largest_channel:
        return Reason("channel.large", f"the largest channel here is {policy.largest_channel} sat")
    left = terms.expiry_height - state.height
    if left < channels.STOP_BEFORE_EXPIRY + channels.SETTLE_BEFORE_EXPIRY:
        return Reason("channel.expiry-near", f"only {left} blocks to the expiry; 432 are needed")
    if left > policy.longest_channel_blocks:
        return Reason("channel.expiry-far", f"{left} blocks to the expiry is longer than we lock coins up")
    return _why_no_room(state, peer)


def _why_no_room(state: Provider, peer: NodeKey) -> Reason | None:
    """Keys cost nothing, so what strangers take of us is limited over all of them; who has paid before is none."""
    policy, own = state.policy, state.channels.of(peer)
    if sum(map(_waits, own)) >= policy.channels_per_tenant:
        return Reason("channel.too-many", "fund the channels you proposed before you propose more")
    if sum(map(_is_void, own)) >= policy.given_up_per_tenant:
        return Reason("channel.too-many", "you gave too many channels up; propose again in two days")
    if any(c.paid for c in own):
        return None
    everybody = state.channels.values()
    if (
        sum(map(_waits, everybody)) >= policy.channels_waiting
        or sum(map(_is_void, everybody)) >= policy.given_up
    ):
        return Reason("provider.busy", "too many channels wait for their funding here; try again later")
    return None


def _waits(channel: Channel) -> bool:
    """An outpoint that our node has never seen may be invented: it waits like none at all."""
    return channel.state is ChannelState.OPENING or (
        channel.state is ChannelState.FUNDED and not channel.seen
    )


def _is_void(channel: Channel) -> bool:
    """Nothing was ever paid on it, and nothing will be: only its row is left."""
    return channel.state is ChannelState.ABANDONED and not channel.paid


def _forget_void(state: Provider) -> Provider:
    """After two days; in the journal they stay. Agreeing and giving up for fun must fill neither memory nor disk."""
    since = state.height - 2 * FORGET_UNFUNDED
    old = {c.id for c in state.channels.values() if _is_void(c) and c.opened_height < since}
    return replace(state, channels=state.channels.drop(old)) if old else state


def on_funding(
    state: Provider, peer: NodeKey, announced: say.AnnounceFunding, channel: Channel
) -> tuple[Provider, Effects]:
    """Told again each time it is announced again: our answer may have been lost."""
    funded = channels.fund(channel, announced.txid, announced.vout, state.height)
    return with_channel(state, funded, tell=True)


def on_channel(state: Provider, id_: ChannelId, change: Change) -> tuple[Provider, Effects]:
    """What the chain shows."""
    channel = state.channels.get(id_)
    changed = change(channel) if channel else None
    if channel is None or changed is None or changed == channel:
        return state, ()
    return with_channel(state, changed, tell=changed.state is not channel.state)


# -- closing -----------------------------------------------------------------------------------------
def close(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    """The leases it pays for end first; the last bill is waited for, but not for long."""
    if channel.state is ChannelState.OPENING:
        return with_channel(state, channels.move(channel, ChannelState.ABANDONED), tell=True)
    if not channel.is_live or channel.close_at:
        return closing.on_asked(state, channel, now)
    leases = [] if _carried_by_another(state, channel) else _paid_leases(state, channel.peer)
    effects: list[want.AnyEffect] = []
    for lease in leases:
        state, more = end_lease(state, lease, CHANNEL_CLOSING, now)
        effects += more
    last_payment = Duration(2 * state.policy.patience)
    state, _ = with_channel(state, replace(channel, close_at=after(now, last_payment)))
    state, more = finish_close(state, channel.id, now)
    return state, (*effects, *more)


def finish_close(state: Provider, id_: ChannelId, now: Instant) -> tuple[Provider, Effects]:
    """Once nothing more is to come, or time is up: settle what was paid."""
    channel = state.channels[id_]
    if not channel.close_at or not channel.is_live:
        return state, ()
    to_come = account_of(state, channel.peer).owed_sat and channel.remaining
    if now < channel.close_at and (to_come or _serving(state, channel)):
        return state, ()
    return closing.begin(state, channel, now)


def finish_closes(state: Provider, some: Iterable[Channel], now: Instant) -> tuple[Provider, Effects]:
    effects: list[want.AnyEffect] = []
    for channel in [c for c in some if c.close_at and c.is_live]:
        state, more = finish_close(state, channel.id, now)
        effects += more
    return state, tuple(effects)


def _carried_by_another(state: Provider, channel: Channel) -> bool:
    return any(
        c.id != channel.id and c.serves_at(state.height) and c.remaining
        for c in state.channels.of(channel.peer)
    )


def _paid_leases(state: Provider, tenant: NodeKey) -> list[SoldLease]:
    return [x for x in state.leases.of(tenant) if not x.tariff.is_free and not x.is_leaving]


def _serving(state: Provider, channel: Channel) -> bool:
    """Whether a final bill may still come that this channel pays."""
    if _carried_by_another(state, channel):
        return False
    return any(not x.tariff.is_free and not x.is_over for x in state.leases.of(channel.peer))


# -- blocks ------------------------------------------------------------------------------------------
def on_block(state: Provider, height: int, now: Instant) -> tuple[Provider, Effects]:
    """At each look: what must settle now settles; what is closing is asked for again until it is buried."""
    fresh, state = height != state.height, replace(state, height=height)
    effects: list[want.AnyEffect] = []
    for channel in list(state.channels.values()):
        state, more = _on_height(state, channel, height, now)
        effects += more
    state, more = closing.keep_settling(_forget_void(state) if fresh else state, now, fresh=fresh)
    return state, (*effects, *more)


def _on_height(state: Provider, channel: Channel, height: int, now: Instant) -> tuple[Provider, Effects]:
    if channel.is_live and not channel.paid and height >= channel.terms.expiry_height:
        return with_channel(state, channels.expire(channel, height), tell=True)
    if _is_used_up(state, channel) or (channel.must_settle_at(height) and not channel.close_at):
        return close(state, channel, now)
    if channel.is_live and not channel.serves_at(height) and not channel.close_at:
        return _stop_serving(state, channel, now)
    if channel.state is ChannelState.OPENING and height - channel.opened_height > FORGET_UNFUNDED:
        return with_channel(state, channels.move(channel, ChannelState.ABANDONED, UNFUNDED), tell=True)
    return state, ()


def _is_used_up(state: Provider, channel: Channel) -> bool:
    """Nothing can come on it any more, and no lease ends with it: what it holds is better in our wallet."""
    if channel.state is not ChannelState.OPEN or channel.remaining or channel.close_at:
        return False
    return _carried_by_another(state, channel) or not _paid_leases(state, channel.peer)


def _stop_serving(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    if _carried_by_another(state, channel):
        return state, ()
    effects: list[want.AnyEffect] = []
    for lease in _paid_leases(state, channel.peer):
        state, more = end_lease(state, lease, EXPIRING, now)
        effects += more
    return state, tuple(effects)
