"""The provider's mind: quote, prepare, meter, demand payment, freeze, end, settle.

Its counterpart is ``tenant.py``. The one rule: nothing a peer says changes anything unless it follows
from the peer's own lease or channel; whatever is refused leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel, ChannelState
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.lease import Ending, LeaseState
from dockage.domain.offer import Offer
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, Msat, Sat
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from . import provider_billing as billing
from . import provider_channels as earning
from . import provider_closing as closing
from . import provider_ending as ending
from . import provider_leases as selling
from .ledger import Account, put
from .policy import ProviderPolicy
from .provider_leases import free
from .sold import (
    Effects,
    Provider,
    SoldLease,
    account_of,
    counted,
    describe,
    end_lease,
    exposure,
    notice,
    own_channel,
    owned,
)
from .table import Table

__all__ = [
    "Provider",
    "SoldLease",
    "free",
    "income",
    "offer",
    "outstanding",
    "owed",
    "restore",
    "step",
    "why_closed",
]

MACHINE_IS_ASKED = frozenset({LeaseState.OPENING, LeaseState.ENDING})
ENDED_BY_TENANT = Reason("lease.ended-by-tenant", "the tenant ended the lease")


def restore(
    policy: ProviderPolicy, leases: Iterable[SoldLease], open_: Iterable[Channel], drain: Ending | None = None
) -> Provider:
    """The state after a restart: accounts follow from leases and channels and are never stored."""
    state = Provider(policy, Table(leases), Table(open_), drain=drain)
    peers = {x.tenant for x in state.leases.values()} | {c.peer for c in state.channels.values()}
    for peer in sorted(peers):
        state = replace(state, accounts=put(state.accounts, peer, _account(state, peer)))
    return state


def _account(state: Provider, peer: NodeKey) -> Account:
    mine = state.leases.of(peer)
    account = counted(state, peer, Account(Msat(sum(x.due for x in mine)), exposure=exposure(state, peer)))
    late = [at for x in mine if (at := billing.late_before(x, state.policy.patience)) is not None]
    if late and account.owed_sat:
        return replace(account, late_since=min(late), late_due=account.due)
    return account


def outstanding(state: Provider) -> Effects:
    """What must be wanted again after a restart: each effect below may already have been performed."""
    wanted: list[want.AnyEffect] = []
    for lease in state.leases.values():
        if lease.state is LeaseState.ENDING:
            wanted.append(want.Finish(lease.id))
        elif lease.state is not LeaseState.ENDED and not lease.waits:
            wanted.append(want.Prepare(lease.id, lease.growing or lease.limits))
            if lease.state is LeaseState.PAUSED:
                wanted.append(want.Pause(lease.id))
    return (*wanted, *closing.outstanding(state))


def offer(state: Provider, me: NodeKey) -> Offer:
    """What is shown to the market while something is sold; see ``why_closed``."""
    end = ending.closing(state)
    return replace(state.policy.offer(me, free(state)), until=end.at if end else Instant(0))


def why_closed(state: Provider, now: Instant) -> Reason | None:
    """Why nothing new is sold now, if so."""
    return state.unpriced or ending.why_closed(state, now)


def owed(state: Provider, tenant: NodeKey) -> Sat:
    """Whole satoshis stated and not yet signed."""
    return account_of(state, tenant).owed_sat


def income(state: Provider) -> Sat:
    """Everything ever signed to us, settled or not; what a double-spent funding carried is not counted."""
    return Sat(sum(c.paid for c in state.channels.values() if c.state is not ChannelState.ABANDONED))


def step(state: Provider, event: told.AnyEvent, now: Instant) -> tuple[Provider, Effects]:
    """May raise PeerError: then nothing has happened."""
    match event:
        case told.Received():
            return _on_message(state, event, now)
        case told.MeterRead(lease=lease, reading=reading, final=final):
            return billing.on_reading(state, lease, reading, now, final=final)
        case told.Ticked():
            return _on_tick(state, now)
        case told.Priced(tariff=tariff):
            return _priced(state, tariff), ()
        case told.PriceLost(reason=reason):
            return replace(state, unpriced=reason), ()
        case told.DrainRequested(at=at, reason=reason):
            return ending.on_drain(state, at, reason, now)
        case told.DrainCancelled():
            return ending.on_cancelled(state, now)
        case told.HoursSeen(closes_at=closes_at):
            return ending.on_hours(state, closes_at, now)
        case told.Linked(machines=machines):
            return replace(state, policy=replace(state.policy, own=machines)), ()
        case told.HostPrepared(lease=lease):
            return selling.on_prepared(state, lease, event, now)
        case told.HostFailed(lease=lease):
            return selling.on_failed(state, lease, event, now)
        case told.HostCleared(lease=lease):
            cleared = selling.on_cleared(state, lease, now)
            return _then_close(cleared, state.leases[lease].tenant, now) if lease in state.leases else cleared
        case told.BlockSeen(height=height):
            return earning.on_block(state, height, now)
        case told.FundingSeen(channel=channel, confirmations=confirmations):
            seen = earning.on_channel(state, channel, lambda c: channels.confirm(c, confirmations))
            return _then_begin(seen, channel, now)
        case told.FundingMissed(channel=channel):
            return earning.on_channel(state, channel, channels.miss)
        case told.FundingGone(channel=channel, reason=reason):
            gone = earning.on_channel(state, channel, lambda c: channels.vanish(c, reason))
            return _then_begin(gone, channel, now)
        case told.SpendBuilt():
            return closing.on_built(state, event)
        case told.CloseAgreed():
            return closing.on_agreed(state, event)
        case told.SpendFailed(channel=channel, reason=reason):
            return earning.on_channel(state, channel, lambda c: c if c.is_over else replace(c, reason=reason))
        case told.SpendSeen(channel=channel, txid=txid, depth=depth):
            return earning.on_channel(state, channel, lambda c: channels.settle(c, txid, depth))
        case told.EndRequested(lease=lease, reason=reason):
            mine = state.leases.get(lease)
            return end_lease(state, mine, reason, now) if mine else (state, ())
        case told.CloseRequested(channel=channel):
            ours = state.channels.get(channel)
            return earning.close(state, ours, now) if ours else (state, ())
        case _:
            return state, ()  # the tenant's own events: this node may be both


def _priced(state: Provider, tariff: Tariff) -> Provider:
    return replace(state, policy=replace(state.policy, tariff=tariff), unpriced=None)


def _on_message(state: Provider, event: told.Received, now: Instant) -> tuple[Provider, Effects]:
    peer = event.peer
    match event.message:
        case say.Payment(channel=channel, paid=paid, signature=signature):
            mine = own_channel(state, peer, channel)
            return _then_close(billing.on_payment(state, mine, paid, signature, now), peer, now)
        case say.AskQuote(lease=lease, limits=limits):
            return selling.on_ask_quote(state, peer, lease, limits, now)
        case say.OpenLease(quote=quote):
            return selling.on_open(state, peer, quote, now)
        case say.GrowLease(lease=lease, limits=limits):
            return selling.on_grow(state, peer, lease, limits, now)
        case say.AskLease(lease=lease):
            return state, (want.Send(peer, notice(owned(state, peer, lease), now)),)
        case say.EndLease(lease=lease):
            return end_lease(state, owned(state, peer, lease), ENDED_BY_TENANT, now)
        case say.ProposeChannel() as proposal:
            return earning.on_proposal(state, peer, proposal, event.our_key, event.our_setup)
        case say.AnnounceFunding(channel=channel) as announced:
            return earning.on_funding(state, peer, announced, own_channel(state, peer, channel))
        case say.ResumeChannel(channel=channel):
            return state, (want.Send(peer, describe(own_channel(state, peer, channel))),)
        case say.CloseChannel(channel=channel):
            return earning.close(state, own_channel(state, peer, channel), now)
        case say.DeclineClose(channel=channel):
            return closing.on_declined(state, own_channel(state, peer, channel))
        case message:
            raise PeerError("message.unexpected", f"a provider does not take a {type(message).__name__}")


def _then_close(so_far: tuple[Provider, Effects], peer: NodeKey, now: Instant) -> tuple[Provider, Effects]:
    """A lease has ended or a bill was paid: a channel that waited for it may close now."""
    state, effects = so_far
    state, more = earning.finish_closes(state, state.channels.of(peer), now)
    return state, (*effects, *more)


def _then_begin(so_far: tuple[Provider, Effects], id_: ChannelId, now: Instant) -> tuple[Provider, Effects]:
    """The funding is deep enough, or it will never be: leases that waited for it begin or end."""
    state, effects = so_far
    channel = state.channels.get(id_)
    if channel is None:
        return so_far
    state, more = selling.on_waited_for(state, channel, now)
    return state, (*effects, *more)


def _on_tick(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    effects: list[want.AnyEffect] = []
    for lease in list(state.leases.values()):
        if lease.state is LeaseState.RUNNING:
            continue
        act = selling.on_lease_tick if lease.state in MACHINE_IS_ASKED else billing.on_account_tick
        state, more = act(state, lease, now)
        effects += more
    state, leaving = ending.on_tick(state, now)
    state, late = closing.on_tick(state, now)
    state, more = earning.finish_closes(billing.retire(state, now), state.channels.values(), now)
    return state, (*effects, *leaving, *late, *more)
