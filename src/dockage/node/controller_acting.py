"""The controller acts: what ``controller_plan.py`` found is carried out, for every deployment whose term is ours.

Each look does what each stage needs once; a look that was lost is made up for by the next one.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import Duration, Instant, after, since

from . import controller_rollout as rollouts
from . import controller_saving as saving
from . import controller_sharing as sharing
from . import controller_words as say
from .controller_plan import (
    CEILING,
    NOT_FIT,
    SURPLUS,
    Migration,
    Plan,
    budget,
    facts,
    is_unfit,
    plan,
    there,
)
from .deputy import BY_DEPUTY
from .kept import (
    Ask,
    Chapter,
    Controller,
    Deployment,
    Replica,
    Stage,
    backoff,
    put,
    told,
    with_replica,
    without,
)
from .signs import Health, agreed

Wants = tuple[say.AnyWant, ...]

NOT_FOUND = Reason("market.nothing-fits", "no further provider was found in time")
CUT_OFF_PERCENT = 40


def act(state: Controller, now: Instant) -> tuple[Controller, Wants]:
    """Carries out the plan of every deployment."""
    effects = list[say.AnyWant]()
    blind = is_cut_off(state, now)
    for name in list(state.deployments):
        of = sharing.marked(state, state.deployments[name], now)
        of, more = _carry_out(state, of, blind, now) if state.acts(of, now) else (of, ())
        if of is not state.deployments[name]:
            state = put(state, of)
        effects += more
    return state, tuple(effects)


def is_cut_off(state: Controller, now: Instant) -> bool:
    """Over 40 % of our providers, and more than one, lost at once, and no gateway confirms it: then it is us."""
    everyone, lost = set[NodeKey](), set[NodeKey]()
    for of in state.deployments.values():
        for x in of.replicas.values():
            everyone.add(x.place.provider)
            if x.verdict(now).health is Health.DEAD and not agreed(x.signs, now):
                lost.add(x.place.provider)
    return len(lost) > 1 and 100 * len(lost) > CUT_OFF_PERCENT * len(everyone)


def _carry_out(state: Controller, of: Deployment, blind: bool, now: Instant) -> tuple[Deployment, Wants]:
    of = _marked(_timed_out(of, state, now), state, blind, now)
    before, of = of, rollouts.advance(of, facts(of, state.patience, now, blind), now)
    effects = list[say.AnyWant]()
    if of.epoch != before.epoch or of.rollout != before.rollout:
        effects.append(say.Publish(of.name))
    todo = plan(of, state.patience, now, blind)
    for work in (_migrate, _stop):
        of, more = work(of, todo, now)
        effects += more
    of, more = _end(of, state, todo, now)
    effects += more
    of, more = _turn(of, state, blind, now)
    effects += more
    of, more = _set_going(of, state, now)
    effects += more
    of, more = _find(saving.over(of), todo, state, now)
    return _explained(of, todo), (*effects, *more)


def _timed_out(of: Deployment, state: Controller, now: Instant) -> Deployment:
    """A search that nobody answers has an end; the others report theirs by themselves."""
    for ask in of.asks:
        if since(ask.at, now) > state.patience.find:
            of = search_failed(of, ask.ticket, NOT_FOUND, state.patience.again, now)
    return of


def _marked(of: Deployment, state: Controller, blind: bool, now: Instant) -> Deployment:
    """Since when each is lost, or of no use where it is."""
    seen = facts(of, state.patience, now, blind)
    lost = {x.lease for x in seen.lost}
    for x in of.replicas.values():
        sick = seen.verdicts[x.lease].is_useless and x.stage is Stage.SERVING
        marks = (_mark(x.lost_at, x.lease in lost, now), _mark(x.sick_at, sick, now))
        if marks != (x.lost_at, x.sick_at):
            of = with_replica(of, replace(x, lost_at=marks[0], sick_at=marks[1]))
    return of


def _mark(at: Instant, holds: bool, now: Instant) -> Instant:
    return (at or now) if holds else Instant(0)


def _migrate(of: Deployment, todo: Plan, now: Instant) -> tuple[Deployment, Wants]:
    """What starts in place of another one has a higher epoch: whoever still asks the old one is told so."""
    for each in todo.migrate:
        if each.old is not None:
            of = replace(of, epoch=of.epoch + 1)
        of = _staged(of, each.new, Stage.STARTING, now)
        of = with_replica(of, replace(of.replicas[each.new], epoch=of.epoch))
        of = told(of, _chapter(each, now))
    return of, (say.Publish(of.name),) if todo.migrate else ()


def _chapter(each: Migration, now: Instant) -> Chapter:
    if each.old is None:
        return Chapter(now, "started", each.reason, each.new)
    return Chapter(now, "replaced", each.reason, each.old, each.new)


def _stop(of: Deployment, todo: Plan, now: Instant) -> tuple[Deployment, Wants]:
    for lease, why in todo.halt:
        of = told(_staged(of, lease, Stage.STOPPING, now), Chapter(now, "stopped", why, lease))
    for lease, why in todo.drain:
        of = told(_staged(of, lease, Stage.DRAINING, now), Chapter(now, "drained", why, lease))
    return of, (say.Publish(of.name),) if todo.halt or todo.drain else ()


def _staged(of: Deployment, lease: LeaseId, stage: Stage, now: Instant) -> Deployment:
    x = replace(of.replicas[lease], stage=stage, since=now, busy=False, tries=0, again_at=Instant(0))
    return with_replica(of, replace(x, moving=None, answered=x.answered and stage is not Stage.STARTING))


def _end(of: Deployment, state: Controller, todo: Plan, now: Instant) -> tuple[Deployment, Wants]:
    effects = list[say.AnyWant]()
    for lease, why in todo.end:
        effects.append(say.End(lease, why))
    for lease, why in todo.fence:
        effects.append(say.Fence(lease, why))
    for lease, why in (*todo.end, *todo.fence):
        gone = of.replicas[lease]
        of = _avoided(without(of, lease), gone, state, why, now)
        if not gone.fitted and why is not SURPLUS:  # it never came to anything: not at once again
            of = search_failed(of, 0, why, state.patience.again, now)
        of = told(of, Chapter(now, "ended", why, lease))
    return of, (*effects, say.Publish(of.name)) if effects else ()


def _avoided(of: Deployment, x: Replica, state: Controller, why: Reason, now: Instant) -> Deployment:
    """Who failed us is not asked again for a while; who did what our deputy said has not."""
    if of.shared and x.signs.over is not None and x.signs.over.code == BY_DEPUTY.code:
        return of
    alive = {k: until for k, until in of.avoid.items() if until > now}
    failed = why.code == NOT_FIT.code or x.signs.over is not None or x.signs.trouble or x.lost_at
    if failed or x.moving or x.signs.leaving:
        alive[x.place.provider] = after(now, state.patience.avoid)
    return replace(of, avoid=alive)


def _set_going(of: Deployment, state: Controller, now: Instant) -> tuple[Deployment, Wants]:
    """What each stage needs done, once at a time; so a restart forgets nothing."""
    effects = list[say.AnyWant]()
    for x in of.replicas.values():
        wanted = None if x.busy or x.lost_at or now < x.again_at else _work(of, x, now)
        if wanted is not None:
            of = with_replica(of, replace(x, busy=True))
            effects.append(wanted)
    return of, tuple(effects)


def _work(of: Deployment, x: Replica, now: Instant) -> say.AnyWant | None:
    """What is only out of the gateways' reach needs no start."""
    sick = x.stage is Stage.SERVING and x.sick_at and x.verdict(now).health is Health.SICK
    if x.stage is Stage.STARTING or sick:
        return say.Start(of.name, x.lease, x.epoch)
    if x.stage is Stage.STOPPING:
        return say.Stop(of.name, x.lease)
    return say.Fit(of.name, x.lease) if is_unfit(of, x) else None


