"""Everything a mind can be told: the complete list.

Names tell the origin: ``Received`` is a peer's message (decoded, bounded, its signature verified at the
edge); ``Host*`` and ``MeterRead`` come from the machine; ``Funding*`` and ``Close*`` from the chain; the
rest are our own user's wishes and the passing of time. ``now`` is an argument of every step.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dockage.domain.channel import SpendingTx
from dockage.domain.checks import Look
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.offer import ENGINE
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import View
from dockage.domain.units import Instant, Msat, Sat
from dockage.domain.usage import Reading
from dockage.protocol.messages import AnyMessage

from .controller_words import AnyTold


class Event(msgspec.Struct, frozen=True):
    """Base of the events below."""


# -- from a peer -------------------------------------------------------------------------------------
class Received(Event, frozen=True):
    peer: NodeKey
    """Proven by the connection's handshake."""
    message: AnyMessage
    signature: bytes = b""
    """The peer's, already verified, on the kinds that are signed."""
    view: View | None = None
    """With a Statement: what we counted ourselves by then."""
    our_key: bytes = b""
    """With a ProposeChannel: our public key for that channel."""
    our_setup: bytes = b""
    """With a ProposeChannel: the script for the setup output, where our policy wants one."""
    ours: bool = False
    """With a ChannelNotice: its signature is our own over its ``paid`` (then an older backup catches up)."""


# -- from the machine --------------------------------------------------------------------------------
class HostPrepared(Event, frozen=True):
    lease: LeaseId
    opening: Reading | None = None
    """Read before anybody could start anything: a lease that begins is billed from here."""
    limits: Resources | None = None
    """That were asked for; after a restart an older request may be answered, too. None: those wanted now."""


class HostFailed(Event, frozen=True):
    lease: LeaseId
    reason: Reason
    limits: Resources | None = None
    """As in ``HostPrepared``."""


class MeterRead(Event, frozen=True):
    lease: LeaseId
    reading: Reading
    final: bool = False


class HostCleared(Event, frozen=True):
    """Nothing of the lease is left on the machine."""

    lease: LeaseId


class Priced(Event, frozen=True):
    """The price policy's tariff for new leases. Whoever has a lease or a quote keeps the tariff in it."""

    tariff: Tariff


class PriceLost(Event, frozen=True):
    """The price policy has none to give."""

    reason: Reason


class DrainRequested(Event, frozen=True):
    """Our user takes the machine off the market: nothing new is sold, and what runs ends at ``at``."""

    at: Instant
    reason: Reason


class DrainCancelled(Event, frozen=True):
    """It is sold again."""


class HoursSeen(Event, frozen=True):
    """The selling hours, from the calendar: they end at ``closes_at``, or did then. None: there are none."""

    closes_at: Instant | None


class Linked(Event, frozen=True):
    """Our user's other machines, all of them; what runs keeps its tariff."""

    machines: frozenset[NodeKey]


class ChannelPlan(msgspec.Struct, frozen=True):
    """What a new channel to one candidate would be: fresh id, key and script come from outside."""

    id: ChannelId
    tenant_key: bytes
    tenant_script: bytes
    capacity: Sat
    expiry_height: int
    setup_sat: Sat = Sat(0)
    """The most that the funding may pay the provider besides."""


# -- from the chain ----------------------------------------------------------------------------------
class BlockSeen(Event, frozen=True):
    """Told at every poll of the chain, also when the height is the same: what is due is asked for again."""

    height: int


class ChannelPlanned(Event, frozen=True):
    """What a successor channel to *peer* would be."""

    peer: NodeKey
    plan: ChannelPlan


class PlanFailed(Event, frozen=True):
    peer: NodeKey
    reason: Reason


class FundingBuilt(Event, frozen=True):
    """Signed, not broadcast: it must be remembered first."""

    channel: ChannelId
    txid: str
    vout: int
    raw: bytes
    fee: Sat
    also: tuple[FundingBuilt, ...] = ()
    """The other channels that the same transaction opens: all of them or none, each with its share of the fee."""


