"""The tenant's mind: ask for a quote, open a channel, rent, check every statement, pay it, leave, get the rest back.

Its counterpart is ``provider.py``. The one rule: it signs only what its own checks confirm, so the most a
provider can take without service is one tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import METERED, LeaseState, check_move
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff, ceiling
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement, View, fault
from dockage.domain.units import HOUR, Duration, Instant, Msat, Sat, since
from dockage.protocol import messages as say

from . import effects as want
from . import events as told
from .events import Candidate
from .ledger import Account, put, secured
from .policy import TenantPolicy

Effects = tuple[want.AnyEffect, ...]
_Change = Callable[[Channel], Channel]

NO_ANSWER = Reason("provider.no-answer", "the provider does not answer")
DEARER = Reason("quote.dearer", "the quote is dearer than the offer was")
ALTERED = Reason("quote.altered", "the quote is not what was asked for")
SILENT = Reason("provider.silent", "nothing was heard of the provider for too long")
EXHAUSTED = Reason("channel.exhausted", "the channel is used up; open a larger one")
UNKNOWN_THERE = Reason("lease.unknown-there", "the provider no longer knows the lease")


@dataclass(frozen=True, slots=True)
class RentedLease:
    id: LeaseId
    deployment: str
    limits: Resources
    candidates: tuple[Candidate, ...]
    """Still to try; the first is the one being asked or renting to us."""
    state: LeaseState = LeaseState.QUOTING
    since: Instant = Instant(0)  # noqa: RUF009
    asked_at: Instant = Instant(0)  # noqa: RUF009
    heard_at: Instant = Instant(0)  # noqa: RUF009
    quote: Quote | None = None
    quote_signature: bytes = b""
    opened_at: Instant = Instant(0)  # noqa: RUF009
    last: Statement | None = None
    """The newest statement we agreed to."""
    last_signature: bytes = b""
    wanted: Resources | None = None
    """Limits asked for and not yet granted."""
    faults: int = 0
    reason: Reason | None = None
    refusals: tuple[tuple[NodeKey, Reason], ...] = ()
    """Who said no, and why: the answer to ``dockage why``."""

    def __repr__(self) -> str:
        return f"<RentedLease {self.id.hex()[:8]} {self.state} due {self.due} msat>"

    @property
    def provider(self) -> NodeKey:
        return self.candidates[0].provider

    @property
    def due(self) -> Msat:
        return self.last.due if self.last else Msat(0)

    @property
    def tariff(self) -> Tariff:
        return self.quote.tariff if self.quote else Tariff()

    @property
    def is_over(self) -> bool:
        return self.state is LeaseState.ENDED


@dataclass(frozen=True, slots=True)
class Tenant:
    me: NodeKey
    policy: TenantPolicy = field(default_factory=TenantPolicy)
    leases: Mapping[LeaseId, RentedLease] = field(default_factory=dict)
    channels: Mapping[ChannelId, Channel] = field(default_factory=dict)
    height: int = 0


def restore(
    me: NodeKey, policy: TenantPolicy, leases: Iterable[RentedLease], open_: Iterable[Channel]
) -> Tenant:
    return Tenant(me, policy, {x.id: x for x in leases}, {c.id: c for c in open_})


def outstanding(state: Tenant) -> Effects:
    """What must be wanted again after a restart. Requests to peers are repeated by the tick anyway."""
    wanted: list[want.AnyEffect] = [
        want.Send(lease.provider, say.AskLease(lease.id))
        for lease in state.leases.values()
        if lease.state in METERED
    ]
    for channel in state.channels.values():
        wanted += _keep_going(channel)
    return tuple(wanted)


def account(state: Tenant, provider: NodeKey) -> Account:
    """Due and paid of the pair. Our own signatures count whole: they can be shown to the chain."""
    due = sum(x.due for x in state.leases.values() if x.candidates and x.provider == provider)
    paid = secured(state.channels.values(), provider, Sat(1 << 60))
    return Account(Msat(due), paid)


def step(state: Tenant, event: told.AnyEvent, now: Instant) -> tuple[Tenant, Effects]:
    """May raise PeerError: then nothing has happened."""
    match event:
        case told.Received(peer=peer):
            return _on_message(state, peer, event, now)
        case told.RentRequested():
            return _on_rent(state, event, now)
        case told.GrowRequested(lease=lease, limits=limits):
            return _on_grow(state, lease, limits)
        case told.EndRequested(lease=lease, reason=reason):
            return _end(state, state.leases[lease], reason, now) if lease in state.leases else (state, ())
        case told.CloseRequested(channel=channel):
            return _on_close(state, channel)
        case told.FundingBuilt():
            return _on_funding_built(state, event)
        case told.FundingFailed(channel=channel, reason=reason):
            return _on_funding_failed(state, channel, reason, now)
        case told.FundingSeen(channel=channel, confirmations=confirmations):
            return _on_channel(state, channel, lambda c: channels.confirm(c, confirmations), now)
        case told.FundingGone(channel=channel, reason=reason):
            return _on_channel(state, channel, lambda c: channels.vanish(c, reason), now)
        case told.SpendBuilt(channel=channel, tx=tx):
            return _on_refund_built(state, channel, tx)
        case told.SpendFailed(channel=channel, reason=reason):
            return _on_channel(state, channel, lambda c: replace(c, reason=reason), now)
        case told.SpendSeen(channel=channel, txid=txid, depth=depth):
            return _on_channel(state, channel, lambda c: _settled(c, txid, depth), now)
        case told.BlockSeen(height=height):
            return _on_block(state, height)
        case told.Ticked():
            return _on_tick(state, now)
        case _:
            return state, ()  # the provider's own events: this node may be both


def _on_message(state: Tenant, peer: NodeKey, event: told.Received, now: Instant) -> tuple[Tenant, Effects]:
    match event.message:
        case Quote() as quote:
            return _on_quote(state, _rented(state, peer, quote.lease), quote, event.signature, now)
        case say.Refusal(about=about, reason=reason):
            return _on_refusal(state, peer, about, reason, now)
        case say.AcceptChannel() as accept:
            return _on_accept(state, peer, accept)
        case say.ChannelNotice() as notice:
            return _on_channel_notice(state, peer, notice, now)
        case say.LeaseNotice() as notice:
            return _on_lease_notice(state, _rented(state, peer, notice.lease), notice, now)
        case Statement() as statement:
            lease = _rented(state, peer, statement.lease)
            return _on_statement(state, lease, statement, event.signature, event.view, now)
        case _:
            raise PeerError("message.unexpected", f"a tenant does not take a {type(event.message).__name__}")


def _rented(state: Tenant, peer: NodeKey, lease: LeaseId) -> RentedLease:
    found = state.leases.get(lease)
    if found is None or not found.candidates or found.provider != peer:
        raise PeerError("lease.unknown", "no such lease of ours with you")
    return found


def _store(state: Tenant, lease: RentedLease) -> Tenant:
    return replace(state, leases=put(state.leases, lease.id, lease))


def _enter(lease: RentedLease, to: LeaseState, now: Instant, reason: Reason | None = None) -> RentedLease:
    return replace(lease, state=check_move(lease.state, to), since=now, asked_at=now, reason=reason)


# -- renting -----------------------------------------------------------------------------------------
def _on_rent(state: Tenant, event: told.RentRequested, now: Instant) -> tuple[Tenant, Effects]:
    if event.lease in state.leases:
        return state, ()
    lease = RentedLease(
        event.lease, event.deployment, event.limits, event.candidates, since=now, asked_at=now
    )
    return _store(state, lease), (_ask_quote(lease),)


def _ask_quote(lease: RentedLease) -> want.Send:
    return want.Send(lease.provider, say.AskQuote(lease.id, lease.limits))


def _next_candidate(
    state: Tenant, lease: RentedLease, reason: Reason, now: Instant
) -> tuple[Tenant, Effects]:
    """This provider will not do: ask the next one, or give up with everybody's reasons."""
    refusals = (*lease.refusals, (lease.provider, reason))
    rest = lease.candidates[1:]
    if not rest:
        over = replace(_enter(lease, LeaseState.ENDED, now, reason), refusals=refusals)
        return _store(state, over), ()
    again = replace(_enter(lease, LeaseState.QUOTING, now), candidates=rest, refusals=refusals, quote=None)
    return _store(state, again), (_ask_quote(again),)


