"""Our deployments in public: what their labels say is brought about at gateways, and kept so.

Counterparts: ``outlets.py`` rents the leases, ``telling.py`` speaks with each gateway, ``zones.py`` tells the market
where they are. The one rule: what is looked at is the front's books and the controller's replicas as they are now; a
missed change is made up for at the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from dockage.domain.deployment import SERVICES_MAX, Replica
from dockage.domain.doors import Door, sites, urls
from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import METERED
from dockage.domain.reason import Reason
from dockage.domain.rest import Asked
from dockage.domain.units import SECOND, Msat, since
from dockage.node import controller_words as say
from dockage.node.shown import Shown, shown
from dockage.node.tenant import Tenant
from dockage.ports.machine import Clock
from dockage.protocol.docker.recipe import Recipe
from dockage.protocol.documents import Signs

from .driver import Driver
from .keeping import Keeping
from .outlets import Outlet, Outlets
from .perform import reason_of
from .publishing import Publisher
from .renting import silently
from .telling import Content, Stead, Telling
from .wishes import Wishes, gateway_wishes, recipe_doors, recipe_wishes, service_of
from .zones import Zones

log = structlog.get_logger("dockage.exposing")

LOOK_SEC = 0.5
GONE_SEC = 3.0
"""A deployment must be gone for so long: what is recreated keeps its gateways."""
SILENT_MAX_SEC = 30.0
"""A gateway that says nothing for so long is given up, if others are heard (``tenant.gateway_patience_sec``)."""
NEVER = ("document.dropped", "site.foreign", "site.no-own-domains")
"""What a gateway says that will not serve this deployment, whoever mends what at our side: the next one is asked."""
AGAIN_SEC, AGAIN_MAX_SEC = 2.0, 60.0
"""After a gateway that was not to be had, doubled with each."""
DOWN = Reason("lease.released", "our user took the deployment down")
SURPLUS = Reason("gateway.surplus", "it is to be at fewer gateways")
OVER = Reason("lease.ended", "the lease has ended")
SILENT = Reason("gateway.silent", "the gateway says nothing any more, while others are heard")


class Wanted(NamedTuple):
    """What is to be public of a deployment now."""

    doors: tuple[Door, ...]
    gateways: int
    wishes: Wishes
    replicas: tuple[Replica, ...]
    fence: int


class Way(NamedTuple):
    """For people: one gateway of a deployment."""

    outlet: Outlet
    telling: Telling
    urls: tuple[tuple[str, str], ...]
    """(service, URL)."""


class Exposing:
    def __init__(
        self,
        me: NodeKey,
        keeping: Keeping,
        tenant: Driver[Tenant],
        outlets: Outlets,
        publisher: Publisher,
        zones: Zones,
        clock: Clock,
        patience: float = SILENT_MAX_SEC,
    ) -> None:
        """*patience*: seconds that a gateway may be silent, while others are heard."""
        self._me, self._keeping, self._tenant, self._outlets = me, keeping, tenant, outlets
        self._publisher, self._zones, self._clock, self._patience = publisher, zones, clock, patience
        self._tellings: dict[LeaseId, Telling] = {}
        self._running: dict[LeaseId, asyncio.Task[None]] = {}
        self._renting: dict[str, asyncio.Task[None]] = {}
        self._again_at: dict[str, tuple[float, int]] = {}
        """Deployment: when the next gateway is looked for, and how many searches failed in a row."""
        self._missed: dict[str, float] = {}
        self.troubles: dict[str, Reason] = {}
        """Why a deployment is not as public as it is to be."""
        self.stead: Callable[[str], Stead | None] = lambda _: None
        """Of what we run as a deputy."""
        self.waits: Callable[[str], bool] = lambda _: False
        """Whether our deputy's copies of it still serve under its names."""
        self._moved = asyncio.Event()
        keeping.hands.publish = lambda _: self._moved.set()
        keeping.beside, keeping.asked = outlets.msat_hour, self.asked

    async def run(self) -> None:
        await self._keeping.attached.wait()
        await self._outlets.tidy()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._moved.clear()
                try:
                    await self._look(tasks)
                except DockageError as error:
                    log.warning("exposing.failed", code=error.code, why=error.message)
                except Exception:  # a bug of ours; what is public stays so
                    log.exception("exposing.crashed")
                try:
                    async with asyncio.timeout(LOOK_SEC):
                        await self._moved.wait()
                except TimeoutError:
                    pass

    def ways(self, deployment: str) -> list[Way]:
        return [
            Way(x, telling, urls(telling.served, x.ingress) if x.ingress else ())
            for x in self._outlets.of(deployment)
            if (telling := self._tellings.get(x.lease)) is not None
        ]

    def deployments(self) -> list[str]:
        """What is public, or is to be."""
        return sorted(self._outlets.deployments() | self.troubles.keys() | self._renting.keys())

    def is_looking(self, deployment: str) -> bool:
        """For one more gateway."""
        return deployment in self._renting

    # -- what is wanted --------------------------------------------------------------------------------
    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        names = self._keeping.names()
        for name in names:
            self._missed.pop(name, None)
            await self._see(name, tasks)
        known = self._outlets.deployments() | self.troubles.keys() | self._renting.keys()
        for name in known - names:
            if self._time() - self._missed.setdefault(name, self._time()) >= GONE_SEC:
                await self._withdraw(name)

    async def _see(self, name: str, tasks: asyncio.TaskGroup) -> None:
        try:
            wanted = self._wanted(name)
        except UsageError as error:  # not seen yet at its provider; or labels that contradict each other
            if error.code.startswith("label."):
                self.troubles[name] = reason_of(error)
            return
        count = wanted.gateways if wanted.doors else 0
        held = await self._held(name)
        for outlet in held:
            if outlet.ingress is not None and not self._yields(name, wanted):
                self._bring_about(outlet, wanted, [x.gateway for x in held if x.gateway], tasks)
        staying = [x for x in held if not self._leaves(x)]
        if len(staying) < count:
            if self._acts(name):
                self._rent_one(name, wanted, tasks)
        elif not any(x.ingress is None for x in held):  # what is new serves before the old one goes
            self.troubles.pop(name, None)
            for outlet in [x for x in held if x not in staying] + staying[count:]:
                await self._close(outlet, SURPLUS)
        self._tell_zone(name)

    def _acts(self, name: str) -> bool:
        """To rent a gateway is to act: not without the term."""
        of = self._keeping.state.deployments.get(name)
        return of is None or self._keeping.state.acts(of, self._clock.now())

    def _yields(self, name: str, wanted: Wanted) -> bool:
        """Nothing of ours serves yet, and our word would count before our deputy's."""
        return self.waits(name) and not any(x.state == "serving" for x in wanted.replicas)

    def _wanted(self, name: str) -> Wanted:
        recipe = self._keeping.recipe(name)
        doors, wishes = recipe_doors(recipe), recipe_wishes(recipe)
        of = self._keeping.state.deployments.get(name)
        found = shown(of) if of is not None else self._alone(name)
        hands = self._keeping.hands
        there = [(x, (hands.recipe_at(of, x.lease) if of is not None else None) or recipe) for x in found]
        served = tuple(self._replica(name, x, its, doors) for x, its in there)
        return Wanted(doors, wishes.gateways, wishes, served, of.epoch if of is not None else 1)

    def _alone(self, name: str) -> tuple[Shown, ...]:
        """What no controller keeps is where our user's commands put it."""
        lease = self._keeping.copies.lease_of(name)
        mine = self._tenant.state.leases.get(lease) if lease else None
        if mine is None or mine.state not in METERED:
            return ()
        return (Shown(mine.id, mine.provider, "serving"),)

    def _replica(self, name: str, x: Shown, recipe: Recipe, doors: tuple[Door, ...]) -> Replica:
        placed = {k: s for k, s in self._keeping.copies.where(name).items() if s.lease == x.lease}
        placed = placed or dict(self._keeping.hands.copy(x.lease))
        public = {door.service for door in doors}
        services = {
            (service, placed[one.id].remote)
            for one in recipe.containers
            if one.runs and (service := service_of(one)) in public and one.id in placed
        }
        return Replica(x.provider, x.lease, tuple(sorted(services)[:SERVICES_MAX]), b"", x.state)

    # -- gateways --------------------------------------------------------------------------------------
    async def _held(self, name: str) -> list[Outlet]:
        """Those that run or are on their way; what has ended, or is silent for too long, is let go."""
        held = list[Outlet]()
        for outlet in self._outlets.of(name):
            telling = self._tellings.get(outlet.lease)
            if outlet.ingress is None and name in self._renting:
                held.append(outlet)
            elif not self._outlets.runs(outlet):
                await self._close(outlet, OVER)
            elif telling and telling.silent_sec > self._patience and self._hears_others(outlet):
                await self._close(outlet, SILENT, failed=True)
            elif telling and telling.trouble and telling.trouble.code in NEVER:
                await self._close(outlet, telling.trouble, failed=True)
            else:
                held.append(outlet)
        return held

    def _hears_others(self, outlet: Outlet) -> bool:
        """Else it is more likely our own line."""
        now = self._clock.now()
        return any(
            x.provider != outlet.gateway and x.state in METERED and since(x.heard_at, now) < 5 * SECOND
            for x in self._tenant.state.leases.values()
        )

    def _leaves(self, outlet: Outlet) -> bool:
        mine = self._outlets.lease(outlet)
        return mine is not None and mine.announced is not None

    def _bring_about(
        self, outlet: Outlet, wanted: Wanted, gateways: list[NodeKey], tasks: asyncio.TaskGroup
    ) -> None:
        assert outlet.ingress is not None
        telling = self._tellings.get(outlet.lease)
        if telling is None or self._running[outlet.lease].done():
            telling = Telling(outlet, self._me, self._publisher, self._clock, self._hear, self._taken)
            self._tellings[outlet.lease] = telling
            self._running[outlet.lease] = tasks.create_task(_guarded(telling))
        telling.outlet = outlet
        stead = self.stead(outlet.deployment)
        tenant, called = (stead.tenant, stead.name) if stead else (self._me, outlet.deployment)
        telling.want(
            Content(
                called,
                sites(wanted.doors, called, tenant, outlet.ingress, outlet.attempt),
                wanted.replicas,
                tuple(sorted(gateways)),
                tuple(sorted({door.port for door in wanted.doors})),
                wanted.fence,
                stead,
            )
        )

    def _rent_one(self, name: str, wanted: Wanted, tasks: asyncio.TaskGroup) -> None:
        at, failures = self._again_at.get(name, (0.0, 0))
        if name in self._renting or self._time() < at:
            return

        async def rent() -> None:
            try:
                wishes = gateway_wishes(wanted.wishes, self._left(name, wanted))
                stead = self.stead(name)
                first = stead.gateways if stead else frozenset[NodeKey]()
                await self._outlets.rent(name, wanted.doors, wishes, silently, first)
                self._again_at.pop(name, None)
            except DockageError as error:
                pause = min(AGAIN_MAX_SEC, AGAIN_SEC * 2 ** min(failures, 5))
                self._again_at[name] = (self._time() + pause, failures + 1)
                self.troubles[name] = reason_of(error)
            except Exception:  # a bug of ours
                log.exception("outlet.crashed", deployment=name)
                self._again_at[name] = (self._time() + AGAIN_MAX_SEC, failures + 1)
            finally:
                del self._renting[name]
                self._moved.set()

        self._renting[name] = tasks.create_task(rent())

    def _left(self, name: str, wanted: Wanted) -> Msat | None:
        """What one more gateway may cost an hour."""
        if wanted.wishes.max_spend is None:
            return None
        of = self._keeping.state.deployments.get(name)
        spent = self._outlets.msat_hour(name) + (of.msat_hour if of else 0)
        return Msat(max(0, wanted.wishes.max_spend - spent))

    async def _withdraw(self, name: str) -> None:
        if name in self._renting:
            self._renting[name].cancel()
        for outlet in self._outlets.of(name):
            await self._close(outlet, DOWN)
        for one in (self._missed, self._again_at, self.troubles):
            one.pop(name, None)
        self._zones.tell(name, ())

    async def _close(self, outlet: Outlet, reason: Reason, *, failed: bool = False) -> None:
        if (running := self._running.pop(outlet.lease, None)) is not None:
            running.cancel()
        self._tellings.pop(outlet.lease, None)
        await self._outlets.end(outlet, reason, failed=failed)

    # -- from a gateway --------------------------------------------------------------------------------
    async def _hear(self, telling: Telling, signs: Signs) -> None:
        for x in signs.replicas:
            seen = (telling.outlet.gateway, x.misses, x.in_flight, x.is_reached)
            await self._keeping.tell(say.GatewaySaw(x.lease, *seen))
        if signs.wanted:
            await self._keeping.wake(telling.outlet.deployment)

    def asked(self, deployment: str) -> Asked | None:
        """What its gateways have to do; None unless each of them is heard."""
        ways = self.ways(deployment)
        heard = [x.telling.signs for x in ways if x.telling.is_open and x.telling.signs is not None]
        if not heard or len(heard) < len(ways):
            return None
        sites = [site for signs in heard for site in signs.sites]
        return Asked(
            sum(x.in_flight for x in sites), sum(x.total for x in sites), any(x.wanted for x in heard)
        )

    async def _taken(self, outlet: Outlet) -> None:
        """Another one's port: the next is asked for. What our user named stays."""
        await self._outlets.retry_ports(outlet)
        self._moved.set()

    # -- the zone --------------------------------------------------------------------------------------
    def _tell_zone(self, name: str) -> None:
        open_ = [way.outlet for way in self.ways(name) if way.telling.is_open]
        addresses = [address for x in open_ if x.ingress for address in x.ingress.addresses]
        try:
            self._zones.tell(name, tuple(dict.fromkeys(addresses)))
        except UsageError as error:
            self.troubles[name] = reason_of(error)

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


async def _guarded(telling: Telling) -> None:
    try:
        await telling.run()
    except Exception:  # a bug of ours; the other gateways go on
        log.exception("telling.crashed")
