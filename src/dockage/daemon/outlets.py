"""The ingress leases of our own deployments: rented at gateways apart from each other, remembered, ended.

Counterpart: ``exposing.py``, which says how many each deployment is to have and what is told there. The one rule: a
lease is written down before anybody is asked for it, so that no crash leaves one behind that is paid and unknown.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence

import msgspec
import structlog
from msgspec.structs import replace

from dockage.domain.doors import Door, fits
from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.offer import GATEWAY, Ingress, Offer
from dockage.domain.pricing import ceiling
from dockage.domain.reason import Reason
from dockage.domain.resources import INGRESS
from dockage.domain.spread import Place, spread
from dockage.domain.units import HOUR, MINUTE, Duration, Instant, Msat, after
from dockage.node import events as told
from dockage.node.rented import RentedLease
from dockage.node.tenant import Tenant
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.renting import Progress

from .driver import Driver
from .ondisk import on_disk
from .renting import CANDIDATES_MAX, Renting
from .rows import kept
from .wishes import Wishes

log = structlog.get_logger("dockage.outlets")

KIND = "outlet"
AVOID = Duration(10 * MINUTE)
"""A gateway that failed us is not asked again for so long."""
RESTARTED = Reason("lease.cancelled", "the daemon was restarted before the lease ran")


class Outlet(msgspec.Struct, frozen=True):
    """An ingress lease of a deployment."""

    lease: LeaseId
    deployment: str
    gateway: NodeKey = NodeKey(b"")
    """Empty until it runs."""
    ingress: Ingress | None = None
    """What the gateway offered then."""
    attempt: int = 0
    """How often a port that we chose was another's there."""


class Outlets:
    def __init__(
        self,
        renting: Renting,
        tenant: Driver[Tenant],
        clock: Clock,
        journal: Journal,
        rows: Iterable[Row],
        place: Callable[[NodeKey], Place],
    ) -> None:
        self._renting, self._tenant, self._clock, self._journal = renting, tenant, clock, journal
        self._place = place
        self._avoid: dict[NodeKey, tuple[Instant, str]] = {}
        """Who failed us: until when it is not asked, and the code of what it was."""
        self._last: dict[str, frozenset[NodeKey]] = {}
        """Where a deployment was until something ended it there: its names in their zones go on there only."""
        self._known = {x.lease: x for x in kept(rows, KIND, Outlet)}

    def of(self, deployment: str) -> list[Outlet]:
        return [x for x in self._known.values() if x.deployment == deployment]

    def deployments(self) -> set[str]:
        return {x.deployment for x in self._known.values()}

    def lease(self, outlet: Outlet) -> RentedLease | None:
        """None once it is over, or before it was asked for."""
        mine = self._tenant.state.leases.get(outlet.lease)
        return None if mine is None or mine.is_leaving else mine

    def runs(self, outlet: Outlet) -> bool:
        mine = self.lease(outlet)
        return mine is not None and mine.state in METERED and outlet.ingress is not None

    def msat_hour(self, deployment: str) -> Msat:
        """What they cost at worst, traffic aside."""
        held = [mine for x in self.of(deployment) if (mine := self.lease(x)) is not None]
        return Msat(sum(ceiling(mine.limits, mine.tariff, HOUR) for mine in held))

    async def tidy(self) -> None:
        """After a restart: those that never ran, or of which it was not written down where they run."""
        for outlet in list(self._known.values()):
            if not self.runs(outlet):
                await self.end(outlet, RESTARTED)

    async def rent(
        self,
        deployment: str,
        doors: Sequence[Door],
        wishes: Wishes,
        progress: Progress,
        first: frozenset[NodeKey] = frozenset(),
    ) -> Outlet:
        """One more, apart from those it has; *first*: rather there, and where it was until now. Raises
        UsageError("gateway.none-fits") besides what renting raises."""
        outlet = Outlet(LeaseId(secrets.token_bytes(16)), deployment)
        await self._keep(outlet)
        try:
            offers = await self._offers(deployment, doors, wishes, progress)
            first |= self._last.get(deployment, frozenset())
            offers = tuple(sorted(offers, key=lambda x: x.provider not in first))[:CANDIDATES_MAX]
            candidates = tuple([await self._renting.candidate(x, INGRESS, wishes) for x in offers])
            got = await self._renting.rent(
                outlet.lease, deployment, INGRESS, candidates, progress, service=GATEWAY
            )
        except DockageError:  # cut short by a stop it stays written down: ``tidy`` ends what came of it
            await self._forget(outlet.lease)
            raise
        ingress = next(x.ingress for x in offers if x.provider == got.provider)
        outlet = replace(outlet, gateway=got.provider, ingress=ingress)
        await self._keep(outlet)
        return outlet

    async def _offers(
        self, deployment: str, doors: Sequence[Door], wishes: Wishes, progress: Progress
    ) -> tuple[Offer, ...]:
        now = self._clock.now()
        found = await self._renting.fitting(INGRESS, wishes, progress, service=GATEWAY)
        able = [x for x in found if x.ingress is not None and fits(doors, x.ingress)]
        self._avoid = {key: found for key, found in self._avoid.items() if found[0] > now}
        fit = [x for x in able if x.provider not in self._avoid]
        others = [self._place(x.gateway) for x in self.of(deployment) if x.gateway]
        apart = spread([(x, self._place(x.provider)) for x in fit], others)
        if not apart:
            raise UsageError(
                "gateway.none-fits",
                f"of {len(found)} gateways on the market {len(able)} can serve all that is to be public, and none of "
                f"these is another one than those it has, or it failed us a moment ago{self._failures(able)}",
            )
        return apart

    def _failures(self, able: Sequence[Offer]) -> str:
        codes = sorted({self._avoid[x.provider][1] for x in able if x.provider in self._avoid})
        return f" ({', '.join(codes)})" if codes else ""

    async def end(self, outlet: Outlet, reason: Reason, *, failed: bool = False) -> None:
        """*failed*: its gateway is paid nothing more, and not asked again for a while."""
        if outlet.gateway and not failed:
            before = self._last.get(outlet.deployment, frozenset())
            self._last[outlet.deployment] = before | {outlet.gateway}
        if failed and outlet.gateway:
            self._avoid[outlet.gateway] = after(self._clock.now(), AVOID), reason.code
        if outlet.lease in self._tenant.state.leases:
            event = told.Fenced if failed else told.EndRequested
            await self._tenant.tell(event(outlet.lease, reason))
        log.info("outlet.ended", lease=short(outlet.lease), code=reason.code)
        await self._forget(outlet.lease)

    async def retry_ports(self, outlet: Outlet) -> Outlet:
        """The next ports are tried."""
        outlet = replace(outlet, attempt=outlet.attempt + 1)
        await self._keep(outlet)
        return outlet

    async def _keep(self, outlet: Outlet) -> None:
        self._known[outlet.lease] = outlet
        row = Row(KIND, outlet.lease, msgspec.msgpack.encode(outlet))
        await on_disk(self._journal.write, [row])

    async def _forget(self, lease: LeaseId) -> None:
        self._known.pop(lease, None)
        await on_disk(self._journal.forget, [(KIND, lease)])
