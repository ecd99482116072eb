"""Desired against actual: what is to be placed, migrated, stopped, and what is left alone, each with its reason.

A pure reading of one deployment; ``controller_acting.py`` carries it out. The thresholds: out of the rotation after one
miss (``Verdict.serves``), replaced once it is lost (``signs.is_lost``), ended and unpaid after ``Patience.fence``.
Traffic is taken away early, and work destroyed late.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dockage.domain.identity import LeaseId
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, Msat, since

from .kept import RUNS, Deployment, Patience, Replica, Stage
from .signs import Health, Verdict, agreed, is_busy

TRIES_MAX = 3

CUT_OFF = Reason(
    "controller.cut-off",
    "more than 40 % of the providers were lost at once: more likely it is our own line; nothing is replaced before a "
    "gateway says so too",
)
HOLDS_DATA = Reason(
    "replica.holds-data",
    "its volumes are on the lost provider, which may come back: nothing is started elsewhere "
    "(dockage.data=expendable starts anew with empty volumes)",
)
NOT_FENCED = Reason(
    "replica.not-fenced", "it has one writer, and the lost one may still run: its lease ends first"
)
CEILING = Reason(
    "deployment.ceiling", "one more lease would pass what the deployment may cost (dockage.max-spend)"
)
SURPLUS = Reason("deployment.surplus", "there are more replicas than wanted")
FENCED = Reason(
    "replica.fenced", "it was lost for too long: it is ended, and nothing after its last tick is paid"
)
RETURNED = Reason("replica.returned", "it came back after another had taken its place")
LACKING = Reason("deployment.lacking", "there are fewer replicas than wanted")
DRAINED = Reason("replica.drained", "another one serves in its place")
SLEEPS = Reason("deployment.asleep", "there is no load: nothing runs until a request comes")
SCHEDULED = Reason("deployment.scheduled", "it is the hour at which dockage.schedule asks for that many")
UNSCHEDULED = Reason("deployment.unscheduled", "the hours of dockage.schedule are over")
NOT_FIT = Reason("replica.not-fit", "what should run could not be brought there, or not be started")
OUTDATED = Reason("replica.outdated", "what should run has changed")


class Migration(msgspec.Struct, frozen=True):
    """*new* starts to serve, for *old* if there is one; *moves* fences what was before it."""

    new: LeaseId
    reason: Reason
    old: LeaseId | None = None


class Plan(msgspec.Struct, frozen=True):
    place: Reason | None = None
    """Why one more lease is to be looked for; one at a time, and not too often."""
    migrate: tuple[Migration, ...] = ()
    halt: tuple[tuple[LeaseId, Reason], ...] = ()
    """Stopped, and kept as a standby."""
    drain: tuple[tuple[LeaseId, Reason], ...] = ()
    end: tuple[tuple[LeaseId, Reason], ...] = ()
    fence: tuple[tuple[LeaseId, Reason], ...] = ()
    ignore: tuple[tuple[LeaseId, Reason], ...] = ()
    """What is not as it should be, and why nothing is done about it now."""


class Facts(msgspec.Struct, frozen=True):
    """A deployment as its signs show it now."""

    verdicts: Mapping[LeaseId, Verdict]
    good: tuple[Replica, ...]
    """Serving or starting, and to stay."""
    proven: tuple[Replica, ...]
    """Of these, those that serve well, what is new for long enough."""
    weak: tuple[Replica, ...]
    """Serving, and to be replaced before they are stopped."""
    lost: tuple[Replica, ...]
    ready: tuple[Replica, ...]
    coming: tuple[Replica, ...]


def facts(of: Deployment, patience: Patience, now: Instant, cut_off: bool) -> Facts:
    verdicts = {x.lease: x.verdict(now) for x in of.replicas.values()}

    def gone(x: Replica) -> bool:
        verdict = verdicts[x.lease]
        doubted = cut_off and verdict.health is Health.DEAD and not agreed(x.signs, now)
        return verdict.is_gone and not doubted

    def leaves(x: Replica) -> bool:
        begins = bool(x.signs.gateways) and not x.answered
        limit = patience.begin if begins else patience.sick
        sick = bool(x.sick_at) and since(x.sick_at, now) >= limit and not of.goal.holds_data
        return x.moving is not None or sick or verdicts[x.lease].should_leave

    here = [x for x in of.replicas.values() if not gone(x)]
    serving = [x for x in here if x.stage in COUNTED and not _is_aside(of, x)]
    good = tuple(x for x in serving if not leaves(x))
    return Facts(
        verdicts,
        good=good,
        proven=tuple(
            x
            for x in good
            if x.stage is Stage.SERVING and verdicts[x.lease].serves and is_settled(of, x, now)
        ),
        weak=tuple(x for x in serving if leaves(x)),
        lost=tuple(x for x in of.replicas.values() if gone(x)),
        ready=tuple(x for x in here if x.stage is Stage.READY and not leaves(x)),
        coming=tuple(x for x in here if x.stage in (Stage.FITTING, Stage.STOPPING) and not leaves(x)),
    )


COUNTED = (Stage.STARTING, Stage.PROVING, Stage.CHANGING, Stage.SERVING)


def _is_aside(of: Deployment, x: Replica) -> bool:
    """The copy that our user's commands change: it counts once it is admitted, or is to go."""
    rollout = of.rollout
    if rollout is None or rollout.in_place or rollout.admitted or (rollout.failed and not rollout.paused):
        return False
    return x.lease == rollout.place


