"""The controller's hands: they find a lease for a replica, set it up, start and stop it, and lead our user there.

Counterpart: ``keeping.py``. The one rule: which lease a search is about is remembered before anything is asked of
anybody, so that no crash leaves one behind that is paid and unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.offer import hourly_ceiling
from dockage.domain.pricing import ceiling
from dockage.domain.reason import Reason
from dockage.domain.spread import Place
from dockage.domain.units import HOUR, Msat
from dockage.node import controller_words as say
from dockage.node import events as told
from dockage.node.kept import Controller, Deployment, Stage
from dockage.node.tenant import Tenant
from dockage.ports.machine import Journal, Row
from dockage.ports.renting import Copies, Placed, Spot
from dockage.protocol.docker.recipe import Recipe, decode, encode
from dockage.protocol.streams import Fence, encode_header
from dockage.wire.frames import read_frame, write_frame

from .beside import Beside
from .driver import Driver
from .ondisk import on_disk
from .peers import Opener
from .perform import reason_of
from .steps import Steps
from .tasks import Jobs
from .wishes import recipe_labels

log = structlog.get_logger("dockage.keeping")

RECIPE = "controller.recipe"
"""Journal rows: what a deployment was before the change that is being rolled out."""
COPY = "controller.copy"
"""Journal rows: a lease, and what each container of the deployment is called there."""
FIT, START, STOP, TURN = 900.0, 15.0, 40.0, 15.0
"""Seconds for each piece of work."""
TURNS = 6
NO_RECIPE = Reason("recipe.unknown", "what runs there is not known yet")
CRASHED = Reason("replica.crashed", "a fault of dockage; its log says more")
LATE = Reason("replica.late", "it took too long")


def digest(recipe: Recipe) -> str:
    return hashlib.sha256(encode(recipe)).hexdigest()[:16]


class Hands:
    def __init__(
        self,
        beside: Beside,
        tenant: Driver[Tenant],
        journal: Journal,
        rows: Sequence[Row],
        jobs: Jobs,
        open_stream: Opener,
        steps: Steps,
    ) -> None:
        self._beside, self._tenant, self._journal, self._jobs = beside, tenant, journal, jobs
        self._open_stream, self._steps = open_stream, steps
        self.driver: Driver[Controller]
        self.copies: Copies
        self.recipes: dict[str, Recipe] = {}
        """What each deployment is, as it was last when all was well with it."""
        self.publish: Callable[[str], None] = lambda _: None
        """A deployment's document is to be written anew."""
        self._turning: set[str] = set()
        self._before: dict[str, Recipe] = {
            r.key.decode(): decode(r.value) for r in rows if r.kind == RECIPE and r.value
        }
        self._placed: dict[LeaseId, Placed] = dict(
            map(_read, (r for r in rows if r.kind == COPY and r.value))
        )

    def place(self, provider: NodeKey) -> Place:
        return self._beside.place(provider)

    def copy(self, lease: LeaseId) -> Placed:
        """What each container is called at *lease*; empty where nothing is known to be."""
        return self._placed.get(lease, {})

    def learn(self, deployment: str) -> None:
        """What our user's own commands made: where each container is now."""
        placed = self.copies.where(deployment)
        for lease in {spot.lease for spot in placed.values()}:
            self._placed[lease] = placed

    async def remember_before(self, deployment: str) -> None:
        """So that it can be brought back, also after a restart."""
        recipe = self.recipes[deployment]
        self._before[deployment] = recipe
        row = Row(RECIPE, deployment.encode(), encode(recipe))
        await on_disk(self._journal.write, [row])

    def proven(self, deployment: str) -> Recipe | None:
        """What a change that is not rolled out yet, or has failed, goes back to; else the newest."""
        of = self.driver.state.deployments.get(deployment)
        if of is None or of.rollout is None:
            return self.recipes.get(deployment)
        return self._of_digest(deployment, of.proven)

    def recipe_at(self, of: Deployment, lease: LeaseId) -> Recipe | None:
        """What runs in *lease*: another one than the newest while a change is rolled out."""
        x = of.replicas.get(lease)
        return self._of_digest(of.name, x.fitted if x else "") or self.recipes.get(of.name)

    def _of_digest(self, name: str, wanted: str) -> Recipe | None:
        known = (self.recipes.get(name), self._before.get(name))
        return next((x for x in known if x is not None and digest(x) == wanted), None)

    async def cheapest(self, of: Deployment) -> tuple[NodeKey, Msat]:
        """Of the offers that could stand beside its replicas: whose, and what it costs an hour at worst. Raises
        UsageError("market.*" | "recipe.unknown")."""
        recipe = self._recipe(of.name)
        beside = tuple(x.place for x in of.replicas.values())
        offers = await self._beside.offers(recipe.need, recipe_labels(recipe), beside)
        cost, provider = min((hourly_ceiling(x, recipe.need), x.provider) for x in offers)
        return provider, cost

    def perform(self, effect: say.AnyWant) -> None:
        match effect:
            case say.FindPlace(deployment=name):
                self._jobs.start(lambda: self._find(effect), f"find {name}")
            case say.Fit(deployment=name, lease=lease):
                self._do(lease, FIT, lambda: self._fit(name, lease))
            case say.Start(deployment=name, lease=lease):
                self._do(lease, START, lambda: self._start(name, lease))
            case say.Stop(deployment=name, lease=lease):
                self._do(lease, STOP, lambda: self._stop(name, lease))
            case say.Turn(deployment=name, lease=lease):
                self._jobs.start(lambda: self.turn(name, lease), f"turn {name}")
            case say.End(lease=lease, reason=reason):
                self._jobs.start(lambda: self._end(told.EndRequested(lease, reason)), f"end {short(lease)}")
            case say.Fence(lease=lease, reason=reason):
                self._jobs.start(lambda: self._end(told.Fenced(lease, reason)), f"fence {short(lease)}")
            case say.LiftFence(deployment=name, lease=lease):
                self._jobs.start(lambda: self._lift_fence(name, lease), f"fence {short(lease)}")
            case say.Publish(deployment=name):
                self.publish(name)

    async def resume(self) -> None:
        """After a restart: searches whose lease came about, and those that came to nothing; who leads where."""
        state = self.driver.state
        for of in state.deployments.values():
            for lease in of.replicas:
                self._beside.set_aside(lease, lease != of.primary)
        asks = [(of.name, ask) for of in state.deployments.values() for ask in of.asks]
        for name, ask in asks:
            mine = self._tenant.state.leases.get(ask.lease)
            if mine is not None and mine.state in METERED:
                await self._tell_placed(name, ask.ticket, ask.lease)
            else:
                gone = Reason("lease.cancelled", "the daemon was restarted before the lease ran")
                await self.driver.tell(say.PlaceFailed(name, ask.ticket, gone))

    # -- one piece of work each ----------------------------------------------------------------------
    def _do(self, lease: LeaseId, limit: float, work: Callable[[], Awaitable[None]]) -> None:
        """It always ends with a word to the mind: done, or failed and why."""

        async def run() -> None:
            try:
                async with asyncio.timeout(limit):
                    await work()
            except DockageError as error:
                log.info("replica.failed", lease=short(lease), code=error.code, why=error.message)
                await self.driver.tell(say.Failed(lease, reason_of(error)))
            except TimeoutError:
                await self.driver.tell(say.Failed(lease, LATE))
            except Exception:  # a bug of ours; the mind must not wait for ever
                log.exception("replica.crashed", lease=short(lease))
                await self.driver.tell(say.Failed(lease, CRASHED))

        if not self._jobs.start(run, f"replica {short(lease)}"):
            log.warning("replica.dropped", lease=short(lease))

    async def _find(self, want: say.FindPlace) -> None:
        name, lease = want.deployment, LeaseId(secrets.token_bytes(16))
        recipe = self.recipes.get(name)
        if recipe is None:
            await self.driver.tell(say.PlaceFailed(name, want.ticket, NO_RECIPE))
            return
        await self.driver.tell(say.Asked(name, want.ticket, lease))
        try:
            await self._beside.another(
                lease, recipe.need, recipe_labels(recipe), want, lambda line: self._steps.tell(name, line)
            )
        except DockageError as error:
            await self.driver.tell(say.PlaceFailed(name, want.ticket, reason_of(error)))
        else:
            await self._tell_placed(name, want.ticket, lease)
        finally:
            self._steps.tell(name, "")

    async def _tell_placed(self, name: str, ticket: int, lease: LeaseId) -> None:
        mine = self._tenant.state.leases[lease]
        price = Msat(ceiling(mine.limits, mine.tariff, HOUR))
        place = self._beside.place(mine.provider)
        await self.driver.tell(say.Placed(name, ticket, lease, place, price))

    async def _fit(self, name: str, lease: LeaseId) -> None:
        of = self.driver.state.deployments.get(name)
        recipe = (of and self._of_digest(name, of.recipe)) or self._recipe(name)
        await self._beside.fit(lease, recipe.need)
        placed = await self.copies.replay(
            recipe, lease, lambda line: self._steps.tell(name, line), start=False
        )
        self._steps.tell(name, "")
        await self._remember(lease, placed)
        await self.driver.tell(say.Fitted(lease, digest(recipe)))

    async def _start(self, name: str, lease: LeaseId) -> None:
        of = self.driver.state.deployments.get(name)
        recipe = (of and self.recipe_at(of, lease)) or self._recipe(name)
        placed = self._placed.get(lease)
        if placed is None:
            placed = await self.copies.replay(recipe, lease, lambda _: None, start=False)
            await self._remember(lease, placed)
        await self.copies.start_replayed(recipe, placed, lambda _: None)
        await self.driver.tell(say.Started(lease))

    async def _stop(self, name: str, lease: LeaseId) -> None:
        """First whatever else was let in, then what runs."""
        await self._lift_fence(name, lease)
        await self.copies.stop_replayed(self._placed.get(lease, {}))
        await self.driver.tell(say.Stopped(lease))

    async def turn(self, name: str, lease: LeaseId) -> None:
        """The old one's place is remembered: it may come back as a standby."""
        if name not in self.copies.deployments():
            return  # nobody here has ids and ports of it
        self._turning.add(name)
        try:
            await self._turn(name, lease)
        finally:
            self._turning.discard(name)

    def lead(self, of: Deployment) -> None:
        """Our user's ids and ports are where the mind says, also if a turn failed or a restart cut it off."""
        primary = of.replicas.get(of.primary)
        if of.name in self._turning or of.rollout is not None:
            return
        if primary is None or primary.stage is not Stage.SERVING:
            return
        where = self.copies.where(of.name)
        if any(where[x].lease != of.primary for x in self.copy(of.primary) if x in where):
            self._jobs.start(lambda: self.turn(of.name, of.primary), f"turn {of.name}")

    async def _turn(self, name: str, lease: LeaseId) -> None:
        placed = self._placed.get(lease, {})
        for number in range(TURNS):
            try:
                async with asyncio.timeout(TURN):
                    await self.copies.adopt(name, placed)
                break
            except (DockageError, TimeoutError) as error:
                log.info("turn.failed", deployment=name, why=str(error), attempt=number)
                await asyncio.sleep(0.25 * (number + 1))
        of = self.driver.state.deployments.get(name)
        for each in of.replicas if of else ():
            self._beside.set_aside(each, each != lease)

    async def _end(self, event: told.EndRequested | told.Fenced) -> None:
        await self._tenant.tell(event)
        self._beside.set_aside(event.lease, False)
        self._placed.pop(event.lease, None)
        await on_disk(self._journal.write, [Row(COPY, event.lease, b"")])

    async def _lift_fence(self, name: str, lease: LeaseId) -> None:
        """Grants of older epochs are void from now on."""
        of = self.driver.state.deployments.get(name)
        mine = self._tenant.state.leases.get(lease)
        if of is None or mine is None:
            return
        stream = await self._open_stream(mine.provider)
        try:
            await write_frame(stream, encode_header(Fence(lease, of.epoch)))
            await read_frame(stream, 512)
        finally:
            stream.abort()

    def _recipe(self, name: str) -> Recipe:
        recipe = self.recipes.get(name)
        if recipe is None:
            raise Unavailable(NO_RECIPE.code, NO_RECIPE.text)
        return recipe

    async def _remember(self, lease: LeaseId, placed: Placed) -> None:
        self._placed[lease] = placed
        names = msgspec.msgpack.encode({id_: spot.remote for id_, spot in placed.items()})
        await on_disk(self._journal.write, [Row(COPY, lease, names)])


def _read(row: Row) -> tuple[LeaseId, Placed]:
    lease = LeaseId(row.key)
    names = msgspec.msgpack.decode(row.value, type=dict[str, str])
    return lease, {id_: Spot(lease, remote) for id_, remote in names.items()}
