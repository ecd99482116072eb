"""The tenant's mind: ask for a quote, open a channel, rent, check every statement, pay it, leave, get the rest back.

Its counterpart is ``provider.py``. The one rule: it signs only what its own checks confirm, so the most a
provider can take without service is one tick.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.statement import Statement
from dockage.domain.units import Instant
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from . import tenant_channels as paying
from . import tenant_checks as checking
from . import tenant_closing as closing
from . import tenant_leases as renting
from . import tenant_refill as refilling
from .policy import TenantPolicy
from .rented import Effects, RentedLease, Tenant, account, end, fence, for_each, rented
from .table import Table
from .tenant_statements import on_statement

__all__ = ["RentedLease", "Tenant", "account", "outstanding", "restore", "step"]


def restore(
    me: NodeKey, policy: TenantPolicy, leases: Iterable[RentedLease], open_: Iterable[Channel]
) -> Tenant:
    return Tenant(me, policy, Table(leases), Table(open_))


def outstanding(state: Tenant) -> Effects:
    """What must be wanted again after a restart. Requests to peers are repeated by the tick anyway."""
    wanted: list[want.AnyEffect] = [
        want.Send(lease.provider, say.AskLease(lease.id))
        for lease in state.leases.values()
        if lease.state in METERED
    ]
    for channel in state.channels.values():
        wanted += paying.resume(channel)
        wanted += paying.keep_going(channel, state.height)
    return (*wanted, *checking.again(state))


def step(state: Tenant, event: told.AnyEvent, now: Instant) -> tuple[Tenant, Effects]:
    """May raise PeerError: then nothing has happened."""
    match event:
        case told.Received(peer=peer):
            return _on_message(state, peer, event, now)
        case told.Ticked():
            busy = [x for x in state.leases.values() if x.state is not LeaseState.ENDED]
            state, effects = for_each(state, busy, lambda s, x: renting.on_lease_tick(s, x, now))
            haunting = [x for x in state.leases.values() if x.haunts]
            state, last = for_each(state, haunting, lambda s, x: renting.on_haunting_tick(s, x, now))
            state, more = refilling.on_refill_tick(state, now)
            return state, (*effects, *last, *more)
        case told.MomentCame(lease=lease):
            return checking.on_moment(state, lease, now)
        case told.Looked(lease=lease, look=look):
            return checking.on_looked(state, lease, look, now)
        case told.LookFailed(lease=lease):
            return checking.on_look_failed(state, lease, now)
        case told.RentRequested():
            return renting.on_rent(state, event, now)
        case told.GrowRequested(lease=lease, limits=limits):
            return renting.on_grow(state, lease, limits, now)
        case told.Renamed(lease=lease, deployment=deployment):
            return renting.on_renamed(state, lease, deployment)
        case told.EndRequested(lease=lease, reason=reason):
            mine = state.leases.get(lease)
            return end(state, mine, reason, now) if mine else (state, ())
        case told.Fenced(lease=lease, reason=reason):
            mine = state.leases.get(lease)
            return fence(state, mine, reason, now) if mine else (state, ())
        case told.CloseRequested(channel=channel):
            return paying.on_close(state, channel, now)
        case told.ChannelPlanned(peer=peer, plan=plan):
            return refilling.on_planned(state, peer, plan)
        case told.PlanFailed(peer=peer, reason=reason):
            return refilling.on_plan_failed(state, peer, reason)
        case told.FundingBuilt():
            return paying.on_funding_built(state, event, now)
        case told.FundingFailed(channel=channel, reason=reason):
            state, effects = paying.on_funding_failed(state, channel, reason, now)
            return refilling.hindered_by(state, channel), effects
        case told.FundingSeen(channel=channel, confirmations=confirmations):
            return paying.on_channel(state, channel, lambda c: channels.confirm(c, confirmations), now)
        case told.FundingMissed(channel=channel):
            return paying.on_channel(state, channel, channels.miss, now)
        case told.FundingGone(channel=channel, reason=reason):
            return paying.on_channel(state, channel, lambda c: channels.vanish(c, reason), now)
        case told.SpendBuilt(channel=channel, tx=tx):
            return paying.on_refund_built(state, channel, tx)
        case told.CoSigned(channel=channel, txid=txid):
            return closing.on_co_signed(state, channel, txid)
        case told.SpendFailed(channel=channel, reason=reason):
            return paying.on_channel(state, channel, lambda c: replace(c, reason=reason), now)
        case told.SpendSeen(channel=channel, txid=txid, depth=depth):
            return paying.on_channel(state, channel, lambda c: channels.settle(c, txid, depth), now)
        case told.BlockSeen(height=height):
            return paying.on_block(state, height)
        case _:
            return state, ()  # the provider's own events: this node may be both


def _on_message(state: Tenant, peer: NodeKey, event: told.Received, now: Instant) -> tuple[Tenant, Effects]:
    match event.message:
        case Statement(lease=id_) if _has_moved_on(state, peer, id_):
            return state, (want.Send(peer, say.EndLease(id_)),)
        case Statement() as statement:
            lease = rented(state, peer, statement.lease)
            return on_statement(state, lease, statement, event.signature, event.view, now)
        case say.LeaseNotice(lease=id_, state=there) if _has_moved_on(state, peer, id_):
            gone = there in (LeaseState.ENDING, LeaseState.ENDED)
            return state, (() if gone else (want.Send(peer, say.EndLease(id_)),))
        case say.LeaseNotice() as notice:
            return renting.on_notice(state, rented(state, peer, notice.lease), notice, now)
        case say.LeaseEnding() as word:
            return renting.on_ending(state, rented(state, peer, word.lease), word)
        case Quote() as quote:
            return renting.on_quote(state, rented(state, peer, quote.lease), quote, event.signature, now)
        case say.Refusal(about=about, reason=reason):
            return _on_refusal(state, peer, about, reason, now)
        case say.AcceptChannel() as accept:
            return paying.on_accept(state, peer, accept, now)
        case say.ChannelNotice() as notice:
            return paying.on_channel_notice(state, peer, notice, ours=event.ours)
        case say.ProposeClose(channel=channel) as proposal:
            return closing.on_proposal(state, paying.own_channel(state, peer, channel), proposal)
        case _:
            raise PeerError("message.unexpected", f"a tenant does not take a {type(event.message).__name__}")


def _has_moved_on(state: Tenant, peer: NodeKey, lease: LeaseId) -> bool:
    """A candidate that we gave up serves us all the same: it answered too late."""
    found = state.leases.get(lease)
    return found is not None and found.provider != peer and any(who == peer for who, _ in found.refusals)


def _on_refusal(
    state: Tenant, peer: NodeKey, about: bytes, reason: Reason, now: Instant
) -> tuple[Tenant, Effects]:
    lease = state.leases.get(LeaseId(about))
    if lease is not None and lease.provider == peer:
        return renting.on_refused(state, lease, reason, now)
    channel = state.channels.get(ChannelId(about))
    if channel is not None and channel.peer == peer:
        state, effects = paying.on_channel_refused(state, channel, reason, now)
        return refilling.hindered_by(state, channel.id), effects
    return state, ()
