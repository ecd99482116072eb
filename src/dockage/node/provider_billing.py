"""The provider is paid: readings become statements, unpaid statements freeze the containers, payments thaw them.

Counterpart: ``tenant_statements.py``. The one rule: what a tenant can owe is bounded, by time (patience) and
by value (exposure), whatever it does.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.channel import Channel
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.pricing import Tariff, ceiling, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, digest
from dockage.domain.units import MIB, Duration, Instant, Msat, Sat, msat, since, whole_sat
from dockage.domain.usage import Reading, advance

from . import effects as want
from .ledger import put
from .sold import (
    Effects,
    Provider,
    SoldLease,
    account_of,
    credit_of,
    describe,
    end_lease,
    enter,
    notice,
    store,
    with_channel,
)

SAID_AGAIN_MAX = 16
"""Statements in answer to one message: a debtor must not use us as an amplifier."""
UNPAID = Reason("lease.unpaid", "payment is late; the containers are frozen until it arrives")
UNCONFIRMED = Reason(
    "channel.credit-used",
    "no more is served on the channel's funding before it confirms; the containers are frozen until then",
)
NEVER_PAID = Reason("lease.unpaid-too-long", "payment did not come within the grace time")
DISK_FULL = Reason(
    "lease.disk-full",
    "the containers hold far more than the lease's disk; they are frozen until some, or volumes, are removed",
)
STAYED_FULL = Reason("lease.disk-full-too-long", "the disk was not freed within the grace time")
DISK_SLACK = 64 * MIB
"""Bytes beyond twice the disk (layers and volumes have a limit each) before a lease is frozen: where the machine has
hard limits this is never reached, elsewhere it is what may be written between two looks."""


# -- statements --------------------------------------------------------------------------------------
def on_reading(
    state: Provider, lease: LeaseId, reading: Reading, now: Instant, *, final: bool
) -> tuple[Provider, Effects]:
    mine = state.leases.get(lease)
    if mine is None or (mine.state not in METERED and not (final and mine.state is LeaseState.ENDING)):
        return state, ()
    mine = replace(mine, meter=advance(mine.meter, reading, mine.limits, state.policy.gap_max))
    # One statement in each tick of the clock, wherever in it the reading fell: a least time between two would
    # skip ticks, for readings come at random moments. A clock that was set back is in another tick, too.
    if mine.stated_at // state.policy.tick == now // state.policy.tick and not final:
        return store(state, mine), ()
    return _bill(state, mine, now)


def _bill(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    """One tick: the new statement, and what follows if an earlier one is still unpaid."""
    account = account_of(state, lease.tenant)
    due = price(lease.meter.usage, lease.tariff)
    statement = _statement(lease, due, account.paid, now)
    account = account.after_tick(Msat(due - lease.due), now)
    state = replace(
        store(state, replace(lease, last=statement)),
        accounts=put(state.accounts, lease.tenant, account),
    )
    effects: Effects = ()
    # While all is well, each lease looks after itself: of a crowd none looks at all others each second.
    if lease.state is LeaseState.PAUSED or is_overfull(lease) or is_behind(state, lease.tenant, now):
        state, effects = freeze_or_thaw(state, lease.tenant, now)
    if lease.state is LeaseState.PAUSED and not effects:
        effects = (want.Send(lease.tenant, notice(lease, now)),)  # the first one may have been lost
    return state, (want.Send(lease.tenant, statement), *effects)


def _statement(lease: SoldLease, due: Msat, received: Sat, now: Instant) -> Statement:
    read = lease.meter.last
    assert read is not None
    return Statement(
        lease=lease.id,
        seq=lease.seq + 1,
        previous=digest(lease.last) if lease.last else GENESIS,
        at=max(now, lease.stated_at),
        usage=lease.meter.usage,
        terms=lease.terms,
        due=due,
        received_sat=received,
        memory_bytes=read.memory_bytes,
        disk_bytes=read.disk_bytes,
        containers=read.containers,
    )


def say_again(state: Provider, tenant: NodeKey) -> Effects:
    """The last statements of ended leases, while anything is owed: nothing else would ever repeat them."""
    if not account_of(state, tenant).owed_sat:
        return ()
    ended = [x.last for x in state.leases.of(tenant) if x.is_over and x.last is not None]
    return tuple(want.Send(tenant, last) for last in ended[-SAID_AGAIN_MAX:])


# -- payment -----------------------------------------------------------------------------------------
def on_payment(
    state: Provider, channel: Channel, paid: Sat, signature: bytes, now: Instant
) -> tuple[Provider, Effects]:
    """The signature was verified at the edge against the template we built ourselves.

    A message is repeated and overtaken honestly, so what does not raise the total is not counted as a lie; the
    answer shows our best, from which a tenant that lost its newest state catches up."""
    if paid == channel.paid:
        return state, ()
    if paid < channel.paid:
        return state, (want.Send(channel.peer, describe(channel)),)
    state, _ = with_channel(state, channels.pay(channel, paid, signature))
    return freeze_or_thaw(state, channel.peer, now)


def is_behind(state: Provider, tenant: NodeKey, now: Instant) -> bool:
    account = account_of(state, tenant)
    if not account.owed_sat and not account.loose:
        return False
    if account.loose and not fits_credit(state, tenant, _next_tick(state, tenant)):
        return True
    if account.is_late and since(account.late_since or now, now) >= state.policy.patience:
        return True
    return account.unpaid > account.exposure


def fits_credit(state: Provider, tenant: NodeKey, more: Msat) -> bool:
    """Whether *more* can be served before the credit on unconfirmed funding is used up. Asked one tick ahead, so
    that a double spend costs the credit and not a tick on top."""
    return account_of(state, tenant).at_risk + more <= msat(credit_of(state, tenant))


def tick_of(state: Provider, limits: Resources, tariff: Tariff) -> Msat:
    """The worst case of one tick, network aside."""
    return ceiling(limits, tariff, state.policy.tick)


def _next_tick(state: Provider, tenant: NodeKey) -> Msat:
    running = (x for x in state.leases.of(tenant) if x.state in METERED)
    return Msat(sum(tick_of(state, x.limits, x.tariff) for x in running))


def freeze_or_thaw(state: Provider, tenant: NodeKey, now: Instant) -> tuple[Provider, Effects]:
    """Payment is the pair's, so all its paid leases freeze and thaw together; a full disk is a lease's own."""
    behind = is_behind(state, tenant, now)
    why = UNCONFIRMED if account_of(state, tenant).loose else UNPAID
    running, paused = LeaseState.RUNNING, LeaseState.PAUSED  # looked up once: this is done at each reading
    effects: list[want.AnyEffect] = []
    for lease in state.leases.of(tenant):
        reason = DISK_FULL if is_overfull(lease) else why if behind and not lease.tariff.is_free else None
        if reason and lease.state is running:
            state, told = enter(state, lease, paused, now, reason)
            effects += [want.Pause(lease.id), *told]
        elif not reason and lease.state is paused:
            state, told = enter(state, lease, running, now)
            effects += [want.Thaw(lease.id), *told]
    return state, tuple(effects)


def is_overfull(lease: SoldLease) -> bool:
    read = lease.meter.last
    return read is not None and read.disk_bytes > 2 * lease.limits.disk_bytes + DISK_SLACK


# -- time --------------------------------------------------------------------------------------------
def on_account_tick(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    policy, waited = state.policy, since(lease.since, now)
    if lease.state is LeaseState.PAUSED and waited >= _held(state, lease.tenant):
        account = account_of(state, lease.tenant)
        if is_overfull(lease):
            return end_lease(state, lease, STAYED_FULL, now)
        if not account.owed_sat and not account.credited:  # confirmed since the last reading
            return freeze_or_thaw(state, lease.tenant, now)
        return end_lease(state, lease, NEVER_PAID, now)
    if not lease.is_over:
        return state, ()
    owing = account_of(state, lease.tenant).owed_sat > 0
    if owing and waited < policy.grace and lease.last is not None:
        return state, (want.Send(lease.tenant, lease.last),)
    return state, ()


def _held(state: Provider, tenant: NodeKey) -> Duration:
    """How long frozen containers are kept. Who has signed for everything, on a funding that our own node sees and
    that is only not deep enough yet, is waited for as one whose first funding confirms."""
    account = account_of(state, tenant)
    is_signed = whole_sat(account.due) <= account.paid - account.credited + account.loose
    return state.policy.fund_within if account.loose and is_signed else state.policy.grace


def retire(state: Provider, now: Instant) -> Provider:
    """Ended and paid leases leave our memory after a while; their dues stay in the account."""
    gone = {
        lease.id
        for lease in state.leases.values()
        if lease.is_over
        and since(lease.since, now) >= state.policy.remember
        and not account_of(state, lease.tenant).owed_sat
    }
    if not gone:
        return state
    return replace(state, leases=state.leases.drop(gone))


def late_before(lease: SoldLease, patience: int) -> Instant | None:
    """After a restart: a frozen lease was late already, or each restart would thaw it for one patience."""
    is_unpaid = lease.state is LeaseState.PAUSED and lease.reason != DISK_FULL
    return Instant(lease.since - patience) if is_unpaid else None
