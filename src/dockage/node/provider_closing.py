"""The provider closes: with the tenant's half of the signature if it comes at once, else alone, until it is buried.

Counterpart: ``tenant_closing.py``. The one rule: the tenant's help makes a close cheaper and is never needed. What is
waited for is waited for a few seconds, and what no close is worth is given back.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import BUMP_AFTER, NEVER, SETTLE_BEFORE_EXPIRY, Channel, ChannelState
from dockage.domain.identity import ChannelId
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, after
from dockage.protocol.bitcoin.settlement import BATCH_MAX
from dockage.protocol.bitcoin.together import HOPELESS

from . import effects as want
from . import events as told
from .sold import Effects, Provider, describe, with_channel

NOTHING_PAID = Reason(
    "channel.nothing-paid",
    "nothing was paid: the tenant gets everything back, at once if its node signs, else after the expiry",
)


def begin(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    """No more payment is waited for."""
    if channel.paid:
        return _ask(state, channels.move(channel, ChannelState.CLOSING), now)
    if channel.reason == NOTHING_PAID:
        return state, ()
    return _ask(state, replace(channel, reason=NOTHING_PAID), now)


def on_asked(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    """The tenant wants it closed, and so do we already."""
    if channel.spending or not _may_ask(state, channel) or now < channel.asked_until:
        return state, (want.Send(channel.peer, describe(channel)),)
    return _ask(state, channel, now)


def _ask(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    """The notice goes first: from it a tenant that lost its newest payment learns what it signed."""
    if state.height >= channel.terms.expiry_height:
        return _alone(state, [channel])
    asked = replace(channel, asked_until=after(now, state.policy.cooperate_within))
    state, notice = with_channel(state, asked, tell=True)
    return state, (*notice, want.ProposeClose(channel.id, _gives_back(state, channel)))


def _may_ask(state: Provider, channel: Channel) -> bool:
    if channel.settled_txid or state.height >= channel.terms.expiry_height:
        return False
    return channel.state is ChannelState.CLOSING or (
        channel.is_live and channel.reason == NOTHING_PAID and not channel.paid
    )


def _gives_back(state: Provider, channel: Channel) -> bool:
    """Not before it is in vain to wait for lower fees: else asking when they are high would be a way not to pay."""
    return channel.paid < HOPELESS or state.height >= channel.terms.expiry_height - SETTLE_BEFORE_EXPIRY


# -- answers -----------------------------------------------------------------------------------------
def on_agreed(state: Provider, event: told.CloseAgreed) -> tuple[Provider, Effects]:
    """Too late, or for another amount than was paid since: as if it had not come."""
    channel = state.channels.get(event.channel)
    if channel is None or not channel.asked_until or channel.paid != event.paid or channel.settled_txid:
        return state, ()
    return _built(state, [replace(channel, agreed_txid=event.tx.txid)], event.tx)


def on_declined(state: Provider, channel: Channel) -> tuple[Provider, Effects]:
    return _alone(state, [channel]) if channel.asked_until else (state, ())


def on_tick(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    """Those that did not answer in time are closed without them, all in one transaction."""
    return _alone(state, [c for c in state.channels.values() if c.asked_until and now >= c.asked_until])


def on_built(state: Provider, event: told.SpendBuilt) -> tuple[Provider, Effects]:
    found = [state.channels.get(id_) for id_ in (event.channel, *event.also)]
    return _built(state, [c for c in found if c and c.state is ChannelState.CLOSING], event.tx)


def _built(state: Provider, closed: Sequence[Channel], tx: channels.SpendingTx) -> tuple[Provider, Effects]:
    effects: list[want.AnyEffect] = []
    for channel in closed:
        spent = channels.spend(channel, tx, ChannelState.CLOSING)
        news = spent is not channel
        spent = replace(spent, spent_height=state.height, asked_until=NEVER)
        state, notice = with_channel(state, spent, tell=news)
        effects += notice
    again = (want.Broadcast(closed[0].id, tx.raw),) if closed else ()
    return state, (*effects, *again)


def _alone(state: Provider, closed: Sequence[Channel]) -> tuple[Provider, Effects]:
    for channel in closed:
        state, _ = with_channel(state, replace(channel, asked_until=NEVER))
    due = [c.id for c in closed if c.state is ChannelState.CLOSING and c.paid and not c.settled_txid]
    return state, settle(due)


def settle(due: Sequence[ChannelId]) -> Effects:
    """As few transactions as the size of a version 3 transaction allows."""
    return tuple(want.Settle(tuple(due[at : at + BATCH_MAX])) for at in range(0, len(due), BATCH_MAX))


# -- until it is buried ------------------------------------------------------------------------------
def keep_settling(state: Provider, now: Instant, *, fresh: bool) -> tuple[Provider, Effects]:
    """A reorganisation may take a close back, a low fee may keep it waiting. At each new block the tenant is asked
    for what is not on its way yet; a close that only failed is tried again at each look."""
    effects = list(broadcast_again(state))
    alone: list[ChannelId] = []
    for channel in list(state.channels.values()):
        if now < channel.asked_until or not _is_due(state, channel):
            continue
        if fresh and _may_ask(state, channel):
            state, more = _ask(state, channel, now)
            effects += more
        elif channel.state is ChannelState.CLOSING and channel.paid:
            alone.append(channel.id)
    return state, (*effects, *settle(alone))


def outstanding(state: Provider) -> Effects:
    """After a restart: the nonce of a close that was proposed is gone, so it is proposed anew."""
    asked = [c for c in state.channels.values() if c.asked_until and _may_ask(state, c)]
    again = [want.ProposeClose(c.id, _gives_back(state, c)) for c in asked]
    return (*broadcast_again(state), *again)


def broadcast_again(state: Provider) -> Effects:
    """One for each transaction, however many channels it closes."""
    closing = [
        c
        for c in state.channels.values()
        if c.state is ChannelState.CLOSING and c.spending and not c.is_spent_by_other
    ]
    newest = {c.spending[-1].txid: want.Broadcast(c.id, c.spending[-1].raw) for c in reversed(closing)}
    return tuple(reversed(newest.values()))


def _is_due(state: Provider, channel: Channel) -> bool:
    """Nothing is on its way yet, or it has been waiting for too long."""
    if channel.settled_txid or not (channel.state is ChannelState.CLOSING or _may_ask(state, channel)):
        return False
    return not channel.spending or state.height - channel.spent_height >= BUMP_AFTER