class FundingFailed(Event, frozen=True):
    channel: ChannelId
    reason: Reason


class FundingSeen(Event, frozen=True):
    channel: ChannelId
    confirmations: int


class FundingMissed(Event, frozen=True):
    """It was there, and now not even a mempool knows it; it may still be on its way."""

    channel: ChannelId


class FundingGone(Event, frozen=True):
    """The output is wrong, or its coins were spent elsewhere."""

    channel: ChannelId
    reason: Reason


class SpendBuilt(Event, frozen=True):
    """A close (provider) or refund (tenant): signed, not broadcast."""

    channel: ChannelId
    tx: SpendingTx
    also: tuple[ChannelId, ...] = ()
    """Provider: the other channels that the same transaction closes."""


class CloseAgreed(Event, frozen=True):
    """Provider: both signed the close for *paid*; not broadcast."""

    channel: ChannelId
    paid: Sat
    tx: SpendingTx


class CoSigned(Event, frozen=True):
    """Tenant: our half of the close *txid* is made and goes out now."""

    channel: ChannelId
    txid: str


class SpendFailed(Event, frozen=True):
    channel: ChannelId
    reason: Reason


class SpendSeen(Event, frozen=True):
    """The chain shows the channel's output spent by *txid*, this deep (0: in the mempool)."""

    channel: ChannelId
    txid: str
    depth: int


# -- from inside our lease ---------------------------------------------------------------------------
class MomentCame(Event, frozen=True):
    lease: LeaseId


class Looked(Event, frozen=True):
    lease: LeaseId
    look: Look


class LookFailed(Event, frozen=True):
    lease: LeaseId
    reason: Reason


# -- from our user -----------------------------------------------------------------------------------
class Candidate(msgspec.Struct, frozen=True):
    """A provider whose offer fits, and what it listed."""

    provider: NodeKey
    msat_hour: Msat
    plan: ChannelPlan | None = None
    """None where the offer is free."""
    tariff: Tariff | None = None
    """As listed: a quote that is dearer in any line (traffic too, which ``msat_hour`` leaves out) is refused."""


class RentRequested(Event, frozen=True):
    lease: LeaseId
    deployment: str
    limits: Resources
    candidates: tuple[Candidate, ...]
    """Best first; the next one is tried when one refuses or stays silent."""
    service: str = ENGINE
    """One of ``offer.SERVICES``."""


class GrowRequested(Event, frozen=True):
    lease: LeaseId
    limits: Resources


class Renamed(Event, frozen=True):
    """Our user's idle lease serves another deployment now."""

    lease: LeaseId
    deployment: str


class EndRequested(Event, frozen=True):
    lease: LeaseId
    reason: Reason


class Fenced(Event, frozen=True):
    """Another copy has taken over: the lease is over, and nothing beyond the last statement we agreed to is paid."""

    lease: LeaseId
    reason: Reason


class CloseRequested(Event, frozen=True):
    channel: ChannelId


# -- time --------------------------------------------------------------------------------------------
class Ticked(Event, frozen=True):
    """About once a second."""


AnyEvent: TypeAlias = (
    Received
    | HostPrepared
    | HostFailed
    | MeterRead
    | HostCleared
    | Priced
    | Linked
    | PriceLost
    | DrainRequested
    | DrainCancelled
    | HoursSeen
    | BlockSeen
    | ChannelPlanned
    | PlanFailed
    | FundingBuilt
    | FundingFailed
    | FundingSeen
    | FundingMissed
    | FundingGone
    | SpendBuilt
    | CloseAgreed
    | CoSigned
    | SpendFailed
    | SpendSeen
    | MomentCame
    | Looked
    | LookFailed
    | RentRequested
    | GrowRequested
    | Renamed
    | EndRequested
    | Fenced
    | CloseRequested
    | Ticked
    | AnyTold
)
