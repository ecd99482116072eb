"""What the controller remembers: deployments that our user wants up, their replicas, and who may act on them.

Counterpart: ``rented.py``, the leases that the replicas live in; a lease is the tenant's mind's, a replica the
controller's. The one rule: what is known by signs alone is not stored; after a restart nobody is condemned by old ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.saving import Saving
from dockage.domain.spread import Place
from dockage.domain.term import Term
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, Msat
from dockage.domain.update import Update

from .signs import NO_SIGNS, Signs, Verdict, judge

STORY_MAX = 32
NO_TERM = Term()
REPLICAS_MAX = 64


class Stage(enum.StrEnum):
    FITTING = "fitting"
    """Images, networks and containers are brought there."""
    READY = "standby"
    """All is there and nothing runs."""
    STARTING = "starting"
    PROVING = "proving"
    """It runs what is new, out of the rotation, until it is well."""
    CHANGING = "changing"
    """Our user's commands change it where it is; nothing new is sent to it."""
    SERVING = "serving"
    DRAINING = "draining"
    """It still answers what it has begun; nothing new is sent to it."""
    STOPPING = "stopping"
    """Its containers are being stopped; the lease stays."""


RUNS = frozenset(Stage) - {Stage.FITTING, Stage.READY}
"""Stages in which something of the deployment may be running there: in which it may write."""


class Goal(msgspec.Struct, frozen=True):
    """What our user wants of a deployment, read from its labels and its recipe."""

    replicas: int = 1
    standby: int = 0
    least: int = 1
    """Scaling stays between these two; equal ones mean that there is none. 0: it may sleep."""
    most: int = 1
    max_msat_hour: Msat | None = None
    """What all its leases together may cost at worst, network aside."""
    holds_data: bool = False
    """It has named volumes: one writer, always."""
    expendable: bool = False
    """Its data may be left behind: ``dockage.data=expendable``."""
    recipe: str = ""
    """Changes whenever what is to run changes."""
    ready: bool = False
    """Something of it runs now, so that a copy would have something to copy."""
    update: Update = Update()
    saving: Saving = Saving()
    scheduled: bool = False
    """By the clock: what is wanted now is what ``dockage.schedule`` says."""


class Replica(msgspec.Struct, frozen=True):
    lease: LeaseId
    place: Place
    msat_hour: Msat = Msat(0)
    stage: Stage = Stage.FITTING
    since: Instant = Instant(0)
    """When it entered the stage."""
    epoch: int = 0
    """Of the deployment when it was started: the newest is the one that counts."""
    fitted: str = ""
    """The recipe that is there."""
    busy: bool = False
    """Not stored: something is being done there just now, by this process."""
    again_at: Instant = Instant(0)
    """Nothing is tried there before, since the last try failed. Not stored."""
    lost_at: Instant = Instant(0)
    """Since when it counts as lost; 0 while it does not."""
    sick_at: Instant = Instant(0)
    """Since when its provider answers and it does not. Not stored."""
    bad_at: Instant = Instant(0)
    """Since when a container of it has failed or is unhealthy. Not stored."""
    answered: bool = False
    """A gateway has had an answer of it since it was started: before that it may only be slow to begin."""
    moving: Reason | None = None
    """Why it is to be replaced although it is well."""
    tries: int = 0
    """Fittings or starts that failed in a row."""
    signs: Signs = NO_SIGNS

    def __repr__(self) -> str:
        return f"<Replica {self.lease.hex()[:8]} {self.stage} epoch {self.epoch}>"

    def verdict(self, now: Instant) -> Verdict:
        return judge(self.signs, now)


class Ask(msgspec.Struct, frozen=True):
    """A lease that is being looked for."""

    ticket: int
    at: Instant
    lease: LeaseId = LeaseId(b"")
    """As soon as it is known which one it would be: then a restart finds it again."""
    budget: Msat | None = None
    to: NodeKey | None = None


class Chapter(msgspec.Struct, frozen=True):
    """What was done once, and why: the answer to ``dockage why``."""

    at: Instant
    what: str
    reason: Reason
    lease: LeaseId
    other: LeaseId = LeaseId(b"")
    """The one that took its place."""


class Rollout(msgspec.Struct, frozen=True):
    """What runs is being changed by our user's commands: in a copy (*place*), or where it was if there can be none."""

    began: Instant
    before: str
    """The recipe that served until now."""
    place: LeaseId = LeaseId(b"")
    """Where our user's commands go; empty while it is being found."""
    in_place: bool = False
    through: bool = False
    """Our user's commands are done."""
    known: bool = False
    """The controller was told the new recipe."""
    admitted: bool = False
    """The first one of the new kind serves."""
    failed: Reason | None = None
    paused: bool = False
    """Failed, and left so: ``dockage.update-failure=pause``."""


