"""The provider's mind: quote, prepare, meter, demand payment, freeze, end, settle.

Its counterpart is ``tenant.py``. The one rule: nothing a peer says changes anything unless it follows
from the peer's own lease or channel; whatever is refused leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import METERED, LeaseState, check_move
from dockage.domain.offer import Offer, Quote
from dockage.domain.pricing import Tariff, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, digest
from dockage.domain.units import Instant, Msat, Sat, after, since, whole_sat
from dockage.domain.usage import Meter, Reading, advance
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from .ledger import Account, put, secured
from .policy import ProviderPolicy

Effects = tuple[want.AnyEffect, ...]
_Change = Callable[[Channel], Channel]

ENDED_BY_TENANT = Reason("lease.ended-by-tenant", "the tenant ended the lease")
UNPAID = Reason("lease.unpaid", "payment is late; the containers are frozen until it arrives")
NEVER_PAID = Reason("lease.unpaid-too-long", "payment did not come within the grace time")
CHANNEL_CLOSING = Reason("channel.closing", "the tenant closes the channel that pays for the lease")
EXPIRING = Reason("channel.expiring", "the channel is too near to its expiry to be served on")
SHUTDOWN = Reason("provider.leaving", "the provider is taking its machine off the market")


@dataclass(frozen=True, slots=True)
class SoldLease:
    id: LeaseId
    tenant: NodeKey
    limits: Resources
    tariff: Tariff
    opened_at: Instant
    state: LeaseState = LeaseState.OPENING
    since: Instant = Instant(0)  # noqa: RUF009
    """When ``state`` was entered."""
    meter: Meter = field(default_factory=Meter)
    seq: int = 0
    previous: bytes = GENESIS
    stated_at: Instant = Instant(0)  # noqa: RUF009
    due: Msat = Msat(0)  # noqa: RUF009
    reason: Reason | None = None

    def __repr__(self) -> str:
        return f"<SoldLease {self.id.hex()[:8]} {self.state} due {self.due} msat, {self.seq} ticks>"


@dataclass(frozen=True, slots=True)
class Provider:
    policy: ProviderPolicy
    leases: Mapping[LeaseId, SoldLease] = field(default_factory=dict)
    channels: Mapping[ChannelId, Channel] = field(default_factory=dict)
    accounts: Mapping[NodeKey, Account] = field(default_factory=dict)
    height: int = 0
    leaving: bool = False


def restore(policy: ProviderPolicy, leases: Iterable[SoldLease], open_: Iterable[Channel]) -> Provider:
    """The state after a restart: accounts follow from leases and channels and are never stored."""
    state = Provider(policy, {lease.id: lease for lease in leases}, {c.id: c for c in open_})
    dues: dict[NodeKey, int] = {}
    for lease in state.leases.values():
        dues[lease.tenant] = dues.get(lease.tenant, 0) + lease.due
    peers = dues.keys() | {c.peer for c in state.channels.values()}
    paid = {peer: secured(state.channels.values(), peer, policy.credit_sat) for peer in peers}
    return replace(state, accounts={p: Account(Msat(dues.get(p, 0)), paid[p]) for p in sorted(peers)})


def outstanding(state: Provider) -> Effects:
    """What must be wanted again after a restart: each effect below may already have been performed."""
    wanted: list[want.AnyEffect] = []
    for lease in state.leases.values():
        if lease.state is LeaseState.ENDING:
            wanted.append(want.Finish(lease.id))
        elif lease.state is not LeaseState.ENDED:
            wanted.append(want.Prepare(lease.id, lease.limits))
            if lease.state is LeaseState.PAUSED:
                wanted.append(want.Pause(lease.id))
    for channel in state.channels.values():
        wanted += _keep_settling(channel)
    return tuple(wanted)


def free(state: Provider) -> Resources:
    """What is left to rent."""
    left = state.policy.capacity
    for lease in state.leases.values():
        if lease.state is not LeaseState.ENDED:
            left = left - lease.limits
    return left


def offer(state: Provider, me: NodeKey) -> Offer:
    return state.policy.offer(me, free(state))


def step(state: Provider, event: told.AnyEvent, now: Instant) -> tuple[Provider, Effects]:
    """May raise PeerError: then nothing has happened."""
    match event:
        case told.Received(peer=peer, message=message):
            return _on_message(state, peer, message, event.our_key, now)
        case told.HostPrepared(lease=lease):
            return _on_prepared(state, lease, now)
        case told.HostFailed(lease=lease, reason=reason):
            return _on_failed(state, lease, reason, now)
        case told.MeterRead(lease=lease, reading=reading, final=final):
            return _on_reading(state, lease, reading, now, final=final)
        case told.HostCleared(lease=lease):
            return _on_cleared(state, lease, now)
        case told.BlockSeen(height=height):
            return _on_block(state, height, now)
        case told.FundingSeen(channel=channel, confirmations=confirmations):
            return _on_channel(state, channel, lambda c: channels.confirm(c, confirmations))
        case told.FundingGone(channel=channel, reason=reason):
            return _on_channel(state, channel, lambda c: channels.vanish(c, reason))
        case told.SpendBuilt(channel=channel, tx=tx):
            return _on_close_built(state, channel, tx)
        case told.SpendFailed(channel=channel, reason=reason):
            return _on_channel(state, channel, lambda c: replace(c, reason=reason))
        case told.SpendSeen(channel=channel, txid=txid, depth=depth):
            return _on_channel(state, channel, lambda c: channels.settle(c, txid, depth))
        case told.EndRequested(lease=lease, reason=reason):
            return (
                _end_lease(state, state.leases[lease], reason, now) if lease in state.leases else (state, ())
            )
        case told.CloseRequested(channel=channel):
            return _close(state, state.channels[channel], now) if channel in state.channels else (state, ())
        case told.Ticked():
            return _on_tick(state, now)
        case _:
            return state, ()  # the tenant's own events: this node may be both


def _on_message(
    state: Provider, peer: NodeKey, message: say.AnyMessage, our_key: bytes, now: Instant
) -> tuple[Provider, Effects]:
    match message:
        case say.AskQuote(lease=lease, limits=limits):
            return state, (want.Send(peer, _quote(state, peer, lease, limits, now)),)
        case say.OpenLease(quote=quote):
            return _on_open(state, peer, quote, now)
        case say.GrowLease(lease=lease, limits=limits):
            return _on_grow(state, peer, lease, limits, now)
        case say.AskLease(lease=lease):
            return state, (want.Send(peer, _tell(_owned(state, peer, lease), now)),)
        case say.EndLease(lease=lease):
            return _end_lease(state, _owned(state, peer, lease), ENDED_BY_TENANT, now)
        case say.ProposeChannel():
            return _on_proposal(state, peer, message, our_key)
        case say.AnnounceFunding(channel=channel, txid=txid, vout=vout):
            mine = _own_channel(state, peer, channel)
            return _with_channel(state, channels.fund(mine, txid, vout, state.height), tell=True)
        case say.Payment(channel=channel, paid=paid, signature=signature):
            return _on_payment(state, _own_channel(state, peer, channel), paid, signature, now)
        case say.CloseChannel(channel=channel):
            return _close(state, _own_channel(state, peer, channel), now)
        case _:
            raise PeerError("message.unexpected", f"a provider does not take a {type(message).__name__}")


def _owned(state: Provider, peer: NodeKey, lease: LeaseId) -> SoldLease:
    """The same answer for a lease that is not there and one that is another tenant's."""
    found = state.leases.get(lease)
    if found is None or found.tenant != peer:
        raise PeerError("lease.unknown", "no such lease of yours here")
    return found


