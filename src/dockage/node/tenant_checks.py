"""The tenant looks for itself: at random moments it counts in its lease and has a little work done there.

Counterpart: ``domain/checks.py`` says what a look shows. The one rule: a finding that is not repeated changes
nothing; one that is pauses payment where too much was stated, and is remembered against the provider in any case.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.checks import PROCESSES_MAX, SURE, Checks, Look, after_look, is_uneasy, mark, starvation
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import ENGINE
from dockage.domain.reason import Reason
from dockage.domain.units import MIB, Duration, Instant, after

from . import effects as want
from .rented import BY_LOOKS, Effects, RentedLease, Tenant, accused, disputed, end, reconciled, store

TOUCH_MAX = 32 * MIB
"""Memory that a look touches: never more than a quarter of what the lease has free."""
ENDS_AT = SURE + 1
"""Looks in a row that found too much stated, after which we leave."""
SHORT = "meter.short"


def on_running_tick(state: Tenant, lease: RentedLease, now: Instant) -> tuple[Tenant, Effects]:
    """Asks for the first look, and again for one that never came."""
    policy = state.policy
    if not policy.check_every or lease.state is not LeaseState.RUNNING or now < lease.checks.awaited_until:
        return state, ()
    if lease.service != ENGINE:  # nothing of ours is there to look at
        return state, ()
    return _ask(state, lease, lease.checks, now)


def again(state: Tenant) -> Effects:
    """After a restart: the moments that were waited for are forgotten."""
    if not state.policy.check_every:
        return ()
    running = [x for x in state.leases.values() if x.state is LeaseState.RUNNING and x.checks.awaited_until]
    return tuple(want.Moment(x.id, _within(state, x.checks)) for x in running)


def _ask(state: Tenant, lease: RentedLease, checks: Checks, now: Instant) -> tuple[Tenant, Effects]:
    within = _within(state, checks)
    until = after(now, Duration(within + state.policy.check_limit))
    asked = replace(lease, checks=replace(checks, begun=None, awaited_until=until))
    return store(state, asked), (want.Moment(lease.id, within),)


def _within(state: Tenant, checks: Checks) -> Duration:
    policy = state.policy
    return policy.check_soon if is_uneasy(checks) else Duration(2 * policy.check_every)


def on_moment(state: Tenant, id_: LeaseId, now: Instant) -> tuple[Tenant, Effects]:
    """It has come: note what is stated by now, and look."""
    lease = state.leases.get(id_)
    if lease is None or lease.state is not LeaseState.RUNNING or lease.last is None:
        return state, ()
    until = after(now, state.policy.check_limit)
    begun = replace(lease.checks, begun=mark(lease.last), began_at=now, awaited_until=until)
    base = lease.checks.base
    free = max(0, lease.limits.memory_bytes - lease.last.memory_bytes)
    look = want.Look(
        id_,
        since=base.later if base else lease.last.at,
        until=lease.last.at,
        touch_bytes=min(TOUCH_MAX, free // 4),
        processes=min(PROCESSES_MAX, max(1, -(-lease.limits.cpu_milli // 1000))),
    )
    return store(state, replace(lease, checks=begun)), (look,)


def on_looked(state: Tenant, id_: LeaseId, look: Look, now: Instant) -> tuple[Tenant, Effects]:
    lease = state.leases.get(id_)
    if lease is None or lease.state is not LeaseState.RUNNING or lease.checks.begun is None:
        return state, ()
    before = lease.checks
    checks, found = after_look(before, look, lease.limits, now)
    lease = _on_short(replace(lease, checks=checks), before, now)
    if found is not None:
        state, effects = _on_overstated(state, lease, found, now)
        return (state, effects) if state.leases[id_].is_leaving else _next(state, id_, effects, now)
    if not checks.overstated and lease.dispute is not None and lease.dispute.code.startswith(BY_LOOKS):
        lease = reconciled(lease)
    return _next(store(state, lease), id_, (), now)


def _next(state: Tenant, id_: LeaseId, effects: Effects, now: Instant) -> tuple[Tenant, Effects]:
    lease = state.leases[id_]
    state, more = _ask(state, lease, lease.checks, now)
    return state, (*effects, *more)


def on_look_failed(state: Tenant, id_: LeaseId, now: Instant) -> tuple[Tenant, Effects]:
    """Nothing is known; the tick asks again once ``check_limit`` has passed."""
    lease = state.leases.get(id_)
    if lease is None:
        return state, ()
    checks = replace(lease.checks, begun=None, unchecked=lease.checks.unchecked + 1)
    return store(state, replace(lease, checks=checks)), ()


def _on_overstated(state: Tenant, lease: RentedLease, found: Reason, now: Instant) -> tuple[Tenant, Effects]:
    row = lease.checks.overstated
    if row < SURE:
        return store(state, lease), ()
    lease = disputed(lease if row > SURE else accused(lease, found, now), found, now)
    if row >= ENDS_AT:
        return end(store(state, lease), lease, found, now)
    return store(state, lease), ()


def _on_short(lease: RentedLease, before: Checks, now: Instant) -> RentedLease:
    """Less was delivered than was promised. Only what was used is paid, so this is a warning and a breach, until as
    many probes in a row are well; what to do about the lease is our user's to decide."""
    found = starvation(lease.checks, lease.limits)
    if found is None:
        well = lease.checks.bad and not any(lease.checks.bad)
        kept = tuple(x for x in lease.breaches if not (well and x.reason.code == SHORT))
        return replace(lease, warning=None, breaches=kept)
    known = starvation(before, lease.limits) is not None
    return replace(lease if known else accused(lease, found, now), warning=found)
