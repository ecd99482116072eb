"""The tenant opens a successor before a channel runs dry or is too near to its expiry.

Counterpart: ``provider_channels.py``, which closes the old one. The one rule: nothing is opened for a provider
where nothing runs.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.channel import ChannelState
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.pricing import ceiling
from dockage.domain.reason import Reason
from dockage.domain.refill import needs_successor
from dockage.domain.units import HOUR, Duration, Instant, Msat, Sat, since

from . import effects as want
from .events import ChannelPlan
from .ledger import put
from .rented import Effects, Refill, RentedLease, Tenant, put_channel
from .tenant_channels import abandon, planned, proposal

NOT_NEEDED = Reason("channel.not-needed", "the lease that it was meant for is over")


def on_refill_tick(state: Tenant, now: Instant) -> tuple[Tenant, Effects]:
    state, effects = _drop_unneeded(state)
    for provider in sorted({x.provider for x in state.leases.values() if _is_paid(x)}):
        state, more = _refill(state, provider, now)
        effects += more
    return state, effects


def _is_paid(lease: RentedLease) -> bool:
    return lease.state in METERED and not lease.tariff.is_free


def _drop_unneeded(state: Tenant) -> tuple[Tenant, Effects]:
    """What is not funded yet need not be, once nobody waits for it."""
    effects: Effects = ()
    for channel in [c for c in state.channels.values() if c.state is ChannelState.OPENING]:
        if not any(x.state in _WANTING for x in state.leases.of(channel.peer)):
            state, more = abandon(state, channel, NOT_NEEDED)
            effects += more
    return state, effects


_WANTING = METERED | {LeaseState.FUNDING, LeaseState.OPENING}


def _refill(state: Tenant, provider: NodeKey, now: Instant) -> tuple[Tenant, Effects]:
    before = state.refills.get(provider)
    if before is not None and since(before.asked_at, now) < _pause(state, before):
        return state, ()
    if not _is_needed(state, provider):
        return state, ()
    known = state.channels.of(provider)
    size = max((c.terms.capacity for c in known if c.txid), default=Sat(0))
    setup = max((c.terms.setup_sat for c in known), default=Sat(0))
    plan: Effects = (want.PlanChannel(provider, size, setup),)
    return replace(state, refills=put(state.refills, provider, Refill(now))), plan


def _is_needed(state: Tenant, provider: NodeKey) -> bool:
    leases = [x for x in state.leases.of(provider) if _is_paid(x)]
    if not leases or not state.policy.refill:
        return False
    credit = min(x.quote.credit_sat for x in leases if x.quote is not None)
    return needs_successor(state.channels.of(provider), state.height, _rate(leases), credit)


def _pause(state: Tenant, before: Refill) -> Duration:
    """An empty wallet is not asked each second."""
    return state.policy.refill_again if before.hindrance else state.policy.answer_within


def _rate(leases: list[RentedLease]) -> Msat:
    """msat an hour: the worst case of the limits, or what was used lately if that is more (by traffic)."""
    return Msat(sum(max(ceiling(x.most, x.tariff, HOUR), x.pace) for x in leases))


def on_planned(state: Tenant, provider: NodeKey, plan: ChannelPlan) -> tuple[Tenant, Effects]:
    if plan.id in state.channels or not _is_needed(state, provider):
        return state, ()
    channel = planned(state, provider, plan)
    return put_channel(state, channel), (proposal(channel),)


def on_plan_failed(state: Tenant, provider: NodeKey, reason: Reason) -> tuple[Tenant, Effects]:
    """Remembered for the user: it is why the lease ends if the old channel runs dry."""
    before = state.refills.get(provider)
    if before is None:
        return state, ()
    return replace(state, refills=put(state.refills, provider, before._replace(hindrance=reason))), ()


def hindered_by(state: Tenant, id_: ChannelId) -> Tenant:
    """The same, where the successor was planned and then refused, or could not be funded."""
    channel = state.channels.get(id_)
    if channel is None or channel.state is not ChannelState.ABANDONED or channel.reason is None:
        return state
    return on_plan_failed(state, channel.peer, channel.reason)[0]


def is_refilling(state: Tenant, provider: NodeKey) -> bool:
    """Whether waiting for money on a new channel makes sense."""
    if any(c.state is ChannelState.OPENING for c in state.channels.of(provider)):
        return True
    refill = state.refills.get(provider)
    return state.policy.refill and (refill is None or refill.hindrance is None)