def _own_channel(state: Provider, peer: NodeKey, channel: ChannelId) -> Channel:
    found = state.channels.get(channel)
    if found is None or found.peer != peer:
        raise PeerError("channel.unknown", "no such channel of yours here")
    return found


# -- selling -----------------------------------------------------------------------------------------
def _quote(
    state: Provider, peer: NodeKey, lease: LeaseId, limits: Resources, now: Instant
) -> Quote | say.Refusal:
    refusal = _why_not(state, peer, limits)
    if refusal:
        return say.Refusal(lease, refusal)
    policy = state.policy
    return Quote(
        lease=lease,
        tenant=peer,
        limits=limits,
        tariff=policy.tariff,
        network="" if policy.tariff.is_free else policy.network,
        confirmations=policy.confirmations(Sat(0)),
        credit_sat=policy.credit_sat,
        expires=after(now, policy.quote_life),
    )


def _why_not(state: Provider, peer: NodeKey, limits: Resources) -> Reason | None:
    policy = state.policy
    if state.leaving:
        return SHUTDOWN
    if peer in policy.blocked or (policy.only_for and peer not in policy.only_for):
        return Reason("provider.not-for-you", "this provider does not serve your key")
    held = sum(1 for x in state.leases.values() if x.tenant == peer and x.state is not LeaseState.ENDED)
    if held >= policy.leases_per_tenant:
        return Reason("provider.too-many-leases", f"you hold {held} leases here; that is the limit")
    lacking = limits.lacking(free(state))
    if lacking:
        return Reason("provider.full", f"not enough left: {', '.join(lacking)}")
    return None


