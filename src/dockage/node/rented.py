"""What a tenant remembers: its leases and the channels it pays on; and the moves of one lease.

Counterpart: ``sold.py``. The one rule: a lease talks to one provider at a time, the first of its candidates;
whatever comes from another one about it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.checks import NONE, Checks
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import Ending, LeaseState, check_move
from dockage.domain.offer import ENGINE, Quote
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.reputation import BREACHES_MAX, Breach
from dockage.domain.resources import Resources
from dockage.domain.statement import NO_USE, Statement, possible
from dockage.domain.units import HOUR, MINUTE, Duration, Instant, Msat, Sat, after, since
from dockage.domain.usage import Usage
from dockage.protocol import messages as say

from . import effects as want
from .events import Candidate
from .ledger import Account
from .policy import TenantPolicy
from .table import Table

Effects = tuple[want.AnyEffect, ...]

FREE = Tariff()
BY_LOOKS = "meter."
"""Reasons that only a look can find, and only a look can heal, begin so."""
NOBODY = NodeKey(b"")
LEAVING = frozenset({LeaseState.ENDING, LeaseState.ENDED})


class RentedLease(msgspec.Struct, frozen=True):
    id: LeaseId
    deployment: str
    limits: Resources
    candidates: tuple[Candidate, ...]
    """Still to try; the first is the one being asked or renting to us."""
    state: LeaseState = LeaseState.QUOTING
    since: Instant = Instant(0)
    asked_at: Instant = Instant(0)
    heard_at: Instant = Instant(0)
    quote: Quote | None = None
    quote_signature: bytes = b""
    opened_at: Instant = Instant(0)
    """When we asked for it to be opened, for the time that can be charged to us."""
    limits_at: Instant = Instant(0)
    """Since when ``limits`` (or a growth that is not granted yet) may have been in force."""
    allowed: Usage = NO_USE
    """The most that can have been used before that."""
    left_until: Instant = Instant(0)
    """Nothing later than this is paid, once the lease ends; 0 while it does not."""
    last: Statement | None = None
    """The newest statement we agreed to."""
    last_signature: bytes = b""
    pace: Msat = Msat(0)
    """msat an hour over about the last minute."""
    wanted: Resources | None = None
    """Limits asked for and not yet granted."""
    faults: int = 0
    dispute: Reason | None = None
    """Why nothing is paid now: what is stated is not what we know."""
    disputed_at: Instant = Instant(0)
    agreed: Msat = Msat(0)
    """While there is a dispute: what was due before it, which is all that we owe."""
    warning: Reason | None = None
    """What is wrong with the lease, though not with its bill."""
    checks: Checks = NONE
    breaches: tuple[Breach, ...] = ()
    reason: Reason | None = None
    ending: Ending | None = None
    """The end that the provider announced, while the lease runs on."""
    fenced: bool = False
    """Another copy has taken over: no statement of it counts any more."""
    haunts: bool = False
    """It is over here, and its provider has not confirmed it."""
    refusals: tuple[tuple[NodeKey, Reason], ...] = ()
    """Who said no, and why: the answer to ``dockage why``."""
    service: str = ENGINE
    """One of ``offer.SERVICES``. Only an engine holds containers, and our user's own commands go nowhere else."""

    def __repr__(self) -> str:
        return f"<RentedLease {self.id.hex()[:8]} {self.state} due {self.due} msat>"

    @property
    def provider(self) -> NodeKey:
        return self.candidates[0].provider if self.candidates else NOBODY

    @property
    def peer(self) -> NodeKey:
        return self.provider

    @property
    def due(self) -> Msat:
        return self.agreed if self.dispute else self.stated

    @property
    def stated(self) -> Msat:
        """What the provider says is due."""
        return self.last.due if self.last else Msat(0)

    @property
    def tariff(self) -> Tariff:
        return self.quote.tariff if self.quote else FREE

    @property
    def announced(self) -> Ending | None:
        """When and why the provider will end it, while it runs; None while that is open."""
        return self.ending if self.ending and self.ending.at and not self.is_leaving else None

    @property
    def is_over(self) -> bool:
        return self.state is LeaseState.ENDED

    @property
    def is_leaving(self) -> bool:
        return self.state in LEAVING

    @property
    def most(self) -> Resources:
        """While a growth is being granted, either limit may already be in force."""
        return self.limits if self.wanted is None else self.limits.covering(self.wanted)

    def elapsed(self, now: Instant) -> Duration:
        """Chargeable time under the present limits."""
        end = min(now, self.left_until) if self.left_until else now
        return Duration(max(0, since(self.limits_at, end)))


