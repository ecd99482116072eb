"""Between our user's commands and the controller: when they may change what runs, and that they have.

Counterparts: ``adapters/front/changes.py``, ``node/controller_rollout.py``. The one rule: what serves at gateways is
not touched before a copy of it can be changed instead, or nothing is sent to it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.node import controller_words as say
from dockage.node.controller_sharing import NOT_OURS
from dockage.node.kept import Deployment, Rollout, Stage
from dockage.ports.renting import Progress

from .calendar import sleeps_until
from .keeping import Keeping
from .node import Node
from .wishes import read_wishes, recipe_doors, recipe_wishes

LOOK = 0.2
WAY_MAX = 15 * 60.0
"""Seconds: after it our user's commands go on in any case. The controller gives up on a copy before."""
TERM_MAX = 10.0
"""For a deployment with a deputy: the term is asked for every four seconds."""
HEARD_SEC = 1.2
"""Until every gateway's word is one from after it was told that nothing new goes there: they come once a second."""
DRAIN_MAX = 20.0
"""For requests that are under way at what is changed where it is. Elsewhere they have a minute; but here gateways hold
what comes meanwhile, for 30 s at most, and one that takes long must not cost all of these."""


class Changing(Protocol):
    """The Docker front's side."""

    begin: Callable[[str, Mapping[str, str], Progress], Awaitable[bool | None]]
    through: Callable[[str], Awaitable[None]]
    asleep: Callable[[str, Mapping[str, str]], str]


def attend(node: Node, changes: Changing) -> None:
    updating = Updating(node.keeping)
    changes.begin, changes.through = updating.begin, updating.through
    node.keeping.each_round = updating.let_go

    def sleeps(name: str, labels: Mapping[str, str]) -> str:
        of = node.keeping.state.deployments.get(name)
        if of is not None and (of.wanted or of.rollout is not None):
            return ""  # our user's own number counts, or what is new has to be proven
        with suppress(UsageError):
            return sleeps_until(labels.get("dockage.schedule", ""), node.clock.now())
        return ""

    changes.asleep = sleeps


class Updating:
    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._borrowed: set[str] = set()
        """Kept only until the change is rolled out: no label asks for more."""

    async def begin(self, name: str, labels: Mapping[str, str], progress: Progress) -> bool | None:
        """*labels*: of what is new; they say how it is rolled out. Raises UsageError("label.*"),
        Unavailable("controller.term" | "deploy.no-way")."""
        if not await self._is_rolled_out(name):
            return None
        await self._ours(name)
        before = self._rollout(name)
        update = read_wishes({**self._keeping.said.get(name, {}), **labels}).update
        await self._keeping.tell(say.ChangeBegun(name, update))
        rollout = self._rollout(name)
        new = before is None or rollout is None or before.before != rollout.before or before.admitted
        try:
            async with asyncio.timeout(WAY_MAX):
                return new if await self._way(name, progress) else None
        except TimeoutError:
            raise Unavailable(
                "deploy.no-way", "nothing could be made ready for the change: try again"
            ) from None

    async def through(self, name: str) -> None:
        await self._keeping.tell(say.ChangeThrough(name))

    async def let_go(self) -> None:
        """What was kept for a change only, once it is over and went well."""
        for name in list(self._borrowed):
            of = self._keeping.state.deployments.get(name)
            if of is None or of.shared:  # its deputy would take our silence for our absence
                self._borrowed.discard(name)
            elif (
                of.rollout is None
                and of.setback is None
                and not of.asks
                and list(of.replicas) == [of.primary]
            ):
                self._borrowed.discard(name)
                await self._keeping.tell(say.LetGo(name))

    async def _is_rolled_out(self, name: str) -> bool:
        """What is kept, or public."""
        try:
            recipe = self._keeping.recipe(name)
            wishes, known = recipe_wishes(recipe), name in self._keeping.state.deployments
            if not known and not wishes.is_kept and not (recipe_doors(recipe) and wishes.gateways):
                return False
            await self._keeping.engage(name)
        except UsageError:
            return False
        if not known and not wishes.is_kept:
            self._borrowed.add(name)
        of = self._keeping.state.deployments[name]
        if not of.is_changing:
            if name not in self._keeping.hands.recipes:
                self._keeping.hands.recipes[name] = recipe
            self._keeping.hands.learn(name)
            await self._keeping.hands.remember_before(name)
        return True

    async def _ours(self, name: str) -> None:
        """Without the term nothing would be made ready: our user hears so before anything is begun."""
        for _ in range(int(TERM_MAX / LOOK)):
            of = self._keeping.state.deployments.get(name)
            if of is None or of.hindrance != NOT_OURS:
                return
            await asyncio.sleep(LOOK)
        raise Unavailable(NOT_OURS.code, NOT_OURS.text)

    def _rollout(self, name: str) -> Rollout | None:
        """None, too, for what our user took down meanwhile."""
        of = self._keeping.state.deployments.get(name)
        return of.rollout if of else None

    async def _way(self, name: str, progress: Progress) -> bool:
        said = ""
        while True:
            of = self._keeping.state.deployments.get(name)
            rollout = of.rollout if of else None
            if of is None or rollout is None or rollout.failed is not None:
                return False
            x = of.replicas.get(rollout.place)
            if x is not None and x.stage is Stage.PROVING:
                await self._keeping.hands.turn(name, x.lease)
                return True
            if x is not None and x.stage is Stage.CHANGING:
                await self.drained(x.lease)
                return True
            if (line := _doing(of, rollout)) != said:
                progress(said := line)
            await asyncio.sleep(LOOK)

    async def drained(self, lease: LeaseId) -> None:
        """Returns once no gateway waits for an answer of the replica there any more."""
        await asyncio.sleep(HEARD_SEC)
        for _ in range(int(DRAIN_MAX / LOOK)):
            if not self._keeping.is_busy(lease):
                return
            await asyncio.sleep(LOOK)


def _doing(of: Deployment, rollout: Rollout) -> str:
    if rollout.place in of.replicas:
        return "starting a copy to change while what serves goes on"
    return "setting up a copy to change while what serves goes on"