def _on_open(state: Provider, peer: NodeKey, quote: Quote, now: Instant) -> tuple[Provider, Effects]:
    """The quote's signature (our own) was verified at the edge."""
    known = state.leases.get(quote.lease)
    if known is not None:
        return state, (want.Send(peer, _tell(_owned(state, peer, quote.lease), now)),)
    if quote.tenant != peer:
        raise PeerError("quote.not-yours", "the quote was made for another tenant")
    refusal = _why_not(state, peer, quote.limits) or _why_unpayable(state, peer, quote)
    if quote.expires < now:
        refusal = Reason("quote.expired", "the quote has expired; ask for a new one")
    if refusal:
        return state, (want.Send(peer, say.Refusal(quote.lease, refusal)),)
    lease = SoldLease(quote.lease, peer, quote.limits, quote.tariff, opened_at=now, since=now)
    return replace(state, leases=put(state.leases, lease.id, lease)), (want.Prepare(lease.id, lease.limits),)


def _why_unpayable(state: Provider, peer: NodeKey, quote: Quote) -> Reason | None:
    if quote.tariff.is_free:
        return None
    serving = [c for c in state.channels.values() if c.peer == peer and c.serves_at(state.height)]
    if not serving:
        return Reason("channel.none", "open a channel first, with enough blocks left before its expiry")
    if not any(c.state is ChannelState.OPEN for c in serving) and not state.policy.credit_sat:
        return Reason("channel.unconfirmed", "the channel's funding is not deep enough yet")
    if not any(c.remaining for c in serving):
        return Reason("channel.exhausted", "the channel has nothing left to pay with")
    return None


def _on_grow(
    state: Provider, peer: NodeKey, lease: LeaseId, limits: Resources, now: Instant
) -> tuple[Provider, Effects]:
    mine = _owned(state, peer, lease)
    if mine.state not in METERED:
        return state, (want.Send(peer, _tell(mine, now)),)
    lacking = (limits - mine.limits).lacking(free(state))
    if lacking:
        reason = Reason("provider.full", f"not enough left to grow: {', '.join(lacking)}")
        return state, (want.Send(peer, say.Refusal(lease, reason)),)
    grown = replace(mine, limits=limits)
    after_ = replace(state, leases=put(state.leases, lease, grown))
    return after_, (want.Prepare(lease, limits), want.Send(peer, _tell(grown, now)))


def _tell(lease: SoldLease, now: Instant) -> say.LeaseNotice:
    return say.LeaseNotice(lease.id, lease.state, lease.limits, now, lease.reason)