def _turn(of: Deployment, state: Controller, blind: bool, now: Instant) -> tuple[Deployment, Wants]:
    """Our user's ids and ports leave a replica after its first miss if another one serves, and come back to none."""
    if rollouts.is_held(of):
        return of, ()
    seen = facts(of, state.patience, now, blind)
    able = [x for x in seen.good if x.stage is Stage.SERVING and seen.verdicts[x.lease].serves]
    now_at = of.replicas.get(of.primary)
    if not able or (now_at in able):
        return of, ()
    best = max(
        able, key=lambda x: (seen.verdicts[x.lease].health is Health.WELL, x.epoch, -x.msat_hour, x.lease)
    )
    return replace(of, primary=best.lease), (say.Turn(of.name, best.lease), say.Publish(of.name))


def _find(of: Deployment, todo: Plan, state: Controller, now: Instant) -> tuple[Deployment, Wants]:
    if todo.place is None or of.asks or now < of.again_at:
        return of, ()
    left = saving.capped(of, budget(of))
    if left is not None and left <= 0:
        if of.move_limit is not None:  # no room for two at once
            return search_failed(of, 0, CEILING, state.patience.again, now), ()
        return replace(of, hindrance=CEILING), ()
    ask = say.FindPlace(
        of.name,
        of.tickets + 1,
        tuple(x.place for x in of.replicas.values()),
        tuple(k for k, until in of.avoid.items() if until > now),
        None if there(of) else of.move_to,
        left,
    )
    asked = Ask(ask.ticket, now, budget=ask.budget, to=ask.to)
    return replace(of, tickets=ask.ticket, asks=(*of.asks, asked)), (ask,)


def _explained(of: Deployment, todo: Plan) -> Deployment:
    """Whole again: nothing hinders it, and where it was to go it is."""
    if of.move_to is not None and any(
        x.place.provider == of.move_to and x.stage is Stage.SERVING for x in of.replicas.values()
    ):
        of = replace(of, move_to=None)
    whole = todo.place is None and not of.asks and len(of.serving) >= of.wanted
    return replace(of, hindrance=None) if whole and of.hindrance is not None else of


def search_failed(of: Deployment, ticket: int, why: Reason, pause: Duration, now: Instant) -> Deployment:
    """A move that finds no place is given up: what runs goes on where it is. Where enough others serve, it needs none:
    what was looked for is a standby."""
    wait = backoff(pause, of.failures)
    needs_place = sum(x.moving is None for x in of.serving) < of.wanted
    if needs_place and (of.move_to is not None or any(x.moving for x in of.replicas.values())):
        stay = {k: replace(x, moving=None) for k, x in of.replicas.items()}
        of = replace(of, move_to=None, move_limit=None, replicas=stay)
        of = told(of, Chapter(now, "stayed", why, of.primary))
    of = rollouts.no_copy(of, why, now)
    asks = tuple(x for x in of.asks if x.ticket != ticket)
    return replace(of, asks=asks, failures=of.failures + 1, again_at=after(now, wait), hindrance=why)
