"""The controller's mind: it keeps deployments as our user wants them, whatever becomes of providers.

Third of the minds beside ``tenant.py`` and ``provider.py``: told what happened, it answers with what it wants.
``controller_plan.py`` compares, ``controller_acting.py`` carries out. The rules: only the holder of the term acts; a
deployment with data has one writer; whatever was started elsewhere has a higher epoch than what it replaces.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from dockage.domain.identity import LeaseId
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Duration, Instant, after

from . import controller_rollout as rollouts
from . import controller_saving as saving
from . import controller_sharing as sharing
from . import controller_words as say
from .controller_acting import NOT_FOUND, Wants, act, search_failed
from .controller_plan import (
    CEILING,
    SCHEDULED,
    TRIES_MAX,
    UNSCHEDULED,
)
from .kept import (
    RUNS,
    Chapter,
    Controller,
    Deployment,
    Goal,
    Replica,
    Stage,
    backoff,
    drop,
    put,
    told,
    with_replica,
    without,
)
from .signs import Seen

AGAIN_SICK = Duration(10 * SECOND)
"""Between two starts of what does not serve: its engine may be at it as well."""
TAKEN_DOWN = Reason("lease.released", "our user took the deployment down")


def step(state: Controller, event: object, now: Instant) -> tuple[Controller, Wants]:
    """Events of the other minds change nothing here."""
    state, effects = _told(state, event, now)
    state, more = act(state, now)
    return state, (*effects, *more)


def _told(state: Controller, event: object, now: Instant) -> tuple[Controller, Wants]:
    match event:
        case say.Wanted():
            return _on_wanted(state, event, now), ()
        case say.Rewritten(deployment=name, goal=goal):
            return _edit(state, name, lambda x: rollouts.known(_wished(x, goal, now), goal.recipe, now)), ()
        case say.Unwanted(deployment=name):
            return _on_unwanted(state, name)
        case say.PassedOn(lease=lease):
            of = state.holder(lease)
            return (state if of is None else put(state, without(of, lease))), ()
        case say.ScaleAsked(deployment=name, replicas=count):
            return _edit(state, name, lambda x: _scaled(x, count)), ()
        case say.LoadSeen(deployment=name, replicas=count):
            return _edit(state, name, lambda x: replace(x, wanted=_within(x, count))), ()
        case say.CheaperSeen(deployment=name):
            return _edit(state, name, lambda x: saving.seen(x, event, now)), ()
        case say.MoveAsked(deployment=name):
            return _edit(state, name, lambda x: _moving(x, event)), ()
        case say.ChangeBegun(deployment=name):
            return _edit(state, name, lambda x: rollouts.begun(x, event.update, now)), ()
        case say.ChangeThrough(deployment=name):
            return _edit(state, name, lambda x: rollouts.through(x, now)), ()
        case say.LetGo(deployment=name):
            return drop(state, name), ()
        case say.Looked(looks=looks):
            return _on_looks(state, looks), ()
        case say.GatewaySaw(lease=lease):
            return _on_replica(state, lease, lambda x: _seen(x, event, now)), ()
        case say.LeaseEnding(lease=lease):
            return _on_replica(state, lease, lambda x: _leaving(x, event)), ()
        case say.Asked(deployment=name):
            return _edit(state, name, lambda x: _asked(x, event)), ()
        case say.Placed():
            return _on_placed(state, event, now)
        case say.PlaceFailed(deployment=name):
            return _edit(state, name, lambda x: _not_placed(x, event, state, now)), ()
        case say.Fitted(lease=lease, recipe=recipe):
            return _on_fitted(state, lease, recipe, now), ()
        case say.Started(lease=lease):
            return _on_started(state, lease, now), ()
        case say.Stopped(lease=lease):
            return _on_replica(state, lease, lambda x: _done(x, Stage.STOPPING, Stage.READY, now)), ()
        case say.Failed(lease=lease, reason=reason):
            return _on_failed(state, lease, reason, now), ()
        case say.Charged():
            return sharing.on_charged(state, event), ()
        case say.Shared(deployment=name, shared=shared):
            return _edit(state, name, lambda x: replace(x, shared=shared)), ()
        case say.TermAsked(deployment=name, epoch=epoch):
            return sharing.on_asked(state, name, epoch, now), ()
        case say.TermGranted():
            return sharing.on_granted(state, event)
        case say.TermLost(deployment=name):
            return sharing.lost(state, name), ()
        case _:
            return state, ()


# -- from our user -----------------------------------------------------------------------------------
def _on_wanted(state: Controller, event: say.Wanted, now: Instant) -> Controller:
    """The lease that our user's commands made is a replica that serves; the first one, or one made by hand anew."""
    new = Deployment(event.deployment, wanted=event.goal.replicas)
    of = _wished(state.deployments.get(event.deployment, new), event.goal, now)
    if event.lease not in of.replicas:
        made = Replica(
            event.lease, event.place, event.msat_hour, Stage.SERVING, now, of.epoch, event.goal.recipe
        )
        of = replace(with_replica(of, made), primary=event.lease)
    if event.lease == of.primary:
        of = with_replica(of, replace(of.replicas[event.lease], fitted=event.goal.recipe))
    return put(state, rollouts.known(of, event.goal.recipe, now))


