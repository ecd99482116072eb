"""A cheaper offer moves a replica, within what our user allows; the new copy serves before the old one stops.

Part of ``controller.py``: told of the cheapest offer that fits, it marks the dearest replica as one to be replaced. The
one rule: it never adds to trouble. Nothing moves while anything is unwell, looked for, rolled out or by the clock at
rest, and what has data stays unless our user said that its volumes may be left behind.
"""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.reason import Reason
from dockage.domain.units import Instant, Msat, since

from . import controller_words as say
from .kept import Deployment, Replica, Stage, with_replica
from .signs import Health

CHEAPER = "price.cheaper"
DEARER = Reason(
    "price.dearer", "the cheaper provider wanted more, or was not to be had: it stays where it is"
)


def seen(of: Deployment, event: say.CheaperSeen, now: Instant) -> Deployment:
    """*event* names a provider that stands apart from all that are in use."""
    saving, dearest = of.goal.saving, _dearest(of)
    if saving.percent is None or dearest is None or not _is_calm(of, now):
        return of
    limit = saving.limit(dearest.msat_hour)
    if event.msat_hour > limit or dearest.msat_hour <= 0:
        return of
    less = 100 - event.msat_hour * 100 // dearest.msat_hour
    why = Reason(CHEAPER, f"another provider is {less} % cheaper (dockage.move-saving: {saving.percent})")
    of = with_replica(of, replace(dearest, moving=why))
    return replace(of, move_to=event.provider, move_limit=limit, moved_at=now, again_at=Instant(0))


def over(of: Deployment) -> Deployment:
    """The limit is about that one move."""
    return replace(of, move_limit=None) if of.move_limit is not None and of.move_to is None else of


def capped(of: Deployment, left: Msat | None) -> Msat | None:
    """What the next lease may cost an hour."""
    limits = [x for x in (left, of.move_limit) if x is not None]
    return min(limits, default=None)


def _dearest(of: Deployment) -> Replica | None:
    return max(of.serving, key=lambda x: (x.msat_hour, x.lease), default=None)


def _is_calm(of: Deployment, now: Instant) -> bool:
    pause, serving = of.goal.saving.pause, of.serving
    busy = of.asks or of.rollout is not None or of.move_to is not None or of.hindrance is not None
    if busy or (of.goal.holds_data and not of.goal.expendable) or now < of.again_at:
        return False
    if len(serving) != of.wanted or since(of.moved_at, now) < pause:
        return False
    spare = [x for x in of.replicas.values() if x not in serving]
    return (
        all(x.stage is Stage.SERVING and since(x.since, now) >= pause for x in serving)
        and all(x.stage is Stage.READY and x.fitted == of.recipe for x in spare)
        and all(x.moving is None and x.verdict(now).health is Health.WELL for x in of.replicas.values())
    )
