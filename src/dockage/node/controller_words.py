"""Everything the controller can be told, and everything it can want: the complete list.

Counterparts: ``events.py`` and ``effects.py`` of the other two minds; ``daemon/keeping.py`` performs and tells these.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.spread import Place
from dockage.domain.units import Instant, Msat
from dockage.domain.update import Update

from .kept import Goal


class Told(msgspec.Struct, frozen=True):
    """Base of the events below."""


# -- from our user -----------------------------------------------------------------------------------
class Wanted(Told, frozen=True):
    """What is wanted of a deployment now, and the lease that our user's own commands go to."""

    deployment: str
    goal: Goal
    lease: LeaseId
    place: Place
    msat_hour: Msat = Msat(0)


class Rewritten(Told, frozen=True):
    """What is wanted of a deployment that is known, while the lease that our user's commands went to has ended."""

    deployment: str
    goal: Goal


class Unwanted(Told, frozen=True):
    deployment: str


class PassedOn(Told, frozen=True):
    """Our user's commands took a lease over, for another deployment."""

    lease: LeaseId


class ScaleAsked(Told, frozen=True):
    deployment: str
    replicas: int


class MoveAsked(Told, frozen=True):
    """Away from where it is; *to* one provider, or to the best other one."""

    deployment: str
    reason: Reason
    to: NodeKey | None = None


class ChangeBegun(Told, frozen=True):
    """Our user's commands are about to replace what runs."""

    deployment: str
    update: Update = Update()


class ChangeThrough(Told, frozen=True):
    """They are done, or were broken off."""

    deployment: str


class LetGo(Told, frozen=True):
    """It stays where it is, and is kept no longer."""

    deployment: str


# -- signs -------------------------------------------------------------------------------------------
class Look(msgspec.Struct, frozen=True):
    """At one replica from our side: the heartbeat, and what the tenant's mind knows of its lease."""

    lease: LeaseId
    answered: bool
    heard_at: Instant = Instant(0)
    """The newest statement; 0 = none yet."""
    trouble: Reason | None = None
    over: Reason | None = None
    crashed: bool = False
    well: bool | None = None
    """Whether all its containers are as they should be; None: some only begin, or nobody looked."""
    msat_hour: Msat = Msat(0)


class Looked(Told, frozen=True):
    """One round of looks."""

    looks: tuple[Look, ...]


class GatewaySaw(Told, frozen=True):
    lease: LeaseId
    gateway: NodeKey
    missed: int
    """Checks in a row that failed; 0 = it is well."""
    busy: int = 0
    """Requests and connections that are under way there."""
    is_reached: bool = True
    """False: the gateway could not speak with its provider."""


class LeaseEnding(Told, frozen=True):
    """The provider announced that it leaves."""

    lease: LeaseId
    reason: Reason


class CheaperSeen(Told, frozen=True):
    """The cheapest offer that fits, of a provider and line that are not in use."""

    deployment: str
    provider: NodeKey
    msat_hour: Msat


class LoadSeen(Told, frozen=True):
    """How many replicas the load asks for, by the scaling policy."""

    deployment: str
    replicas: int
    reason: Reason


# -- what became of what was wanted ------------------------------------------------------------------
class Asked(Told, frozen=True):
    """Which lease the search is about: it is remembered before anything is asked of anybody."""

    deployment: str
    ticket: int
    lease: LeaseId


class Placed(Told, frozen=True):
    deployment: str
    ticket: int
    lease: LeaseId
    place: Place
    msat_hour: Msat


class PlaceFailed(Told, frozen=True):
    deployment: str
    ticket: int
    reason: Reason


class Fitted(Told, frozen=True):
    lease: LeaseId
    recipe: str


class Started(Told, frozen=True):
    lease: LeaseId


class Stopped(Told, frozen=True):
    lease: LeaseId


class Failed(Told, frozen=True):
    """Fitting, starting or stopping it."""

    lease: LeaseId
    reason: Reason


# -- the term ----------------------------------------------------------------------------------------
class Shared(Told, frozen=True):
    """It has a deputy from now on, or none any more."""

    deployment: str
    shared: bool


class Charged(Told, frozen=True):
    """We are its deputy, and the term is ours."""

    deployment: str
    goal: Goal
    epoch: int
    """Of the term."""


class TermLost(Told, frozen=True):
    """It is somebody else's, or has not been renewed in time by a clock that nobody sets."""

    deployment: str


class TermGranted(Told, frozen=True):
    deployment: str
    by: NodeKey
    epoch: int
    asked_at: Instant
    witnesses: tuple[NodeKey, ...]


class TermAsked(Told, frozen=True):
    """We begin to renew or to take the term."""

    deployment: str
    epoch: int


AnyTold: TypeAlias = (
    Wanted
    | Rewritten
    | Unwanted
    | PassedOn
    | ScaleAsked
    | MoveAsked
    | ChangeBegun
    | ChangeThrough
    | LetGo
    | Looked
    | GatewaySaw
    | LeaseEnding
    | LoadSeen
    | CheaperSeen
    | Asked
    | Placed
    | PlaceFailed
    | Fitted
    | Started
    | Stopped
    | Failed
    | Shared
    | Charged
    | TermLost
    | TermGranted
    | TermAsked
)


class Want(msgspec.Struct, frozen=True):
    """Base of the effects below. Each may be performed twice."""


class FindPlace(Want, frozen=True):
    """Rent one more lease for the deployment; answered by ``Placed`` or ``PlaceFailed``."""

    deployment: str
    ticket: int
    beside: tuple[Place, ...]
    """It must stand apart from all of these."""
    avoid: tuple[NodeKey, ...] = ()
    to: NodeKey | None = None
    budget: Msat | None = None


class Fit(Want, frozen=True):
    """Bring images, networks, volumes and containers there, and start nothing."""

    deployment: str
    lease: LeaseId


class Start(Want, frozen=True):
    deployment: str
    lease: LeaseId
    epoch: int


class Stop(Want, frozen=True):
    """Stop its containers and keep the lease."""

    deployment: str
    lease: LeaseId


class Turn(Want, frozen=True):
    """The ids and ports that our user sees lead there from now on."""

    deployment: str
    lease: LeaseId


class End(Want, frozen=True):
    lease: LeaseId
    reason: Reason


class Fence(Want, frozen=True):
    """End it, and pay nothing beyond the last tick that was signed, whatever it still states."""

    lease: LeaseId
    reason: Reason


class Publish(Want, frozen=True):
    """The deployment's document, at its gateways."""

    deployment: str


class LiftFence(Want, frozen=True):
    """Grants of older epochs of the deployment are void at this lease."""

    deployment: str
    lease: LeaseId


AnyWant: TypeAlias = FindPlace | Fit | Start | Stop | Turn | End | Fence | Publish | LiftFence