class Refill(NamedTuple):
    """The newest wish for a successor channel to one provider."""

    asked_at: Instant
    hindrance: Reason | None = None
    """Why nothing came of it."""


class Tenant(msgspec.Struct, frozen=True):
    me: NodeKey
    policy: TenantPolicy = msgspec.field(default_factory=TenantPolicy)
    leases: Table[LeaseId, RentedLease] = msgspec.field(default_factory=Table)
    channels: Table[ChannelId, Channel] = msgspec.field(default_factory=Table)
    refills: Mapping[NodeKey, Refill] = msgspec.field(default_factory=dict)
    """Not stored: after a restart a successor is wished for again."""
    height: int = 0


# -- looking -----------------------------------------------------------------------------------------
def rented(state: Tenant, peer: NodeKey, lease: LeaseId) -> RentedLease:
    found = state.leases.get(lease)
    if found is None or found.provider != peer:
        raise PeerError("lease.unknown", "no such lease of ours with you")
    return found


def account(state: Tenant, provider: NodeKey) -> Account:
    """Due and paid of the pair. Our own signatures count whole: they can be shown to the chain."""
    due = sum(x.due for x in state.leases.of(provider))
    paid = sum(c.paid for c in state.channels.of(provider) if c.state is not ChannelState.ABANDONED)
    return Account(Msat(due), Sat(paid))


def paying_channels(state: Tenant, provider: NodeKey) -> list[Channel]:
    """Those to *provider* that can still pay something; open ones before others, the oldest first."""
    able = [c for c in state.channels.of(provider) if c.is_live and c.remaining > 0]
    return sorted(able, key=lambda c: c.state is not ChannelState.OPEN)


def renting_channel(state: Tenant, provider: NodeKey) -> Channel | None:
    """The same, and far enough from its end that a new lease may begin on it; an open one before others."""
    fit = [c for c in state.channels.of(provider) if c.serves_at(state.height) and c.remaining > 0]
    return min(fit, key=lambda c: c.state is not ChannelState.OPEN, default=None)


# -- moving ------------------------------------------------------------------------------------------
def store(state: Tenant, lease: RentedLease) -> Tenant:
    return replace(state, leases=state.leases.put(lease))


def put_channel(state: Tenant, channel: Channel) -> Tenant:
    return replace(state, channels=state.channels.put(channel))


def enter(lease: RentedLease, to: LeaseState, now: Instant, reason: Reason | None = None) -> RentedLease:
    until = lease.left_until or now if to is LeaseState.ENDED else lease.left_until
    return replace(
        lease, state=check_move(lease.state, to), since=now, asked_at=now, reason=reason, left_until=until
    )