# -- running -----------------------------------------------------------------------------------------
def _on_prepared(state: Provider, lease: LeaseId, now: Instant) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or mine.state is not LeaseState.OPENING:
        return state, ()
    return _enter(state, mine, LeaseState.RUNNING, now)


def _on_failed(state: Provider, lease: LeaseId, reason: Reason, now: Instant) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or mine.state is not LeaseState.OPENING:
        return state, ()
    state, effects = _enter(state, mine, LeaseState.ENDING, now, reason)
    return state, (*effects, want.Finish(lease))


def _enter(
    state: Provider, lease: SoldLease, to: LeaseState, now: Instant, reason: Reason | None = None
) -> tuple[Provider, Effects]:
    """Move a lease and tell its tenant."""
    moved = replace(lease, state=check_move(lease.state, to), since=now, reason=reason)
    state = replace(state, leases=put(state.leases, lease.id, moved))
    return state, (want.Send(lease.tenant, _tell(moved, now)),)


def _end_lease(state: Provider, lease: SoldLease, reason: Reason, now: Instant) -> tuple[Provider, Effects]:
    if lease.state in (LeaseState.ENDING, LeaseState.ENDED):
        return state, (want.Send(lease.tenant, _tell(lease, now)),)
    state, effects = _enter(state, lease, LeaseState.ENDING, now, reason)
    return state, (*effects, want.Finish(lease.id))


def _on_cleared(state: Provider, lease: LeaseId, now: Instant) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or mine.state is not LeaseState.ENDING:
        return state, ()
    return _enter(state, mine, LeaseState.ENDED, now, mine.reason)


# -- metering and payment ----------------------------------------------------------------------------
def _on_reading(
    state: Provider, lease: LeaseId, reading: Reading, now: Instant, *, final: bool
) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or (mine.state not in METERED and not (final and mine.state is LeaseState.ENDING)):
        return state, ()
    mine = replace(mine, meter=advance(mine.meter, reading, mine.limits))
    if since(mine.stated_at, now) < state.policy.tick and not final:
        return replace(state, leases=put(state.leases, lease, mine)), ()
    return _state_bill(state, mine, now)


