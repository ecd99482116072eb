"""The provider leaves in good order: it says when its leases will end, and why, and keeps to it.

Counterpart: ``tenant_leases.on_ending``. The one rule: an end that we know is said at once, and again until it comes;
no lease is begun that we already know to end at once.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.lease import Ending, LeaseState
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, since
from dockage.protocol import messages as say

from . import effects as want
from .sold import Effects, Provider, SoldLease, end_lease, store

DRAINED = Reason("provider.draining", "the provider takes its machine off the market")
CLOSED = Reason("provider.hours", "the provider's selling hours are over")
GOES_ON = Reason("lease.goes-on", "the provider stays: the end that it announced is called off")


def closing(state: Provider) -> Ending | None:
    """When all that runs here ends, and why; None while that is open."""
    hours = Ending(state.closes_at, CLOSED) if state.closes_at is not None else None
    ends = [end for end in (state.drain, hours) if end is not None]
    return min(ends, key=lambda end: end.at, default=None)


def why_closed(state: Provider, now: Instant) -> Reason | None:
    """Why nothing new is sold now, if so."""
    if state.drain is not None:
        return DRAINED
    if state.closes_at is not None and since(now, state.closes_at) < state.policy.last_call:
        return CLOSED
    return None


def on_drain(state: Provider, at: Instant, reason: Reason, now: Instant) -> tuple[Provider, Effects]:
    return tell_all(replace(state, drain=Ending(at, reason, now)), now)


def on_cancelled(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    return tell_all(replace(state, drain=None), now)


def on_hours(state: Provider, closes_at: Instant | None, now: Instant) -> tuple[Provider, Effects]:
    if closes_at == state.closes_at:
        return state, ()
    return tell_all(replace(state, closes_at=closes_at), now)


def tell_all(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    """Something about the end has changed."""
    effects: list[want.AnyEffect] = []
    for lease in list(state.leases.values()):
        state, more = tell(state, lease, now)
        effects += more
    return state, tuple(effects)


def tell(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    """What *lease*'s tenant does not know yet about its end, or heard long ago."""
    end, known = closing(state), lease.ending
    if lease.is_leaving or (end is None and known is None):
        return state, ()
    if end is None:
        called_off = say.LeaseEnding(lease.id, Instant(0), now, GOES_ON)
        return store(state, replace(lease, ending=None)), (want.Send(lease.tenant, called_off),)
    if end.is_like(known) and known is not None and since(known.said_at, now) < state.policy.remind_every:
        return state, ()
    told = Ending(end.at, end.reason, now)
    word = say.LeaseEnding(lease.id, told.at, now, told.reason)
    return store(state, replace(lease, ending=told)), (want.Send(lease.tenant, word),)


def on_tick(state: Provider, now: Instant) -> tuple[Provider, Effects]:
    """Costs nothing while no end is known."""
    end = closing(state)
    if end is None:
        return state, ()
    if now < end.at:
        return tell_all(state, now)
    effects: list[want.AnyEffect] = []
    for lease in [x for x in state.leases.values() if not x.is_leaving]:
        state, more = end_lease(state, lease, end.reason, now)
        effects += more
    return state, tuple(effects)


def on_running(state: Provider, lease: SoldLease, now: Instant) -> tuple[Provider, Effects]:
    """A lease that begins with an end in sight is told of it at once."""
    return tell(state, lease, now) if lease.state is LeaseState.RUNNING else (state, ())


def remembered(drain: Ending | None, now: Instant) -> Ending | None:
    """After a restart: a drain that is over has done its work, and who starts the provider anew wants to sell."""
    return drain if drain is not None and drain.at > now else None