def paced(lease: RentedLease, statement: Statement) -> Msat:
    """The pace with *statement* in it: each reading weighs as much of a minute as it covers."""
    if lease.last is None:
        return lease.pace
    time, used = statement.at - lease.last.at, statement.due - lease.last.due
    return Msat(lease.pace + (used * HOUR - lease.pace * time) // max(time, MINUTE))


def rolled(lease: RentedLease, now: Instant) -> RentedLease:
    """Before the limits change: what was possible under the old ones is kept, the time begins anew."""
    allowed = lease.allowed + possible(lease.most, lease.elapsed(now))
    return replace(lease, allowed=allowed, limits_at=now)


def disputed(lease: RentedLease, why: Reason, now: Instant) -> RentedLease:
    """Payment pauses: what was agreed on before stays paid, nothing is added. What a look found no statement heals."""
    if lease.dispute is not None:
        kept = lease.dispute.code.startswith(BY_LOOKS) and not why.code.startswith(BY_LOOKS)
        return lease if kept else replace(lease, dispute=why)
    return replace(lease, dispute=why, disputed_at=now, agreed=lease.stated)


def reconciled(lease: RentedLease) -> RentedLease:
    return replace(lease, dispute=None, agreed=Msat(0))


def accused(lease: RentedLease, why: Reason, now: Instant) -> RentedLease:
    """Remembered against the provider; one breach for each code."""
    if any(breach.reason.code == why.code for breach in lease.breaches):
        return lease
    return replace(lease, breaches=(*lease.breaches, Breach(why, now))[-BREACHES_MAX:])


def ask_quote(lease: RentedLease) -> want.Send:
    return want.Send(lease.provider, say.AskQuote(lease.id, lease.limits))


def ask_to_open(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """Asked once more, the first time counts: it may have begun then."""
    if lease.state is not LeaseState.OPENING:
        lease = replace(lease, limits_at=now)
    lease = replace(enter(lease, LeaseState.OPENING, now), opened_at=now)
    return store(state, lease), (open_(lease),)


def open_(lease: RentedLease) -> want.Send:
    assert lease.quote is not None
    return want.Send(lease.provider, say.OpenLease(lease.quote, lease.quote_signature))


def next_candidate(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """This provider will not do: ask the next one, or give up with everybody's reasons."""
    refusals = (*lease.refusals, (lease.provider, reason))
    rest = lease.candidates[1:]
    if not rest:
        return store(state, replace(enter(lease, LeaseState.ENDED, now, reason), refusals=refusals)), ()
    again = replace(enter(lease, LeaseState.QUOTING, now), candidates=rest, refusals=refusals, quote=None)
    return store(state, again), (ask_quote(again),)


def end(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """Whatever it is doing, it stops. Nothing was opened yet in the first states: no one need be asked."""
    if lease.is_leaving:
        return state, ()
    if lease.state in (LeaseState.QUOTING, LeaseState.FUNDING):
        return store(state, enter(lease, LeaseState.ENDED, now, reason)), ()
    until = after(now, state.policy.end_within)
    leaving = replace(enter(lease, LeaseState.ENDING, now, reason), left_until=until)
    return store(state, leaving), (want.Send(lease.provider, say.EndLease(lease.id)),)


def fence(state: Tenant, lease: RentedLease, reason: Reason, now: Instant) -> tuple[Tenant, Effects]:
    """At once, whether the provider hears of it or not; it is told again at each sign of life."""
    fenced = replace(lease, fenced=True, haunts=True)
    if lease.is_over:
        return store(state, fenced), ()
    if not lease.is_leaving:
        state, effects = end(state, fenced, reason, now)
        fenced = state.leases[lease.id]
    else:
        effects = ()
    if not fenced.is_over:
        fenced = replace(enter(fenced, LeaseState.ENDED, now, fenced.reason or reason), left_until=now)
    return store(state, fenced), effects


def ask_again(state: Tenant, lease: RentedLease, request: want.Send, now: Instant) -> tuple[Tenant, Effects]:
    if since(lease.asked_at, now) < state.policy.ask_again:
        return state, ()
    return store(state, replace(lease, asked_at=now)), (request,)


def for_each(
    state: Tenant,
    leases: Iterable[RentedLease],
    act: Callable[[Tenant, RentedLease], tuple[Tenant, Effects]],
) -> tuple[Tenant, Effects]:
    effects: list[want.AnyEffect] = []
    for lease in leases:
        state, more = act(state, lease)
        effects += more
    return state, tuple(effects)