def _on_quote(
    state: Tenant, lease: RentedLease, quote: Quote, signature: bytes, now: Instant
) -> tuple[Tenant, Effects]:
    if lease.state is not LeaseState.QUOTING:
        return state, ()
    if quote.tenant != state.me or quote.limits != lease.limits:
        return _next_candidate(state, lease, ALTERED, now)
    if ceiling(quote.limits, quote.tariff, HOUR) > lease.candidates[0].msat_hour:
        return _next_candidate(state, lease, DEARER, now)
    lease = replace(lease, quote=quote, quote_signature=signature)
    if quote.tariff.is_free or _paying_channel(state, lease.provider):
        return _ask_to_open(state, lease, now)
    return _propose(state, lease, now)


def _ask_to_open(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    lease = _enter(lease, LeaseState.OPENING, now)
    return _store(state, lease), (_open(lease),)


def _open(lease: RentedLease) -> want.Send:
    assert lease.quote is not None
    return want.Send(lease.provider, say.OpenLease(lease.quote, lease.quote_signature))


def _on_refusal(
    state: Tenant, peer: NodeKey, about: bytes, reason: Reason, now: Instant
) -> tuple[Tenant, Effects]:
    lease = state.leases.get(LeaseId(about))
    if lease is not None and lease.candidates and lease.provider == peer:
        return _on_lease_refused(state, lease, reason, now)
    channel = state.channels.get(ChannelId(about))
    if channel is not None and channel.peer == peer and channel.state is ChannelState.OPENING:
        state = _put_channel(state, channels.move(channel, ChannelState.ABANDONED, reason))
        return _for_each(state, _waiting_for(state, peer), lambda s, x: _next_candidate(s, x, reason, now))
    return state, ()


def _on_lease_refused(
    state: Tenant, lease: RentedLease, reason: Reason, now: Instant
) -> tuple[Tenant, Effects]:
    if reason.code == "quote.expired" and lease.state is LeaseState.OPENING:
        again = replace(_enter(lease, LeaseState.QUOTING, now), quote=None)
        return _store(state, again), (_ask_quote(again),)
    if reason.code == "channel.unconfirmed" and lease.state is LeaseState.OPENING:
        return state, ()  # the tick asks again: confirmations take as long as they take
    if lease.state in (LeaseState.QUOTING, LeaseState.OPENING):
        return _next_candidate(state, lease, reason, now)
    if lease.state in METERED and reason.code == "lease.unknown":
        return _store(state, _enter(lease, LeaseState.ENDED, now, UNKNOWN_THERE)), ()
    if lease.state is LeaseState.ENDING and reason.code == "lease.unknown":
        return _store(state, _enter(lease, LeaseState.ENDED, now, lease.reason)), ()
    return _store(state, replace(lease, wanted=None, reason=reason)), ()  # a refused growth


def _on_grow(state: Tenant, lease: LeaseId, limits: Resources) -> tuple[Tenant, Effects]:
    mine = state.leases.get(lease)
    if mine is None or mine.state not in METERED:
        return state, ()
    return _store(state, replace(mine, wanted=limits)), (
        want.Send(mine.provider, say.GrowLease(lease, limits)),
    )


def _on_lease_notice(
    state: Tenant, lease: RentedLease, notice: say.LeaseNotice, now: Instant
) -> tuple[Tenant, Effects]:
    lease = replace(lease, heard_at=now)
    if lease.state is LeaseState.ENDED or lease.state is notice.state:
        return _store(state, _granted(lease, notice)), ()
    if lease.state is LeaseState.OPENING and notice.state in METERED:
        lease = replace(lease, opened_at=lease.opened_at or now)
        return _store(state, _granted(_enter(lease, LeaseState.RUNNING, now), notice)), ()
    if lease.state in METERED and notice.state in METERED:
        return _store(state, _granted(_enter(lease, notice.state, now, notice.reason), notice)), ()
    if notice.state in (LeaseState.ENDING, LeaseState.ENDED) and lease.state is not LeaseState.QUOTING:
        reason = lease.reason if lease.state is LeaseState.ENDING else notice.reason
        return _store(state, _enter(lease, notice.state, now, reason)), ()
    return state, ()


def _granted(lease: RentedLease, notice: say.LeaseNotice) -> RentedLease:
    """Limits change only to what we asked for: the provider can't grow the reserved bill by itself."""
    if lease.wanted is not None and notice.limits == lease.wanted:
        return replace(lease, limits=notice.limits, wanted=None)
    return lease


def _end(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """Whatever it is doing, it stops. Nothing was opened yet in the first states: no one need be asked."""
    if lease.state in (LeaseState.ENDED, LeaseState.ENDING):
        return state, ()
    if lease.state in (LeaseState.QUOTING, LeaseState.FUNDING):
        return _store(state, _enter(lease, LeaseState.ENDED, now, reason)), ()
    return _store(state, _enter(lease, LeaseState.ENDING, now, reason)), (
        want.Send(lease.provider, say.EndLease(lease.id)),
    )


# -- statements --------------------------------------------------------------------------------------
def _on_statement(
    state: Tenant,
    lease: RentedLease,
    statement: Statement,
    signature: bytes,
    view: View | None,
    now: Instant,
) -> tuple[Tenant, Effects]:
    if lease.quote is None or lease.state not in (*METERED, LeaseState.ENDING, LeaseState.ENDED):
        return state, ()
    if lease.last is not None and statement == lease.last:
        return state, ()
    seen = view or View(sent_bytes=0, received_bytes=0, elapsed=Duration(0))
    wrong = fault(statement, lease.last, _most(lease), lease.tariff, seen)
    lease = replace(lease, heard_at=now)
    if wrong is not None:
        return _on_fault(state, replace(lease, faults=lease.faults + 1), wrong, now)
    agreed = replace(lease, last=statement, last_signature=signature, faults=0)
    state = _store(state, agreed)
    return _pay(state, agreed, statement.received_sat, now)


def _most(lease: RentedLease) -> Resources:
    """While a growth is being granted, either limit may already be in force."""
    wanted = lease.wanted or lease.limits
    return Resources(
        max(lease.limits.cpu_milli, wanted.cpu_milli),
        max(lease.limits.memory_bytes, wanted.memory_bytes),
        max(lease.limits.disk_bytes, wanted.disk_bytes),
    )


def _on_fault(state: Tenant, lease: RentedLease, wrong: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """A wrong statement is not paid; after a few of them in a row we leave."""
    state = _store(state, lease)
    if lease.faults >= state.policy.faults_max and lease.state in METERED:
        return _end(state, lease, wrong, now)
    return state, ()


def _pay(state: Tenant, lease: RentedLease, received: Sat, now: Instant) -> tuple[Tenant, Effects]:
    owed = account(state, lease.provider).owed_sat
    channel = _paying_channel(state, lease.provider)
    if owed and channel is not None:
        paid = Sat(min(channel.paid + owed, channel.terms.spendable))
        channel = channels.pay(channel, paid, b"")
        return _put_channel(state, channel), (want.Pay(lease.provider, channel.id, paid),)
    if owed and not lease.tariff.is_free:
        return _end(state, lease, EXHAUSTED, now)
    return state, _pay_again(state, lease.provider, received)


def _pay_again(state: Tenant, provider: NodeKey, received: Sat) -> Effects:
    """The provider holds less than we signed: a payment was lost on the way. The same one heals it."""
    mine = [c for c in state.channels.values() if c.peer == provider and c.is_live and c.paid]
    if sum(c.paid for c in mine) <= received:
        return ()
    return tuple(want.Pay(provider, c.id, c.paid) for c in mine[-1:])


# -- channels ----------------------------------------------------------------------------------------
def _paying_channel(state: Tenant, provider: NodeKey) -> Channel | None:
    """The oldest channel to *provider* that can still pay something."""
    for channel in state.channels.values():
        if channel.peer == provider and channel.is_live and channel.remaining > 0:
            return channel
    return None


def _waiting_for(state: Tenant, provider: NodeKey) -> list[RentedLease]:
    return [x for x in state.leases.values() if x.state is LeaseState.FUNDING and x.provider == provider]


def _for_each(
    state: Tenant,
    leases: list[RentedLease],
    act: Callable[[Tenant, RentedLease], tuple[Tenant, Effects]],
) -> tuple[Tenant, Effects]:
    effects: list[want.AnyEffect] = []
    for lease in leases:
        state, more = act(state, lease)
        effects += more
    return state, tuple(effects)


def _put_channel(state: Tenant, channel: Channel) -> Tenant:
    return replace(state, channels=put(state.channels, channel.id, channel))


def _propose(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """One channel per pair: a second lease waits for the channel that the first one is opening."""
    plan = lease.candidates[0].plan
    if plan is None:
        return _next_candidate(
            state,
            lease,
            Reason("wallet.none", "the offer is not free and there is no wallet to pay from"),
            now,
        )
    lease = _enter(lease, LeaseState.FUNDING, now)
    state = _store(state, lease)
    opening = [c for c in state.channels.values() if c.peer == lease.provider and not c.is_over]
    opening = [c for c in opening if c.state in (ChannelState.OPENING, ChannelState.FUNDED)]
    if opening:
        return state, ()
    terms = Terms(plan.tenant_key, b"", plan.expiry_height, plan.capacity, plan.tenant_script)
    channel = Channel(plan.id, lease.provider, terms)
    return _put_channel(state, channel), (_proposal(channel),)


def _proposal(channel: Channel) -> want.Send:
    terms = channel.terms
    return want.Send(
        channel.peer,
        say.ProposeChannel(
            channel.id, terms.tenant_key, terms.expiry_height, terms.capacity, terms.tenant_script
        ),
    )


def _on_accept(state: Tenant, peer: NodeKey, accept: say.AcceptChannel) -> tuple[Tenant, Effects]:
    channel = _own_channel(state, peer, accept.channel)
    if channel.terms.provider_key:
        if channel.terms.provider_key != accept.provider_key:
            raise PeerError("channel.rekeyed", "the provider named another key for the same channel")
        return state, ()
    terms = Terms(
        channel.terms.tenant_key,
        accept.provider_key,
        channel.terms.expiry_height,
        channel.terms.capacity,
        channel.terms.tenant_script,
    )
    agreed = replace(channel, terms=terms, needed=accept.confirmations)
    return _put_channel(state, agreed), (want.Fund(channel.id, terms),)


def _own_channel(state: Tenant, peer: NodeKey, channel: ChannelId) -> Channel:
    found = state.channels.get(channel)
    if found is None or found.peer != peer:
        raise PeerError("channel.unknown", "no such channel of ours with you")
    return found


def _on_funding_built(state: Tenant, event: told.FundingBuilt) -> tuple[Tenant, Effects]:
    channel = state.channels.get(event.channel)
    if channel is None or channel.state is not ChannelState.OPENING:
        return state, ()
    funded = channels.fund(channel, event.txid, event.vout, state.height)
    funded = replace(funded, funding_raw=event.raw, funding_fee=event.fee)
    return _put_channel(state, funded), _announce(funded)


def _announce(channel: Channel) -> Effects:
    return (
        want.Broadcast(channel.id, channel.funding_raw),
        want.Send(channel.peer, say.AnnounceFunding(channel.id, channel.txid, channel.vout)),
    )


def _on_funding_failed(state: Tenant, id_: ChannelId, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """Our wallet's failing, so no other candidate would do better: the leases end with the reason."""
    channel = state.channels.get(id_)
    if channel is None or channel.state is not ChannelState.OPENING:
        return state, ()
    state = _put_channel(state, channels.move(channel, ChannelState.ABANDONED, reason))
    return _for_each(state, _waiting_for(state, channel.peer), lambda s, x: _end(s, x, reason, now))


def _on_channel(state: Tenant, id_: ChannelId, change: _Change, now: Instant) -> tuple[Tenant, Effects]:
    channel = state.channels.get(id_)
    if channel is None:
        return state, ()
    changed = change(channel)
    if changed == channel:
        return state, ()
    state = _put_channel(state, changed)
    if changed.state is ChannelState.OPEN and channel.state is not ChannelState.OPEN:
        return _for_each(state, _waiting_for(state, channel.peer), lambda s, x: _ask_to_open(s, x, now))
    return state, ()


def _settled(channel: Channel, txid: str, depth: int) -> Channel:
    """Whoever closed it, it is closed: on the way there it is closing, whatever we had thought."""
    if channel.is_live and depth >= 1:
        channel = channels.move(channel, ChannelState.CLOSING)
    return channels.settle(channel, txid, depth)


def _on_channel_notice(
    state: Tenant, peer: NodeKey, notice: say.ChannelNotice, now: Instant
) -> tuple[Tenant, Effects]:
    """Our own view of the chain decides on our money; the notice only wakes the leases that wait for it."""
    channel = _own_channel(state, peer, notice.channel)
    if notice.state is ChannelState.CLOSING and channel.is_live:
        return _put_channel(state, channels.move(channel, ChannelState.CLOSING, notice.reason)), ()
    if notice.reason is not None and notice.reason != channel.reason:
        state = _put_channel(state, replace(channel, reason=notice.reason))
    if notice.state is ChannelState.OPEN and channel.is_live:
        return _for_each(state, _waiting_for(state, peer), lambda s, x: _ask_to_open(s, x, now))
    return state, ()


def _on_close(state: Tenant, id_: ChannelId) -> tuple[Tenant, Effects]:
    channel = state.channels.get(id_)
    if channel is None or channel.is_over:
        return state, ()
    if channel.state is ChannelState.OPENING:
        return _put_channel(state, channels.move(channel, ChannelState.ABANDONED)), ()
    return state, (want.Send(channel.peer, say.CloseChannel(id_)),)


def _on_refund_built(state: Tenant, id_: ChannelId, tx: channels.SpendingTx) -> tuple[Tenant, Effects]:
    channel = state.channels.get(id_)
    if channel is None or not (channel.is_live or channel.state is ChannelState.CLOSING):
        return state, ()
    refunding = channels.spend(channel, tx, ChannelState.REFUNDING)
    return _put_channel(state, refunding), (want.Broadcast(id_, tx.raw),)


# -- time --------------------------------------------------------------------------------------------
def _on_block(state: Tenant, height: int) -> tuple[Tenant, Effects]:
    state = replace(state, height=height)
    effects: list[want.AnyEffect] = []
    for channel in state.channels.values():
        unspent = not channel.settled_txid and (channel.is_live or channel.state is ChannelState.CLOSING)
        if unspent and height >= channel.terms.expiry_height:
            effects.append(want.Refund(channel.id))
        else:
            effects += _keep_going(channel)
    return state, tuple(effects)


def _keep_going(channel: Channel) -> Effects:
    """Ask again for what may have been lost: idempotent, and ended by the channel's own progress."""
    if channel.state is ChannelState.OPENING:
        return (
            (_proposal(channel),)
            if not channel.terms.provider_key
            else (want.Fund(channel.id, channel.terms),)
        )
    if channel.state is ChannelState.FUNDED:
        return _announce(channel)
    if channel.state is ChannelState.REFUNDING and channel.spending and not channel.settled_txid:
        return (want.Broadcast(channel.id, channel.spending[-1].raw),)
    return ()


def _on_tick(state: Tenant, now: Instant) -> tuple[Tenant, Effects]:
    busy = [x for x in state.leases.values() if not x.is_over]
    return _for_each(state, busy, lambda s, x: _on_lease_tick(s, x, now))


def _on_lease_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    policy, waited = state.policy, since(lease.since, now)
    match lease.state:
        case LeaseState.QUOTING if waited > policy.answer_within:
            return _next_candidate(state, lease, NO_ANSWER, now)
        case LeaseState.QUOTING:
            return _ask_again(state, lease, _ask_quote(lease), now)
        case LeaseState.OPENING if waited > policy.open_within and not _unconfirmed(state, lease):
            return _end(state, lease, NO_ANSWER, now)
        case LeaseState.OPENING:
            return _ask_again(state, lease, _open(lease), now)
        case LeaseState.FUNDING:
            return _on_funding_tick(state, lease, now)
        case LeaseState.ENDING if waited > policy.end_within:
            return _store(state, _enter(lease, LeaseState.ENDED, now, lease.reason)), ()
        case LeaseState.ENDING:
            return _ask_again(state, lease, want.Send(lease.provider, say.EndLease(lease.id)), now)
        case LeaseState.RUNNING | LeaseState.PAUSED:
            return _on_silence(state, lease, now)
        case _:
            return state, ()


def _on_funding_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """The channel came, or the provider that should accept it is silent."""
    on_credit = lease.quote is not None and lease.quote.credit_sat > 0
    if _paying_channel(state, lease.provider) is not None and (on_credit or not _unconfirmed(state, lease)):
        return _ask_to_open(state, lease, now)
    unaccepted = [
        c
        for c in state.channels.values()
        if c.peer == lease.provider and c.state is ChannelState.OPENING and not c.terms.provider_key
    ]
    if unaccepted and since(lease.since, now) > state.policy.answer_within:
        state = _put_channel(state, channels.move(unaccepted[0], ChannelState.ABANDONED, NO_ANSWER))
        return _next_candidate(state, lease, NO_ANSWER, now)
    if unaccepted:
        return _ask_again(state, lease, _proposal(unaccepted[0]), now)
    return state, ()


def _unconfirmed(state: Tenant, lease: RentedLease) -> bool:
    mine = [c for c in state.channels.values() if c.peer == lease.provider and c.is_live]
    return bool(mine) and all(c.state is ChannelState.FUNDED for c in mine)


def _ask_again(state: Tenant, lease: RentedLease, request: want.Send, now: Instant) -> tuple[Tenant, Effects]:
    if since(lease.asked_at, now) < state.policy.ask_again:
        return state, ()
    return _store(state, replace(lease, asked_at=now)), (request,)


def _on_silence(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    silent = since(max(lease.heard_at, lease.since), now)
    if silent > state.policy.silence_max:
        return _store(state, _enter(lease, LeaseState.ENDED, now, SILENT)), ()
    if silent > state.policy.silence:
        return _ask_again(state, lease, want.Send(lease.provider, say.AskLease(lease.id)), now)
    if lease.wanted is not None:
        return _ask_again(state, lease, want.Send(lease.provider, say.GrowLease(lease.id, lease.wanted)), now)
    return state, ()