def _state_bill(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    """One tick: the new statement, and what follows if the tick before it is still unpaid."""
    account = _mark_late(state.accounts.get(lease.tenant, Account()), now)
    due = price(lease.meter.usage, lease.tariff)
    account = Account(Msat(account.due + due - lease.due), account.paid, account.late_since)
    statement = _statement(lease, due, account.paid, now)
    lease = replace(lease, seq=statement.seq, previous=digest(statement), stated_at=now, due=due)
    state = replace(
        state,
        leases=put(state.leases, lease.id, lease),
        accounts=put(state.accounts, lease.tenant, account),
    )
    state, effects = _freeze_or_thaw(state, lease.tenant, now)
    return state, (want.Send(lease.tenant, statement), *effects)


def _statement(lease: SoldLease, due: Msat, received: Sat, now: Instant) -> Statement:
    last = lease.meter.last
    assert last is not None
    return Statement(
        lease=lease.id,
        seq=lease.seq + 1,
        previous=lease.previous,
        at=now,
        usage=lease.meter.usage,
        tariff=digest(lease.tariff),
        due=due,
        received_sat=received,
        memory_bytes=last.memory_bytes,
        disk_bytes=last.disk_bytes,
        containers=last.containers,
    )


def _mark_late(account: Account, now: Instant) -> Account:
    """Called before a new due is added: whatever is owed now was stated at least one tick ago."""
    if not account.owed_sat:
        return Account(account.due, account.paid, None)
    return account if account.late_since is not None else Account(account.due, account.paid, now)


def _is_behind(state: Provider, tenant: NodeKey, now: Instant) -> bool:
    account = state.accounts.get(tenant, Account())
    if account.late_since is not None and since(account.late_since, now) >= state.policy.patience:
        return True
    return bool(account.owed_sat) and account.unpaid > _exposure(state, tenant)


def _exposure(state: Provider, tenant: NodeKey) -> Msat:
    """How much this tenant may owe: the sum over the leases it holds."""
    held = (x for x in state.leases.values() if x.tenant == tenant and x.state is not LeaseState.ENDED)
    return Msat(sum(state.policy.exposure(lease.limits) for lease in held))


def _freeze_or_thaw(state: Provider, tenant: NodeKey, now: Instant) -> tuple[Provider, Effects]:
    """Payment is the pair's, so all leases of the tenant freeze and thaw together."""
    behind = _is_behind(state, tenant, now)
    source, target = (
        (LeaseState.RUNNING, LeaseState.PAUSED) if behind else (LeaseState.PAUSED, LeaseState.RUNNING)
    )
    effects: list[want.AnyEffect] = []
    for lease in [x for x in state.leases.values() if x.tenant == tenant and x.state is source]:
        state, told_ = _enter(state, lease, target, now, UNPAID if behind else None)
        effects += [want.Pause(lease.id) if behind else want.Thaw(lease.id), *told_]
    return state, tuple(effects)


def _on_payment(
    state: Provider, channel: Channel, paid: Sat, signature: bytes, now: Instant
) -> tuple[Provider, Effects]:
    """The signature was verified at the edge against the template we built ourselves."""
    state, _ = _with_channel(state, channels.pay(channel, paid, signature))
    account = state.accounts[channel.peer]
    if not account.owed_sat:
        state = replace(
            state, accounts=put(state.accounts, channel.peer, Account(account.due, account.paid, None))
        )
    return _freeze_or_thaw(state, channel.peer, now)


def _on_tick(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    effects: list[want.AnyEffect] = []
    for lease in [x for x in state.leases.values() if x.state is LeaseState.PAUSED]:
        if since(lease.since, now) >= state.policy.grace:
            state, more = _end_lease(state, lease, NEVER_PAID, now)
            effects += more
    return state, tuple(effects)


# -- channels ----------------------------------------------------------------------------------------
def _on_proposal(
    state: Provider, peer: NodeKey, proposal: say.ProposeChannel, our_key: bytes
) -> tuple[Provider, Effects]:
    terms = Terms(
        proposal.tenant_key, our_key, proposal.expiry_height, proposal.capacity, proposal.tenant_script
    )
    known = state.channels.get(proposal.channel)
    if known is not None and (known.peer != peer or known.terms != terms):
        raise PeerError("channel.taken", "that channel id is already in use with other terms")
    refusal = None if known else _why_no_channel(state, peer, terms)
    if refusal:
        return state, (want.Send(peer, say.Refusal(proposal.channel, refusal)),)
    needed = state.policy.confirmations(terms.capacity)
    channel = known or Channel(proposal.channel, peer, terms, needed=needed)
    accept = say.AcceptChannel(channel.id, our_key, needed)
    return replace(state, channels=put(state.channels, channel.id, channel)), (want.Send(peer, accept),)


def _why_no_channel(state: Provider, peer: NodeKey, terms: Terms) -> Reason | None:
    policy = state.policy
    if not policy.network:
        return Reason("provider.no-wallet", "this provider takes no payment")
    if peer in policy.blocked or (policy.only_for and peer not in policy.only_for):
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
    waiting = [c for c in state.channels.values() if c.peer == peer and c.state is ChannelState.OPENING]
    if len(waiting) >= policy.channels_per_tenant:
        return Reason("channel.too-many", "fund the channels you proposed before you propose more")
    return None


def _on_channel(state: Provider, id_: ChannelId, change: _Change) -> tuple[Provider, Effects]:
    channel = state.channels.get(id_)
    if channel is None:
        return state, ()
    changed = change(channel)
    if changed == channel:
        return state, ()
    return _with_channel(state, changed, tell=changed.state is not channel.state)


def _with_channel(state: Provider, channel: Channel, *, tell: bool = False) -> tuple[Provider, Effects]:
    """Store the channel and what follows from it for the pair's account."""
    all_ = put(state.channels, channel.id, channel)
    account = state.accounts.get(channel.peer, Account())
    paid = secured((c for c in all_.values()), channel.peer, state.policy.credit_sat)
    accounts = put(state.accounts, channel.peer, Account(account.due, paid, account.late_since))
    effects = (want.Send(channel.peer, _describe(channel)),) if tell else ()
    return replace(state, channels=all_, accounts=accounts), effects


def _describe(channel: Channel) -> say.ChannelNotice:
    return say.ChannelNotice(
        channel.id,
        channel.state,
        channel.confirmations,
        channel.paid,
        channel.signature,
        channel.settled_txid or (channel.spending[-1].txid if channel.spending else ""),
        channel.reason,
    )


def _close(state: Provider, channel: Channel, now: Instant) -> tuple[Provider, Effects]:
    """Settle what was paid. Leases that this channel pays for end first, unless another one carries them."""
    if not channel.is_live:
        return state, (want.Send(channel.peer, _describe(channel)),)
    effects: list[want.AnyEffect] = []
    for lease in _paid_by(state, channel):
        state, more = _end_lease(state, lease, CHANNEL_CLOSING, now)
        effects += more
    if not channel.paid:
        nothing = Reason("channel.nothing-paid", "nothing was paid: the refund returns all after the expiry")
        state, told_ = _with_channel(state, replace(channel, reason=nothing), tell=True)
        return state, (*effects, *told_)
    closing = channels.move(channel, ChannelState.CLOSING)
    state, told_ = _with_channel(state, closing, tell=True)
    return state, (*effects, *told_, want.Settle(channel.id))


def _paid_by(state: Provider, channel: Channel) -> list[SoldLease]:
    others = [
        c
        for c in state.channels.values()
        if c.peer == channel.peer and c.id != channel.id and c.serves_at(state.height) and c.remaining
    ]
    if others:
        return []
    return [
        lease
        for lease in state.leases.values()
        if lease.tenant == channel.peer and not lease.tariff.is_free and lease.state is not LeaseState.ENDED
    ]


def _on_close_built(state: Provider, id_: ChannelId, tx: channels.SpendingTx) -> tuple[Provider, Effects]:
    channel = state.channels.get(id_)
    if channel is None or channel.state is not ChannelState.CLOSING:
        return state, ()
    state, told_ = _with_channel(state, channels.spend(channel, tx, ChannelState.CLOSING), tell=True)
    return state, (*told_, want.Broadcast(id_, tx.raw))


def _on_block(state: Provider, height: int, now: Instant) -> tuple[Provider, Effects]:
    """At each poll: what must settle now settles; what is closing is asked for again until it is buried."""
    state = replace(state, height=height)
    effects: list[want.AnyEffect] = []
    for channel in list(state.channels.values()):
        if channel.must_settle_at(height):
            state, more = _close(state, channel, now)
            effects += more
        elif channel.is_live and not channel.serves_at(height):
            for lease in _paid_by(state, channel):
                state, more = _end_lease(state, lease, EXPIRING, now)
                effects += more
        else:
            effects += _keep_settling(channel)
    return state, tuple(effects)


def _keep_settling(channel: Channel) -> Effects:
    if channel.state is not ChannelState.CLOSING or channel.settled_txid:
        return ()
    if channel.spending:
        return (want.Broadcast(channel.id, channel.spending[-1].raw),)
    return (want.Settle(channel.id),)


def owed(state: Provider, tenant: NodeKey) -> Sat:
    """Whole satoshis stated and not yet signed."""
    return state.accounts.get(tenant, Account()).owed_sat


def income(state: Provider) -> Sat:
    """Everything ever signed to us, settled or not."""
    return Sat(sum(channel.paid for channel in state.channels.values()))


def due_total(state: Provider) -> Sat:
    return Sat(sum(whole_sat(account.due) for account in state.accounts.values()))
