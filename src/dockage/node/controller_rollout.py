"""Rolling out what our user has changed, one batch at a time behind a health gate, and back if it is not well.

Our user's commands change a copy beside what serves (compose stops, removes and makes containers there, as ever);
the copy enters the rotation once it is well, and then replaces the others. What has data, or can have no copy, is
changed where it is. The rule: what served before goes on until the new one has proven itself at a gateway.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.identity import LeaseId
from dockage.domain.reason import Reason
from dockage.domain.units import MINUTE, SECOND, Duration, Instant, since
from dockage.domain.update import Update

from .controller_plan import (
    CEILING,
    COUNTED,
    OUTDATED,
    TRIES_MAX,
    Facts,
    budget,
    fit_to_start,
    is_settled,
    outdated,
)
from .kept import RUNS, Chapter, Deployment, Replica, Rollout, Stage, told, with_replica
from .signs import Health

BAD_MAX = Duration(5 * SECOND)
"""How long a container may look bad before it counts: an engine may be about to start it again."""
COPY_MAX = Duration(10 * MINUTE)
"""For a copy to be found and brought there; then what runs is changed where it is."""
CHANGE_MAX = Duration(10 * MINUTE)
"""For our user's commands, once they may begin: those that were broken off never say that they are through."""

CHANGED = Reason("deploy.changed", "what should run has changed: it is replaced behind a health gate")
DONE = Reason("deploy.done", "all replicas run what is new")
NO_COPY = Reason("deploy.no-copy", "no copy could be set up in time: it is changed where it is")
UNHEALTHY = Reason("deploy.unhealthy", "what is new failed or was unhealthy")
SLOW = Reason("deploy.slow", "what is new was not healthy in time (dockage.update-within)")
UNSEEN = Reason("deploy.unseen", "what is new did not answer its gateways in time (dockage.update-within)")
NOT_STARTED = Reason("deploy.not-started", "what is new could not be started")
LOST = Reason("deploy.lost", "its provider was lost while it was changed there; bring it up again")
RETURNS = "; what ran before goes on"


# -- told by our user ----------------------------------------------------------------------------------
def begun(of: Deployment, update: Update, now: Instant) -> Deployment:
    """A second change while the first one is not yet admitted goes to the same copy."""
    old, of = of.rollout, replace(of, goal=replace(of.goal, update=update))
    if old is not None and _is_open(of, old):
        again = replace(old, through=False, known=False, began=now, failed=None, paused=False)
        return replace(of, rollout=again, setback=None)
    if not of.wanted or not of.goal.ready:
        return of
    in_place = of.goal.holds_data or of.goal.update.order == "stop-first"
    rollout = Rollout(now, of.recipe, in_place=in_place)
    return told(replace(of, rollout=rollout, setback=None), Chapter(now, "changing", CHANGED, of.primary))


def _is_open(of: Deployment, old: Rollout) -> bool:
    there = not old.place or old.place in of.replicas
    return there and not old.admitted and (old.failed is None or old.paused)


def through(of: Deployment, now: Instant) -> Deployment:
    if of.rollout is None or of.rollout.through:
        return of
    return replace(of, rollout=replace(of.rollout, through=True, began=now))


def known(of: Deployment, recipe: str, now: Instant) -> Deployment:
    """The new recipe was told; or the old one again, once all was taken back."""
    rollout = of.rollout
    if rollout is None or not rollout.through:
        return of
    if rollout.failed is not None and not rollout.paused:
        return replace(of, rollout=None) if recipe == rollout.before else of
    place = of.replicas.get(rollout.place)
    if place is not None and not rollout.admitted:  # what was seen of it until now was another one
        anew = replace(place, bad_at=Instant(0), signs=replace(place.signs, well=None), since=now)
        of = with_replica(of, anew)
    return replace(of, rollout=replace(rollout, known=True))


def started(of: Deployment, x: Replica, now: Instant) -> Deployment:
    """What is new proves itself first; so does the copy that our user's commands are to change."""
    rollout = of.rollout
    first = rollout is not None and not rollout.admitted and x.lease == rollout.place
    new = rollout is not None and rollout.admitted and x.fitted == of.recipe != rollout.before
    if rollout is None or rollout.failed is not None or not (first or new):
        return with_replica(of, _at(x, Stage.SERVING, now))
    of = with_replica(of, _at(x, Stage.PROVING, now))
    return replace(of, primary=x.lease) if first else of


def _at(x: Replica, stage: Stage, now: Instant) -> Replica:
    return replace(
        x, stage=stage, since=now, tries=0, busy=False, bad_at=Instant(0), answered=False, moving=None
    )