class Deployment(msgspec.Struct, frozen=True):
    name: str
    goal: Goal = Goal()
    scaled: int | None = None
    """Replicas by our user's command: it counts until the label says something else."""
    label: int = 0
    """What the label said last."""
    wanted: int = 1
    """Replicas that should serve now: by our user, or by the load."""
    epoch: int = 1
    primary: LeaseId = LeaseId(b"")
    """Where the ids and ports that our user sees lead to."""
    replicas: Mapping[LeaseId, Replica] = msgspec.field(default_factory=dict)
    asks: tuple[Ask, ...] = ()
    tickets: int = 0
    again_at: Instant = Instant(0)
    """Nothing is looked for before, since the last search failed."""
    failures: int = 0
    hindrance: Reason | None = None
    """Why it is not as it should be."""
    avoid: Mapping[NodeKey, Instant] = msgspec.field(default_factory=dict)
    """Providers that failed us just now, and until when they are not asked."""
    move_to: NodeKey | None = None
    """Where our user wants it, or a price leads it; None once it is there."""
    move_limit: Msat | None = None
    """What the new one may cost an hour, where it moves for its price."""
    moved_at: Instant = Instant(0)
    """When a price moved it last, or tried to."""
    story: tuple[Chapter, ...] = ()
    shared: bool = False
    """Somebody else may act for it, too: nothing is done without the term."""
    charge: bool = False
    """A tenant's, whose deputy we are: our own user's docker does not know it."""
    term: int = 0
    """Epoch of the term in which we acted last."""
    rollout: Rollout | None = None
    setback: Reason | None = None
    """Why the last change was not rolled out; until the next one."""

    def __repr__(self) -> str:
        return (
            f"<Deployment {self.name} {len(self.replicas)} replicas, wants {self.wanted}, epoch {self.epoch}>"
        )

    @property
    def serving(self) -> list[Replica]:
        return [x for x in self.replicas.values() if x.stage in (Stage.STARTING, Stage.SERVING)]

    @property
    def recipe(self) -> str:
        """What is set up anew: what is not yet admitted is set up nowhere else."""
        rollout = self.rollout
        return rollout.before if rollout is not None and not rollout.admitted else self.goal.recipe

    @property
    def proven(self) -> str:
        """The recipe that is known to run well: a change counts once it is rolled out whole."""
        return self.goal.recipe if self.rollout is None else self.rollout.before

    @property
    def is_changing(self) -> bool:
        """What our user's books say now is not yet what is wanted, or not any more."""
        rollout = self.rollout
        return rollout is not None and (
            not rollout.through or (rollout.failed is not None and not rollout.paused)
        )

    @property
    def standbys_wanted(self) -> int:
        """One that sleeps keeps the place where it wakes."""
        return self.goal.standby or int(self.goal.least == 0 and self.wanted == 0)

    @property
    def msat_hour(self) -> Msat:
        """What is held and what is being looked for, at worst."""
        asked = sum(x.budget or 0 for x in self.asks)
        return Msat(sum(x.msat_hour for x in self.replicas.values()) + asked)


class Patience(msgspec.Struct, frozen=True):
    """How long the controller waits for what."""

    fence: Duration = Duration(30 * SECOND)
    """From lost to ended and unpaid: what comes back before is kept as a standby."""
    drain: Duration = Duration(5 * SECOND)
    """What gets nothing new is stopped after so long,"""
    drain_max: Duration = Duration(60 * SECOND)
    """or, while gateways still wait for its answers, after so long: some connections have no end."""
    sick: Duration = Duration(30 * SECOND)
    """From not serving, though started again, to being replaced."""
    begin: Duration = Duration(5 * MINUTE)
    """The same for what has never answered a gateway since it was started."""
    find: Duration = Duration(7 * HOUR)
    """A channel's confirmations are in it."""
    again: Duration = Duration(2 * SECOND)
    """After the first failure of anything; it doubles up to a minute."""
    avoid: Duration = Duration(10 * MINUTE)


class Controller(msgspec.Struct, frozen=True):
    me: NodeKey
    patience: Patience = Patience()
    deployments: Mapping[str, Deployment] = msgspec.field(default_factory=dict)
    terms: Mapping[str, Term] = msgspec.field(default_factory=dict)
    """Of what is shared. Not stored: after a restart it is asked for again."""

    def acts(self, of: Deployment, now: Instant) -> bool:
        """Whether the term is ours."""
        return not of.shared or self.terms.get(of.name, NO_TERM).allows(now)

    def holder(self, lease: LeaseId) -> Deployment | None:
        return next((x for x in self.deployments.values() if lease in x.replicas), None)


def put(state: Controller, deployment: Deployment) -> Controller:
    return replace(state, deployments={**state.deployments, deployment.name: deployment})


def drop(state: Controller, name: str) -> Controller:
    return replace(state, deployments={k: x for k, x in state.deployments.items() if k != name})


def with_replica(deployment: Deployment, replica: Replica) -> Deployment:
    return replace(deployment, replicas={**deployment.replicas, replica.lease: replica})


def without(deployment: Deployment, lease: LeaseId) -> Deployment:
    return replace(deployment, replicas={k: x for k, x in deployment.replicas.items() if k != lease})


def told(deployment: Deployment, chapter: Chapter) -> Deployment:
    return replace(deployment, story=(*deployment.story, chapter)[-STORY_MAX:])


def durable(deployment: Deployment) -> Deployment:
    """What is stored: no signs, and nothing that is under way only while this process lives."""
    kept = {
        k: replace(x, signs=NO_SIGNS, busy=False, again_at=Instant(0), sick_at=Instant(0), bad_at=Instant(0))
        for k, x in deployment.replicas.items()
    }
    asks = tuple(x for x in deployment.asks if x.lease)
    return replace(deployment, replicas=kept, asks=asks, again_at=Instant(0), avoid={}, hindrance=None)


def restore(me: NodeKey, stored: Iterable[Deployment]) -> Controller:
    return Controller(me, deployments={x.name: x for x in stored})


def backoff(first: Duration, failures: int) -> Duration:
    return Duration(min(MINUTE, first << min(failures, 5)))