def _wished(of: Deployment, goal: Goal, now: Instant) -> Deployment:
    if of.label != goal.replicas:
        of = _by_the_clock(of, goal, now)
        of = replace(of, label=goal.replicas, scaled=None, wanted=goal.replicas)
    of = replace(of, goal=_as_scaled(goal, of.scaled))
    return replace(of, wanted=_within(of, of.wanted))


def _by_the_clock(of: Deployment, goal: Goal, now: Instant) -> Deployment:
    if not of.replicas or not (goal.scheduled or of.goal.scheduled):
        return of
    why = SCHEDULED if goal.scheduled else UNSCHEDULED
    what = f"scaled from {of.wanted} to {goal.replicas}"
    return told(of, Chapter(now, what, why, of.primary))


def _on_unwanted(state: Controller, name: str) -> tuple[Controller, Wants]:
    """What our user's own commands gave back is over already; the others are ended here."""
    of = state.deployments.get(name)
    if of is None:
        return state, ()
    return drop(state, name), tuple(say.End(lease, TAKEN_DOWN) for lease in of.replicas)


def _within(of: Deployment, count: int) -> int:
    least, most = of.goal.least, of.goal.most
    if of.goal.holds_data:
        most = 1
    return max(least, min(count, most))


def _scaled(of: Deployment, count: int) -> Deployment:
    of = replace(of, scaled=count, goal=_as_scaled(of.goal, count))
    return replace(of, wanted=_within(of, count), again_at=Instant(0))


def _as_scaled(goal: Goal, count: int | None) -> Goal:
    if count is None:
        return goal
    return replace(goal, replicas=count, most=max(goal.most, count), least=min(goal.least, count))


def _moving(of: Deployment, event: say.MoveAsked) -> Deployment:
    """To a provider that our user names goes what the ports lead to; away from here go all."""
    which = [
        x for x in of.replicas.values() if x.stage in RUNS and (event.to is None or x.lease == of.primary)
    ]
    if any(x.place.provider == event.to for x in of.replicas.values() if x.stage in RUNS):
        return of
    moved = {x.lease: replace(x, moving=event.reason) for x in which}
    return replace(of, replicas={**of.replicas, **moved}, move_to=event.to, again_at=Instant(0))


# -- signs -------------------------------------------------------------------------------------------
def _on_looks(state: Controller, looks: tuple[say.Look, ...]) -> Controller:
    """Few enough to find each among the deployments; what is no replica any more is passed over."""
    seen = {look.lease: look for look in looks}
    for of in list(state.deployments.values()):
        known = {k: _looked(x, seen[k]) if k in seen else x for k, x in of.replicas.items()}
        state = put(state, replace(of, replicas=known))
    return state


def _looked(x: Replica, event: say.Look) -> Replica:
    signs = replace(
        x.signs,
        missed=0 if event.answered else x.signs.missed + 1,
        heard_at=event.heard_at,
        trouble=event.trouble,
        over=event.over,
        crashed=event.crashed,
        well=event.well,
    )
    return replace(x, signs=signs, msat_hour=event.msat_hour or x.msat_hour)