def is_settled(of: Deployment, x: Replica, now: Instant) -> bool:
    """What is new has served for a while, and its gateways, if there are any, have had an answer of it."""
    rollout = of.rollout
    if (
        rollout is None
        or rollout.failed is not None
        or x.fitted != of.goal.recipe
        or x.fitted == rollout.before
    ):
        return True
    public = any(each.signs.gateways for each in of.replicas.values())
    return since(x.since, now) >= of.goal.update.monitor and (x.answered or not public)


def outdated(of: Deployment) -> list[Replica]:
    """Serving, and not what should be."""
    return [
        x
        for x in of.replicas.values()
        if x.stage in (Stage.STARTING, Stage.PROVING, Stage.SERVING) and x.fitted != of.recipe
    ]


def plan(of: Deployment, patience: Patience, now: Instant, cut_off: bool = False) -> Plan:
    seen = facts(of, patience, now, cut_off)
    migrate, held = _migrations(of, seen)
    ends, fences = _ends(of, seen, patience, now)
    surplus = _surplus(of, seen)
    if not of.wanted:  # it wakes where our user's commands go
        surplus = sorted(surplus, key=lambda x: x.lease != of.primary)
    keeps = max(0, of.standbys_wanted - len(seen.ready) - len(seen.coming) - len(of.asks))
    halt = [(x.lease, RETURNED if x.epoch < of.epoch else SURPLUS) for x in surplus[:keeps]]
    return Plan(
        place=_place(of, seen, len(migrate), len(halt)),
        migrate=migrate,
        halt=(*halt, *_makes_room(of, seen), *_again(of, patience, now)),
        drain=(*((x.lease, SURPLUS) for x in surplus[keeps:]), *_replaced(of, seen)),
        end=(*ends, *_idle(of, seen)),
        fence=fences,
        ignore=(*held, *_let_be(seen, cut_off, now)),
    )


# -- migrate -----------------------------------------------------------------------------------------
def _migrations(
    of: Deployment, seen: Facts
) -> tuple[tuple[Migration, ...], tuple[tuple[LeaseId, Reason], ...]]:
    """Standbys that start to serve now; and what stands in the way of it."""
    lacking = of.wanted - len(seen.good)
    leaving = [x for x in (*seen.lost, *seen.weak) if x.stage in RUNS]
    if lacking <= 0 or not of.goal.ready:
        return (), ()
    fit = fit_to_start(of, seen)
    if of.goal.holds_data and (_another_may_write(of) or not fit):
        why = NOT_FENCED if of.goal.expendable else HOLDS_DATA
        return (), tuple((x.lease, why) for x in leaving)
    return tuple(
        Migration(new.lease, _why(seen, old), old.lease if old else None)
        for new, old in zip(fit[:lacking], [*leaving, *[None] * lacking], strict=False)
    ), ()


def fit_to_start(of: Deployment, seen: Facts) -> list[Replica]:
    """Best first. What must keep its data starts only where it has run before."""
    fit = [x for x in seen.ready if x.fitted and not x.busy and seen.verdicts[x.lease].serves]
    if of.goal.holds_data and not of.goal.expendable:
        fit = [x for x in fit if x.epoch]
    if of.rollout is not None and not seen.lost:
        fit = [x for x in fit if x.fitted == of.recipe]
    if of.move_to is not None and seen.weak and not seen.lost:
        fit = [x for x in fit if x.place.provider == of.move_to]
    return sorted(fit, key=lambda x: (x.fitted != of.recipe, x.tries, x.msat_hour, x.lease))