def is_held(of: Deployment) -> bool:
    """Our user's commands go to what is not in the rotation yet, and on going there."""
    rollout = of.rollout
    if rollout is None or rollout.admitted or (rollout.failed is not None and not rollout.paused):
        return False
    return of.primary == rollout.place and rollout.place in of.replicas


# -- each moment ---------------------------------------------------------------------------------------
def advance(of: Deployment, seen: Facts, now: Instant) -> Deployment:
    """Before anything is planned."""
    of = _marked_bad(of, now)
    if of.rollout is None:
        return _next_batch(of, seen, now)
    if of.rollout.failed is not None:
        return of if of.rollout.paused else _taken_back(of)
    for step in (_make_way, _watch, _finish):
        if of.rollout is not None and of.rollout.failed is None:
            of = step(of, seen, now)
    return of


def _marked_bad(of: Deployment, now: Instant) -> Deployment:
    for x in of.replicas.values():
        at = (x.bad_at or now) if x.signs.well is False else Instant(0)
        if at != x.bad_at:
            of = with_replica(of, replace(x, bad_at=at))
    return of


def _make_way(of: Deployment, seen: Facts, now: Instant) -> Deployment:
    """Where our user's commands may go: to a copy that runs and gets no requests, or to what is drained."""
    rollout = of.rollout
    assert rollout is not None
    if not rollout.through and since(rollout.began, now) >= CHANGE_MAX + COPY_MAX:
        return through(of, now)  # nobody will tell
    place = of.replicas.get(rollout.place)
    if rollout.place and not rollout.through and not rollout.in_place:
        if place is None or place.stage not in (Stage.STARTING, Stage.PROVING):
            return _in_place(of, NO_COPY, now)
        return of
    if rollout.place:
        return of
    if rollout.in_place:
        return _drained_for_it(of, now)
    fit = [x for x in fit_to_start(of, seen) if x.fitted == of.recipe]
    if fit:
        x = replace(_at(fit[0], Stage.STARTING, now), epoch=of.epoch)
        return replace(with_replica(of, x), rollout=replace(rollout, place=x.lease))
    left = budget(of)
    if left is not None and left <= 0 and not of.asks and not seen.coming:
        return _in_place(of, CEILING, now)
    return _in_place(of, NO_COPY, now) if since(rollout.began, now) >= COPY_MAX else of


def no_copy(of: Deployment, why: Reason, now: Instant) -> Deployment:
    """A search that failed: the change must not wait for the market."""
    rollout = of.rollout
    waits = rollout is not None and not rollout.place and not rollout.in_place
    return _in_place(of, why, now) if waits else of


def _in_place(of: Deployment, why: Reason, now: Instant) -> Deployment:
    assert of.rollout is not None
    rollout = replace(of.rollout, in_place=True, place=LeaseId(b""))
    return told(replace(of, rollout=rollout), Chapter(now, "changed in place", why, of.primary))


def _drained_for_it(of: Deployment, now: Instant) -> Deployment:
    rollout, x = of.rollout, of.replicas.get(of.primary)
    assert rollout is not None
    if x is None:
        return replace(of, rollout=None)
    of = with_replica(of, _at(x, Stage.CHANGING, now))
    return replace(of, rollout=replace(rollout, place=x.lease))


def _watch(of: Deployment, seen: Facts, now: Instant) -> Deployment:
    """The gate: who is new, and how it does."""
    rollout = of.rollout
    assert rollout is not None
    if not rollout.through:
        return of
    place = of.replicas.get(rollout.place)
    if not rollout.admitted:
        if place is None or place.lease in {x.lease for x in seen.lost}:
            return _failed(of, LOST, now)
        if not rollout.known:
            late = since(rollout.began, now) >= of.goal.update.within
            return _failed(of, SLOW, now) if late else of
        if place.stage is Stage.CHANGING:
            place = replace(_at(place, Stage.PROVING, now))
            of = with_replica(of, place)
    for x in list(of.replicas.values()):
        if x.fitted == of.goal.recipe and (x.lease == rollout.place or rollout.admitted):
            of = _judged(of, x, seen, now)
            if of.rollout is None or of.rollout.failed is not None:
                return of
    return of


