"""The controller's ears: what our user wants of each deployment, and how its replicas do, told to its mind.

Counterpart: ``keeping_hands.py``, which does what the mind wants. The one rule: a recipe counts once it has stood still
for a moment; what a dying machine does to containers is not what our user wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog
from msgspec.structs import replace

from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.pricing import ceiling
from dockage.domain.reason import Reason
from dockage.domain.rest import Asked
from dockage.domain.units import HOUR, Msat
from dockage.node import controller_words as say
from dockage.node.kept import Controller, Goal, Stage
from dockage.node.signs import is_busy
from dockage.node.tenant import RentedLease, Tenant
from dockage.ports.machine import Clock
from dockage.ports.renting import Copies
from dockage.protocol.docker.recipe import Recipe

from .driver import Driver
from .keeping_hands import Hands, digest
from .keeping_load import Loads
from .wishes import goal_of, read_wishes, recipe_labels, recipe_wishes

log = structlog.get_logger("dockage.keeping")

BEAT = 0.8
"""Seconds between two looks, and that an answer may take: three misses are seen within three seconds."""
SETTLED = 1.5
"""Seconds that a recipe must stand still, and that a deployment must be gone: ``compose up`` changes one in steps."""
GONE = Reason("lease.ended", "the lease has ended")

Beat = Callable[[LeaseId], Awaitable[bool]]
Wellness = Callable[[LeaseId], Awaitable[bool | None]]
"""Whether all containers there are as they should be; None: some only begin."""


class Keeping:
    def __init__(
        self,
        driver: Driver[Controller],
        tenant: Driver[Tenant],
        hands: Hands,
        beat: Beat,
        wellness: Wellness,
        clock: Clock,
    ) -> None:
        self._driver, self._tenant, self._hands, self._beat = driver, tenant, hands, beat
        self._wellness, self._clock = wellness, clock
        self._copies: Copies | None = None
        self.attached = asyncio.Event()
        """Set once it is known what our user has."""
        self.beside: Callable[[str], Msat] = lambda _: Msat(0)
        """What a deployment costs an hour besides its replicas: its gateways."""
        self.asked: Callable[[str], Asked | None] = lambda _: None
        """What a deployment's gateways have to do; None where one is not heard."""
        self.each_round: Callable[[], Awaitable[None]] = _nothing
        self._changed: dict[str, tuple[str, float]] = {}
        """Deployment to its newest recipe, and since when it is that."""
        self.said: dict[str, Mapping[str, str]] = {}
        """What our user said beside a deployment's labels, as labels; these count where it has none."""
        self._missed: dict[str, float] = {}
        """Deployments that are no longer there, and since when."""
        self._told: dict[str, say.Wanted | say.Rewritten] = {}
        self._answered: dict[LeaseId, bool] = {}
        self._well: dict[LeaseId, bool | None] = {}
        self._announced: set[LeaseId] = set()
        self._loads = Loads()

    @property
    def state(self) -> Controller:
        return self._driver.state

    def is_busy(self, lease: LeaseId) -> bool:
        """Whether a gateway waits for answers of the replica there."""
        of = self.state.holder(lease)
        return of is not None and is_busy(of.replicas[lease].signs, self._clock.now())

    def attach(self, copies: Copies) -> None:
        """The Docker front, once it has read its books."""
        self._copies = self._hands.copies = copies
        self.attached.set()

    @property
    def hands(self) -> Hands:
        return self._hands

    @property
    def copies(self) -> Copies:
        """Once ``attached``."""
        assert self._copies is not None
        return self._copies

    def names(self) -> set[str]:
        """What our user has, and what we run as a deputy."""
        charges = {name for name, of in self.state.deployments.items() if of.charge}
        return charges | set(self.copies.deployments())

    def recipe(self, name: str) -> Recipe:
        """Of one of ``names``: what is wanted of it, also while our user's commands are changing it. Raises
        UsageError("recipe.unknown" | "recipe.incomplete")."""
        of = self.state.deployments.get(name)
        if of is not None and of.is_changing and name in self._hands.recipes:
            return self._hands.recipes[name]
        if of is None or not of.charge:
            return self.copies.recipe(name)
        if name not in self._hands.recipes:
            raise UsageError("recipe.unknown", f"what {name} is will be known in a moment")
        return self._hands.recipes[name]

    async def tell(self, event: say.AnyTold) -> None:
        """From those who know more than what is heard and looked at here."""
        await self._driver.tell(event)

    async def run(self) -> None:
        await self.attached.wait()
        await self._hands.resume()
        while True:
            begun = self._time()
            try:
                await self._listen()
                await self._look()
                for of in self.state.deployments.values():
                    self._hands.lead(of)
                await self.each_round()
            except DockageError as error:
                log.warning("keeping.failed", code=error.code, why=error.message)
            except Exception:  # a bug of ours: the leases still have to be paid
                log.exception("keeping.crashed")
            await asyncio.sleep(
                max(0.0, begun + BEAT - self._time())
            )  # an answer that does not come takes as long

    # -- our user ------------------------------------------------------------------------------------
    async def scale(self, name: str, count: int) -> None:
        """Raises UsageError("deployment.unknown" | "deployment.data")."""
        recipe = await self.engage(name)
        if count > 1 and recipe.volumes:
            raise UsageError(
                "deployment.data",
                f"{name} has named volumes, and so one writer: it cannot run more than once",
            )
        await self._driver.tell(say.ScaleAsked(name, count))

    async def move(self, name: str, to: NodeKey | None) -> None:
        """Raises UsageError("deployment.unknown" | "deployment.data")."""
        recipe = await self.engage(name)
        if recipe.volumes and recipe_wishes(recipe).data != "expendable":
            raise UsageError(
                "deployment.data",
                f"{name} has named volumes, which would stay behind: dockage.data=expendable says that they may",
            )
        await self._driver.tell(say.MoveAsked(name, Reason("move.asked", "our user wants it elsewhere"), to))

    async def engage(self, name: str) -> Recipe:
        """The controller keeps it from now on, also if no label says so. Raises UsageError("deployment.unknown")."""
        if self._copies is None or name not in self._copies.deployments():
            raise UsageError("deployment.unknown", f"there is no deployment {name}: `dockage ps` lists them")
        recipe = self._copies.recipe(name)
        if name not in self.state.deployments:
            wanted = self._wanted(name, recipe)
            if wanted is None:
                raise UsageError("deployment.unknown", f"nothing of {name} runs: start it first")
            self._hands.recipes[name] = recipe
            await self._driver.tell(wanted)
        return recipe

    async def _listen(self) -> None:
        """To what has changed in the front's books."""
        assert self._copies is not None
        await self._part()
        names = set(self._copies.deployments())
        for name in names:
            self._missed.pop(name, None)
            await self._hear(name)
        own = {name for name, of in self.state.deployments.items() if not of.charge}
        for name in own - names:
            if self._stood_still(self._missed.setdefault(name, self._time())):
                del self._missed[name]
                self._told.pop(name, None)
                self.said.pop(name, None)
                await self._driver.tell(say.Unwanted(name))

    async def _part(self) -> None:
        """From leases that another deployment has taken over: what is taken down must not end them."""
        ours = [of for of in self.state.deployments.values() if not of.charge]
        held = [(lease, of.name) for of in ours for lease in of.replicas]
        for lease, name in held:
            mine = self._tenant.state.leases.get(lease)
            if mine is not None and mine.deployment != name:
                await self._driver.tell(say.PassedOn(lease))

    async def _hear(self, name: str) -> None:
        assert self._copies is not None
        try:
            recipe = self._copies.recipe(name)
            kept = name in self.state.deployments or recipe_wishes(recipe).is_kept
        except UsageError:
            return  # not yet seen at its provider, or a label that is refused elsewhere
        if self._sleeps(name, recipe):
            recipe = self._hands.recipes[name]  # as it is when it is awake
        elif self._is_in_between(name, recipe):
            return
        elif not self._is_heard(name):
            known = self._hands.recipes.get(name)
            if known is None:
                return
            recipe = running_as(known, recipe)
        seen, since = self._changed.get(name, ("", 0.0))
        if digest(recipe) != seen:
            self._changed[name] = digest(recipe), self._time()
            return
        wanted = self._wanted(name, recipe) if kept and self._stood_still(since) else None
        if wanted is None or self._told.get(name) == wanted:
            return
        self._hands.recipes[name] = recipe
        self._hands.learn(name)
        await self._driver.tell(wanted)
        self._told[name] = wanted

    def _is_in_between(self, name: str, recipe: Recipe) -> bool:
        """Our user's commands are not done, or what they did is being taken back."""
        of = self.state.deployments.get(name)
        if of is None or of.rollout is None or not of.is_changing:
            return False
        return of.rollout.failed is None or digest(recipe) != of.rollout.before

    def _sleeps(self, name: str, recipe: Recipe) -> bool:
        """That nothing runs is our own doing, and not what our user wants."""
        of = self.state.deployments.get(name)
        if of is None or of.goal.least or any(one.runs for one in recipe.containers):
            return False
        if any(x.stage is Stage.SERVING for x in of.replicas.values()):
            return False
        if name not in self._hands.recipes:  # since a restart: what ran is not known, so all of it
            awake = tuple(replace(one, runs=True) for one in recipe.containers)
            self._hands.recipes[name] = replace(recipe, containers=awake)
            self._hands.learn(name)
        return True

    def _wanted(self, name: str, recipe: Recipe) -> say.Wanted | say.Rewritten | None:
        mine = self._lease_of(name)
        if mine is None and name not in self.state.deployments:
            return None
        wishes = read_wishes({**self.said.get(name, {}), **recipe_labels(recipe)})
        goal = self._left(name, goal_of(wishes, recipe, digest(recipe), self._clock.now()))
        if mine is None:
            return say.Rewritten(name, goal)
        return say.Wanted(name, goal, mine.id, self._hands.place(mine.provider), _price(mine))

    def _lease_of(self, name: str) -> RentedLease | None:
        """Where our user's commands go, if that runs."""
        lease = self.copies.lease_of(name)
        mine = self._tenant.state.leases.get(lease) if lease else None
        return mine if mine is not None and mine.state in METERED else None

    def _is_heard(self, name: str) -> bool:
        mine = self._lease_of(name)
        return mine is not None and self._answered.get(mine.id, True)

    def _left(self, name: str, goal: Goal) -> Goal:
        """Of what it may cost, what its gateways leave."""
        if goal.max_msat_hour is None:
            return goal
        return replace(goal, max_msat_hour=Msat(max(0, goal.max_msat_hour - self.beside(name))))

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _stood_still(self, since: float) -> bool:
        return self._time() - since >= SETTLED

    # -- signs ---------------------------------------------------------------------------------------
    async def _look(self) -> None:
        leases = [lease for of in self.state.deployments.values() for lease in of.replicas]
        beats = await asyncio.gather(*(self._answers(lease) for lease in leases))
        self._answered = dict(zip(leases, beats, strict=True))
        self._well = await self._looked_inside()
        looks = tuple(self._seen(lease, answered) for lease, answered in self._answered.items())
        await self._driver.tell(say.Looked(looks))
        for lease in leases:
            await self._announce(lease)
        await self._scale()

    async def _scale(self) -> None:
        deployments = self.state.deployments
        self._loads.forget({x for of in deployments.values() for x in of.replicas}, set(deployments))
        for name, of in deployments.items():
            recipe = self._hands.recipes.get(name)
            if recipe is None:
                continue
            wishes, now, asked = recipe_wishes(recipe), self._clock.now(), self.asked(name)
            seen = self._loads.rests(of, wishes.sleep_after, asked, now)
            if seen is None and of.scaled is None:  # else our user's own number counts
                flying = asked.in_flight if asked else None
                scaling = replace(wishes.scaling, least=of.goal.replicas, most=of.goal.most)
                seen = self._loads.look(of, scaling, self._tenant.state, flying, now)
            if seen is not None:
                await self._driver.tell(seen)

    async def wake(self, name: str) -> None:
        """Somebody waits for it at a gateway."""
        of = self.state.deployments.get(name)
        if of is not None and (seen := self._loads.wakes(of, self._clock.now())):
            await self._driver.tell(seen)

    async def _looked_inside(self) -> dict[LeaseId, bool | None]:
        """Only while something is being rolled out: else what runs is the gateways' and the engines' to judge."""
        rolled = [of for of in self.state.deployments.values() if of.rollout is not None]
        leases = [x for of in rolled for x in of.replicas if self._answered.get(x)]
        return dict(zip(leases, await asyncio.gather(*map(self._seen_inside, leases)), strict=True))

    async def _seen_inside(self, lease: LeaseId) -> bool | None:
        with suppress(DockageError, TimeoutError):
            async with asyncio.timeout(BEAT):
                return await self._wellness(lease)
        return None

    async def _answers(self, lease: LeaseId) -> bool:
        mine = self._tenant.state.leases.get(lease)
        if mine is None or mine.state not in METERED:
            return False
        with suppress(DockageError, TimeoutError):
            async with asyncio.timeout(BEAT):
                return await self._beat(lease)
        return False

    def _seen(self, lease: LeaseId, answered: bool) -> say.Look:
        mine = self._tenant.state.leases.get(lease)
        if mine is None or mine.is_leaving:
            return say.Look(lease, answered, over=(mine.reason if mine else None) or GONE)
        trouble = mine.dispute or (mine.reason if mine.state is LeaseState.PAUSED else None)
        well = self._well.get(lease)
        return say.Look(lease, answered, mine.heard_at, trouble, well=well, msat_hour=_price(mine))

    async def _announce(self, lease: LeaseId) -> None:
        mine = self._tenant.state.leases.get(lease)
        if mine is not None and mine.ending is not None and lease not in self._announced:
            self._announced.add(lease)
            await self._driver.tell(say.LeaseEnding(lease, mine.ending.reason))


def running_as(known: Recipe, recipe: Recipe) -> Recipe:
    """What there is in *recipe* is our user's own doing; but what is in *known*, too, runs as it did then."""
    ran = {one.id: one.runs for one in known.containers}
    steady = (replace(one, runs=ran.get(one.id, one.runs)) for one in recipe.containers)
    return replace(recipe, containers=tuple(steady))


async def _nothing() -> None:
    pass


def _price(lease: RentedLease) -> Msat:
    return ceiling(lease.limits, lease.tariff, HOUR)