def _another_may_write(of: Deployment) -> bool:
    """A lost one counts until its lease is over: who cannot be reached may still run."""
    return any(x.stage in RUNS for x in of.replicas.values())


def _makes_room(of: Deployment, seen: Facts) -> list[tuple[LeaseId, Reason]]:
    """With one writer, what is to be replaced stops before the other one starts."""
    if not (of.goal.holds_data and fit_to_start(of, seen)):
        return []
    return [(x.lease, _why(seen, x)) for x in seen.weak if x.stage is Stage.SERVING]


def _why(seen: Facts, old: Replica | None) -> Reason:
    if old is None:
        return LACKING
    return old.moving or seen.verdicts[old.lease].reason or LACKING


def _again(of: Deployment, patience: Patience, now: Instant) -> list[tuple[LeaseId, Reason]]:
    drained = [x for x in of.replicas.values() if _has_drained(x, patience, now)]
    return [(x.lease, OUTDATED) for x in drained if _is_needed_again(of, x)]


# -- place -------------------------------------------------------------------------------------------
def _place(of: Deployment, seen: Facts, started: int, halted: int) -> Reason | None:
    """A lost one that may come back will be a standby again, so a standby is not replaced before it is ended."""
    if not of.goal.ready:
        return None
    if _may_lack(of) and not seen.lost:
        return None  # it takes what is there
    again = [x for x in of.replicas.values() if _is_needed_again(of, x)]
    spare = [*seen.ready, *seen.coming, *again]
    if of.move_to is not None and seen.weak and not there(of):
        return LACKING
    missing = max(0, of.wanted - len(seen.good) - started) + _copies(of)
    left = len(spare) + halted - started - missing
    returning = sum(1 for x in seen.lost if seen.verdicts[x.lease].health is Health.DEAD)
    if left >= 0 and (of.rollout is not None or left + returning >= of.standbys_wanted):
        return None
    keeps = of.goal.holds_data and not of.goal.expendable
    return None if keeps and left < 0 else LACKING


def _copies(of: Deployment) -> int:
    """One more, for our user's commands to change."""
    rollout = of.rollout
    return int(rollout is not None and not rollout.place and not rollout.in_place)


def there(of: Deployment) -> bool:
    """Where our user wants it moved to, something of it is already."""
    return any(x.place.provider == of.move_to for x in of.replicas.values())


def budget(of: Deployment) -> Msat | None:
    """What one more lease may cost an hour; None: whatever it does."""
    if of.goal.max_msat_hour is None:
        return None
    return Msat(of.goal.max_msat_hour - of.msat_hour)


def is_unfit(of: Deployment, x: Replica) -> bool:
    """New, or a standby that holds an older recipe. What serves is our user's own to change."""
    waits = x.stage in (Stage.FITTING, Stage.READY) and x.fitted != of.recipe
    return waits and of.goal.ready and x.tries < TRIES_MAX


# -- stop --------------------------------------------------------------------------------------------
def _surplus(of: Deployment, seen: Facts) -> list[Replica]:
    """Those beyond what is wanted: one that returned first, then the dearest. What only starts is not counted on."""
    if of.rollout is not None:
        return []  # until it is over, there may be one more
    proven = seen.proven
    extra = len(seen.good) - of.wanted
    enough = len(proven) - of.wanted
    worst = sorted(
        (x for x in seen.good if x.stage is Stage.SERVING or x.epoch < of.epoch),
        key=lambda x: (seen.verdicts[x.lease].serves, x.epoch, x.lease == of.primary, -x.msat_hour, x.lease),
    )
    return worst[: max(0, min(extra, enough + len(worst) - len(proven)))]


def _replaced(of: Deployment, seen: Facts) -> list[tuple[LeaseId, Reason]]:
    """One weak one goes for each that serves well beside it, so never fewer are there than wanted: first who does not
    serve (yet), then the dearest, last who our user's ports lead to."""
    enough = len(seen.proven) + len(seen.weak) - (of.wanted - _may_lack(of))

    def worth(x: Replica) -> tuple[bool, bool, int, LeaseId]:
        serves = x.stage is Stage.SERVING and seen.verdicts[x.lease].serves
        return serves, x.lease == of.primary, -x.msat_hour, x.lease

    worst = sorted(seen.weak, key=worth)
    going = worst[: max(0, enough)]
    return [(x.lease, x.moving or seen.verdicts[x.lease].reason or DRAINED) for x in going]


