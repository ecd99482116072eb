"""What a provider remembers: its leases, the channels it is paid on, each tenant's account; and the moves of one.

Counterpart: ``rented.py``. The one rule: only the functions here put a lease or a channel into the state, so
that a move is in the table, the tenant is told, and the account follows from the channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from dockage.domain.channel import Channel
from dockage.domain.credit import credit
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import Ending, LeaseState, check_move
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement
from dockage.domain.units import Instant, Msat, Sat
from dockage.domain.usage import Meter
from dockage.protocol import messages as say

from . import effects as want
from .ledger import Account, put, signed
from .policy import ProviderPolicy
from .table import Table

Effects = tuple[want.AnyEffect, ...]

NO_ACCOUNT = Account()


class SoldLease(msgspec.Struct, frozen=True):
    id: LeaseId
    tenant: NodeKey
    limits: Resources
    tariff: Tariff
    opened_at: Instant
    terms: bytes = b""
    """SHA-256 of the quote it was opened with, for its statements."""
    state: LeaseState = LeaseState.OPENING
    since: Instant = Instant(0)
    """When ``state`` was entered (ENDING: when the machine was last asked to clear it)."""
    meter: Meter = msgspec.field(default_factory=Meter)
    last: Statement | None = None
    """The newest statement: the next one follows it, and an ended lease's is said again until it is paid."""
    growing: Resources | None = None
    """Limits that the machine is being brought to; charged only once it has them."""
    waits: bool = False
    """OPENING: its room is kept, and it begins when the funding that is on its way is deep enough."""
    reason: Reason | None = None
    ending: Ending | None = None
    """The end that its tenant was told of."""

    def __repr__(self) -> str:
        return f"<SoldLease {self.id.hex()[:8]} {self.state} due {self.due} msat, {self.seq} ticks>"

    @property
    def peer(self) -> NodeKey:
        return self.tenant

    @property
    def seq(self) -> int:
        return self.last.seq if self.last else 0

    @property
    def due(self) -> Msat:
        return self.last.due if self.last else Msat(0)

    @property
    def stated_at(self) -> Instant:
        return self.last.at if self.last else Instant(0)

    @property
    def is_over(self) -> bool:
        return self.state is LeaseState.ENDED

    @property
    def is_leaving(self) -> bool:
        return self.state is LeaseState.ENDING or self.state is LeaseState.ENDED


class Provider(msgspec.Struct, frozen=True):
    policy: ProviderPolicy
    leases: Table[LeaseId, SoldLease] = msgspec.field(default_factory=Table)
    """All that have not ended, and for a while those that have."""
    channels: Table[ChannelId, Channel] = msgspec.field(default_factory=Table)
    accounts: Mapping[NodeKey, Account] = msgspec.field(default_factory=dict)
    height: int = 0
    drain: Ending | None = None
    """Our user takes the machine off the market: nothing new is sold, and all leases end then. Journalled."""
    closes_at: Instant | None = None
    """When the selling hours end, or ended; None where there are none. Told by the edge, not stored."""
    unpriced: Reason | None = None
    """Why there is no price now: what runs goes on by its own tariff, nothing new is sold."""


# -- leases ------------------------------------------------------------------------------------------
def owned(state: Provider, peer: NodeKey, lease: LeaseId) -> SoldLease:
    """The same answer for a lease that is not there and one that is another tenant's."""
    found = state.leases.get(lease)
    if found is None or found.tenant != peer:
        raise PeerError("lease.unknown", "no such lease of yours here")
    return found


def store(state: Provider, lease: SoldLease) -> Provider:
    """Store the lease and what follows from it for the pair's account."""
    before = state.leases.get(lease.id)
    state = replace(state, leases=state.leases.put(lease))
    if before is not None and before.limits == lease.limits and before.is_over == lease.is_over:
        return state
    account = replace(account_of(state, lease.tenant), exposure=exposure(state, lease.tenant))
    return replace(state, accounts=put(state.accounts, lease.tenant, account))


def exposure(state: Provider, tenant: NodeKey) -> Msat:
    """How much this tenant may owe: the sum over the leases it holds."""
    held = (lease for lease in state.leases.of(tenant) if not lease.is_over)
    return Msat(sum(state.policy.exposure(lease.limits, lease.tariff) for lease in held))


def notice(lease: SoldLease, now: Instant) -> say.LeaseNotice:
    return say.LeaseNotice(lease.id, lease.state, lease.limits, now, lease.reason)


def enter(
    state: Provider, lease: SoldLease, to: LeaseState, now: Instant, reason: Reason | None = None
) -> tuple[Provider, Effects]:
    """Move a lease and tell its tenant."""
    moved = replace(lease, state=check_move(lease.state, to), since=now, reason=reason)
    return store(state, moved), (want.Send(lease.tenant, notice(moved, now)),)


def end_lease(state: Provider, lease: SoldLease, reason: Reason, now: Instant) -> tuple[Provider, Effects]:
    if lease.is_leaving:
        return state, (want.Send(lease.tenant, notice(lease, now)),)
    state, effects = enter(state, replace(lease, growing=None, waits=False), LeaseState.ENDING, now, reason)
    return state, (*effects, want.Finish(lease.id))


# -- channels ----------------------------------------------------------------------------------------
def own_channel(state: Provider, peer: NodeKey, channel: ChannelId) -> Channel:
    found = state.channels.get(channel)
    if found is None or found.peer != peer:
        raise PeerError("channel.unknown", "no such channel of yours here")
    return found


def with_channel(state: Provider, channel: Channel, *, tell: bool = False) -> tuple[Provider, Effects]:
    """Store the channel and what follows from it for the pair's account."""
    state = replace(state, channels=state.channels.put(channel))
    before = account_of(state, channel.peer)
    account = counted(state, channel.peer, before)
    if account != before:
        state = replace(state, accounts=put(state.accounts, channel.peer, account))
    return state, ((want.Send(channel.peer, describe(channel)),) if tell else ())


def counted(state: Provider, peer: NodeKey, account: Account) -> Account:
    """The account, after what is signed on the peer's channels now."""
    firm, loose = signed(state.channels.of(peer))
    credited = Sat(min(loose, credit_of(state, peer))) if loose else loose
    return account.after_payment(Sat(firm + credited), loose, credited)


def credit_of(state: Provider, peer: NodeKey) -> Sat:
    """The most that *peer* may be served on unconfirmed funding: keys cost nothing, so what all tenants have of it
    together is limited, too."""
    policy = state.policy
    others = sum(account.credited for key, account in state.accounts.items() if key != peer)
    own = credit(state.channels.of(peer), policy.credit_sat, policy.credit_max_sat)
    return Sat(max(0, min(own, policy.credit_total_sat - others)))


def describe(channel: Channel) -> say.ChannelNotice:
    return say.ChannelNotice(
        channel.id,
        channel.state,
        channel.confirmations,
        channel.paid,
        channel.signature,
        channel.settled_txid or (channel.spending[-1].txid if channel.spending else ""),
        channel.reason,
    )


def account_of(state: Provider, tenant: NodeKey) -> Account:
    return state.accounts.get(tenant, NO_ACCOUNT)