def _seen(x: Replica, event: say.GatewaySaw, now: Instant) -> Replica:
    gateways = {**x.signs.gateways, event.gateway: Seen(event.missed, now, event.busy, event.is_reached)}
    answered = x.answered or event.missed == 0
    return replace(x, signs=replace(x.signs, gateways=gateways), answered=answered)


def _leaving(x: Replica, event: say.LeaseEnding) -> Replica:
    return replace(x, signs=replace(x.signs, leaving=event.reason))


# -- what became of it -------------------------------------------------------------------------------
def _on_placed(state: Controller, event: say.Placed, now: Instant) -> tuple[Controller, Wants]:
    """A lease that nobody waits for any more, or that costs more than it may, is given back."""
    of = state.deployments.get(event.deployment)
    ask = next((x for x in of.asks if x.ticket == event.ticket), None) if of else None
    if of is None or ask is None:
        return state, (say.End(event.lease, NOT_FOUND),)
    of = replace(of, asks=tuple(x for x in of.asks if x is not ask))
    if ask.budget is not None and event.msat_hour > ask.budget:
        of = search_failed(of, ask.ticket, CEILING, state.patience.again, now)
        return put(state, of), (say.End(event.lease, CEILING),)
    made = Replica(event.lease, event.place, event.msat_hour, since=now)
    return put(state, with_replica(replace(of, hindrance=None), made)), ()


def _asked(of: Deployment, event: say.Asked) -> Deployment:
    return replace(
        of, asks=tuple(replace(x, lease=event.lease) if x.ticket == event.ticket else x for x in of.asks)
    )


def _not_placed(of: Deployment, event: say.PlaceFailed, state: Controller, now: Instant) -> Deployment:
    if all(x.ticket != event.ticket for x in of.asks):
        return of
    return search_failed(of, event.ticket, event.reason, state.patience.again, now)


def _on_fitted(state: Controller, lease: LeaseId, recipe: str, now: Instant) -> Controller:
    of = state.holder(lease)
    if of is None:
        return state
    x = replace(of.replicas[lease], fitted=recipe, busy=False, tries=0)
    if x.stage is Stage.FITTING:
        x, of = replace(x, stage=Stage.READY, since=now), replace(of, failures=0, again_at=Instant(0))
    return put(state, with_replica(of, x))


def _on_started(state: Controller, lease: LeaseId, now: Instant) -> Controller:
    of = state.holder(lease)
    if of is None:
        return state
    x = of.replicas[lease]
    if x.stage is Stage.STARTING:
        return put(state, rollouts.started(of, x, now))
    return put(state, with_replica(of, replace(x, busy=False, again_at=after(now, AGAIN_SICK))))


def _done(x: Replica, before: Stage, to: Stage, now: Instant) -> Replica:
    if x.stage is before:
        return replace(x, stage=to, since=now, tries=0, busy=False)
    return replace(x, busy=False)


def _on_failed(state: Controller, lease: LeaseId, why: Reason, now: Instant) -> Controller:
    """Tried again after a pause. What cannot be started after three tries is stopped and given back; but where data
    has one writer it stays: whether anything of it runs there is unknown."""
    of = state.holder(lease)
    if of is None:
        return state
    x = of.replicas[lease]
    pause = backoff(state.patience.again, x.tries)
    x = replace(x, busy=False, tries=x.tries + 1, again_at=after(now, pause))
    if x.stage is Stage.STARTING and x.tries >= TRIES_MAX and not of.goal.holds_data:
        x = replace(x, stage=Stage.STOPPING, since=now)
    return put(state, replace(with_replica(of, x), hindrance=why))


def _edit(state: Controller, name: str, change: Callable[[Deployment], Deployment]) -> Controller:
    of = state.deployments.get(name)
    return state if of is None else put(state, change(of))


def _on_replica(state: Controller, lease: LeaseId, change: Callable[[Replica], Replica]) -> Controller:
    of = state.holder(lease)
    return state if of is None else put(state, with_replica(of, change(of.replicas[lease])))