def _may_lack(of: Deployment) -> int:
    """With ``stop-first``, and with one writer, fewer serve while a batch is replaced."""
    update = of.goal.update
    if of.rollout is None or of.rollout.failed is not None or update.order == "start-first":
        return 0
    return update.parallelism or of.wanted


def _ends(
    of: Deployment, seen: Facts, patience: Patience, now: Instant
) -> tuple[tuple[tuple[LeaseId, Reason], ...], tuple[tuple[LeaseId, Reason], ...]]:
    """(leases to end, leases to fence)."""
    drained = [x for x in of.replicas.values() if _has_drained(x, patience, now)]
    ends = [(x.lease, DRAINED) for x in drained if not _is_needed_again(of, x)]
    ends += [
        (x.lease, NOT_FIT)
        for x in of.replicas.values()
        if x.tries >= TRIES_MAX and x.stage in (Stage.FITTING, Stage.READY)
    ]
    ends += [
        (x.lease, NOT_FIT) for x in of.replicas.values() if x.tries >= TRIES_MAX and x.stage is Stage.STOPPING
    ]
    ends += [
        (x.lease, seen.verdicts[x.lease].reason or NOT_FIT)
        for x in seen.lost
        if seen.verdicts[x.lease].health is Health.OVER
    ]
    patient = of.goal.holds_data and not of.goal.expendable
    fences = [
        (x.lease, FENCED)
        for x in seen.lost
        if x.lost_at and since(x.lost_at, now) >= patience.fence and not (patient and x.stage in RUNS)
    ]
    known = {lease for lease, _ in ends}
    return tuple(ends), tuple((lease, why) for lease, why in fences if lease not in known)


def _is_needed_again(of: Deployment, x: Replica) -> bool:
    """While others are still to be replaced, its lease takes what is new next."""
    rollout = of.rollout
    if rollout is None or not rollout.admitted or x.fitted == of.recipe or x.stage is not Stage.DRAINING:
        return False
    stays = [each for each in of.replicas.values() if each.stage in COUNTED and each.moving is None]
    spare = [
        each for each in of.replicas.values() if each.stage in (Stage.FITTING, Stage.READY, Stage.STOPPING)
    ]
    return bool(outdated(of)) or len(stays) + len(spare) < of.wanted + of.standbys_wanted


def _has_drained(x: Replica, patience: Patience, now: Instant) -> bool:
    limit = patience.drain_max if is_busy(x.signs, now) else patience.drain
    return x.stage is Stage.DRAINING and since(x.since, now) >= limit


def _idle(of: Deployment, seen: Facts) -> list[tuple[LeaseId, Reason]]:
    """Standbys beyond what is wanted, the dearest first; and all that are to be replaced."""
    lacking = max(0, of.wanted - len(seen.good)) + max(_copies(of), _rolls(of))
    spare = [*seen.coming, *sorted(seen.ready, key=lambda x: (x.fitted == "", -x.msat_hour, x.lease))]
    extra = max(0, len(spare) - lacking - of.standbys_wanted)
    over = of.goal.max_msat_hour is not None and of.msat_hour > of.goal.max_msat_hour
    gone = spare[: len(spare) if over and not lacking else extra]
    left = [
        (x.lease, x.moving or seen.verdicts[x.lease].reason or DRAINED)
        for x in of.replicas.values()
        if x.stage in (Stage.FITTING, Stage.READY)
        and (x.moving is not None or seen.verdicts[x.lease].should_leave)
    ]
    return [*((x.lease, CEILING if over else SURPLUS) for x in gone), *left]


def _rolls(of: Deployment) -> int:
    return int(of.rollout is not None and of.rollout.admitted and bool(outdated(of)))


# -- ignore ------------------------------------------------------------------------------------------
def _let_be(seen: Facts, cut_off: bool, now: Instant) -> list[tuple[LeaseId, Reason]]:
    lost = {x.lease for x in seen.lost}
    found = list[tuple[LeaseId, Reason]]()
    for lease, verdict in seen.verdicts.items():
        if verdict.health is Health.DEAD and lease not in lost:
            found.append((lease, CUT_OFF))
        elif verdict.health in (Health.SLOW, Health.UNSEEN, Health.UNPAID, Health.SICK, Health.APART):
            found.append((lease, verdict.reason or LACKING))
    return found