def _judged(of: Deployment, x: Replica, seen: Facts, now: Instant) -> Deployment:
    within = of.goal.update.within
    if x.stage is Stage.STOPPING and x.tries >= TRIES_MAX:
        return _failed(of, NOT_STARTED, now)
    bad = bool(x.bad_at) and since(x.bad_at, now) >= BAD_MAX
    if x.stage is Stage.PROVING:
        if x.signs.well:
            return _admitted(of, x, now)
        if bad or since(x.since, now) >= within:
            return _failed(of, UNHEALTHY if bad else SLOW, now, x)
    if x.stage is Stage.SERVING and not is_settled(of, x, now):
        sick = seen.verdicts[x.lease].health is Health.SICK
        if bad or (sick and x.answered):
            return _failed(of, UNHEALTHY, now, x)
        if since(x.since, now) >= within + of.goal.update.monitor:
            return _failed(of, UNSEEN, now, x)
    return of


def _admitted(of: Deployment, x: Replica, now: Instant) -> Deployment:
    """Into the rotation. What is new counts more than what is old: whoever asks the old one is told so."""
    rollout = of.rollout
    assert rollout is not None
    of = replace(of, epoch=of.epoch + (0 if rollout.admitted else 1))
    x = replace(_at(x, Stage.SERVING, now), epoch=of.epoch)
    of = told(with_replica(of, x), Chapter(now, "admitted", CHANGED, x.lease))
    return replace(of, rollout=replace(rollout, admitted=True))


def _failed(of: Deployment, why: Reason, now: Instant, x: Replica | None = None) -> Deployment:
    rollout = of.rollout
    assert rollout is not None
    action = of.goal.update.on_failure
    if action == "continue" and x is not None:
        return _admitted(of, x, now) if x.stage is Stage.PROVING else of
    if action == "pause" and why is not LOST:
        paused = replace(rollout, failed=why, paused=True)
        return told(replace(of, rollout=paused, setback=why), Chapter(now, "paused", why, rollout.place))
    why = Reason(why.code, why.text + RETURNS)
    back = replace(rollout, failed=why, admitted=False)
    of = told(replace(of, rollout=back, setback=why), Chapter(now, "rolled back", why, rollout.place))
    place = of.replicas.get(rollout.place)
    if place is None or not rollout.in_place or place.lease != of.primary:
        return _taken_back(of)
    place = replace(_at(place, Stage.STOPPING, now), fitted="")
    return replace(with_replica(of, place), primary=LeaseId(b""))


def _taken_back(of: Deployment) -> Deployment:
    """What is new is replaced by what was before."""
    rollout = of.rollout
    assert rollout is not None
    for x in list(of.replicas.values()):
        new = x.fitted == of.goal.recipe != rollout.before or (
            x.lease == rollout.place and not rollout.in_place
        )
        if new and x.stage in (Stage.PROVING, Stage.SERVING) and x.moving is None:
            of = with_replica(of, replace(x, moving=rollout.failed))
    return of


def _finish(of: Deployment, seen: Facts, now: Instant) -> Deployment:
    rollout = of.rollout
    assert rollout is not None
    if not rollout.admitted:
        return of
    of = _next_batch(of, seen, now)
    current = [x for x in of.replicas.values() if x.stage is Stage.SERVING and x.fitted == of.recipe]
    settled = [x for x in current if is_settled(of, x, now)]
    old = [x for x in of.replicas.values() if x.stage in RUNS and x.fitted != of.recipe]
    if len(settled) == len(current) >= of.wanted and not old:
        return told(replace(of, rollout=None), Chapter(now, "updated", DONE, of.primary))
    return of


def _next_batch(of: Deployment, seen: Facts, now: Instant) -> Deployment:
    """Those that serve something older are replaced a batch at a time, each batch once the one before is settled."""
    old = outdated(of)
    if not old or not of.goal.ready:
        return of
    if of.rollout is not None:
        new = [
            x
            for x in of.replicas.values()
            if x.fitted == of.recipe and x.stage in (Stage.STARTING, Stage.PROVING, Stage.SERVING)
        ]
        if not all(x.stage is Stage.SERVING and is_settled(of, x, now) for x in new):
            return of
        newest = max((x.since for x in new), default=Instant(0))
        if since(newest, now) < of.goal.update.monitor + of.goal.update.delay:
            return of
    size = of.goal.update.parallelism or len(old)
    stays = [x for x in of.replicas.values() if x.stage in COUNTED and x.moving is None]
    going = max(sum(x.moving is not None for x in old), of.wanted - len(stays))
    waiting = sorted((x for x in old if x.moving is None), key=lambda x: (x.epoch, x.lease))
    for x in waiting[: max(0, size - going)]:
        of = with_replica(of, replace(x, moving=OUTDATED))
    return of
