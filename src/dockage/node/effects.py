"""Everything a mind can want of the world: the complete list. Each may be performed twice without harm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from dockage.domain.channel import Terms
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.offer import Quote
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement
from dockage.domain.units import Duration, Instant, Sat
from dockage.protocol.messages import AnyMessage
from dockage.protocol.messages import ProposeClose as ProposeCloseMessage


class Effect(msgspec.Struct, frozen=True):
    """Base of the effects below."""


class Send(Effect, frozen=True):
    """Best effort; the kinds that are signed get their signature at the edge."""

    to: NodeKey
    message: AnyMessage


class Pay(Effect, frozen=True):
    """Sign *paid* on the channel and send it as a Payment."""

    to: NodeKey
    channel: ChannelId
    paid: Sat


# -- the machine -------------------------------------------------------------------------------------
class Prepare(Effect, frozen=True):
    """Answered by HostPrepared or HostFailed."""

    lease: LeaseId
    limits: Resources


class Pause(Effect, frozen=True):
    lease: LeaseId


class Thaw(Effect, frozen=True):
    lease: LeaseId


class Finish(Effect, frozen=True):
    """Freeze, take the final reading (MeterRead, final), remove everything (HostCleared)."""

    lease: LeaseId


# -- the chain ---------------------------------------------------------------------------------------
class PlanChannel(Effect, frozen=True):
    """Fresh id, key and script for a channel to *to*, at least as large as *capacity* (and as the fee guard wants
    it). Answered by ChannelPlanned or PlanFailed."""

    to: NodeKey
    capacity: Sat
    setup_sat: Sat = Sat(0)
    """What the channel before it paid the provider besides; no more is paid now."""


class Fund(Effect, frozen=True):
    """Build and sign the funding transaction. Answered by FundingBuilt or FundingFailed."""

    channel: ChannelId
    terms: Terms


class ProposeClose(Effect, frozen=True):
    """Offer the tenant a close by both. Answered by its CloseAgreed or DeclineClose, by SpendFailed, or by nothing."""

    channel: ChannelId
    give_back: bool
    """What was paid may be given up where the fee would eat it."""


class CoSign(Effect, frozen=True):
    """Add our half to the provider's close (CoSigned) and send it; or decline, if its amounts are not ours."""

    to: NodeKey
    proposal: ProposeCloseMessage


class Settle(Effect, frozen=True):
    """Build and sign the close for what was paid, of all *channels* in one transaction, without their tenants.
    Answered by SpendBuilt or SpendFailed."""

    channels: tuple[ChannelId, ...]


class Refund(Effect, frozen=True):
    """Build and sign the refund of the whole output. Answered by SpendBuilt or SpendFailed."""

    channel: ChannelId


class Broadcast(Effect, frozen=True):
    channel: ChannelId
    raw: bytes


# -- looking for ourselves ---------------------------------------------------------------------------
class Moment(Effect, frozen=True):
    """Answered by MomentCame at a uniformly random moment of *within*: who knew it could behave just then."""

    lease: LeaseId
    within: Duration


class Look(Effect, frozen=True):
    """Count and work in our lease. Answered by Looked or LookFailed."""

    lease: LeaseId
    since: Instant
    """Provider's clock: containers that came or went from here to *until* spoil the comparison."""
    until: Instant
    touch_bytes: int
    """Memory to touch, at most."""
    processes: int
    """One for each core that was promised."""


# -- our user ----------------------------------------------------------------------------------------
class Accuse(Effect, frozen=True):
    """Keep the two signed things that contradict each other as a file that a third party can check."""

    provider: NodeKey
    first: Statement | Quote
    first_signature: bytes
    second: Statement
    second_signature: bytes


AnyEffect: TypeAlias = (
    Send
    | Pay
    | Prepare
    | Pause
    | Thaw
    | Finish
    | PlanChannel
    | Fund
    | ProposeClose
    | CoSign
    | Settle
    | Refund
    | Broadcast
    | Accuse
    | Moment
    | Look
)


def worth_performing(effects: Iterable[AnyEffect]) -> list[AnyEffect]:
    """Of effects whose causes are on disk together: all but payments that a later one on the same channel contains,
    for what is paid is a total."""
    effects = list(effects)
    newest = {effect.channel: effect for effect in effects if isinstance(effect, Pay)}
    return [x for x in effects if not isinstance(x, Pay) or newest[x.channel] is x]
