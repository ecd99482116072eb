"""More than one lease for a deployment: another one, apart from those it has, and what of them is aside.

Counterpart: ``renting.py``, which answers our user's own commands and knows one lease of each deployment, the one that
ids and ports lead to. The rule: no two leases of a deployment are at one provider or behind one line.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.offer import Offer
from dockage.domain.resources import Resources
from dockage.domain.spread import Place, lines_of, spread
from dockage.node.controller_words import FindPlace
from dockage.node.tenant import Tenant
from dockage.ports.renting import Progress

from .driver import Driver
from .market import Found
from .renting import CANDIDATES_MAX, Renting, silently
from .wishes import Wishes, read_wishes

PLACES_MAX = 10_000


class Beside:
    def __init__(self, renting: Renting, tenant: Driver[Tenant]) -> None:
        self._renting, self._tenant = renting, tenant
        self._places: dict[NodeKey, Place] = {}
        renting.seen = self._learn

    def set_aside(self, lease: LeaseId, aside: bool) -> None:
        """What is aside is not what our user's own commands go to."""
        (self._renting.aside.add if aside else self._renting.aside.discard)(lease)

    def place(self, provider: NodeKey) -> Place:
        """As the market showed it last."""
        return self._places.get(provider, Place(provider))

    def _learn(self, found: tuple[Found, ...]) -> None:
        if len(self._places) > PLACES_MAX:
            self._places.clear()
        for each in found:
            key, direct = each.offer.provider, each.address.direct
            self._places[key] = Place(key, lines_of(direct), each.offer.region)

    async def another(
        self, lease: LeaseId, need: Resources, labels: Mapping[str, str], want: FindPlace, progress: Progress
    ) -> None:
        """Rent *lease* as *want* says. Raises UsageError("market.nothing-apart") besides what renting raises."""
        self.set_aside(lease, True)
        wishes = _narrowed(read_wishes(labels), want)
        offers = (await self._apart(need, wishes, want, progress))[:CANDIDATES_MAX]
        candidates = tuple([await self._renting.candidate(offer, need, wishes) for offer in offers])
        await self._renting.rent(lease, want.deployment, need, candidates, progress)

    async def offers(
        self, need: Resources, labels: Mapping[str, str], beside: tuple[Place, ...]
    ) -> tuple[Offer, ...]:
        """What could stand beside those, at least one. Raises as ``another`` does."""
        return await self._apart(need, read_wishes(labels), FindPlace("", 0, beside), silently)

    async def _apart(
        self, need: Resources, wishes: Wishes, want: FindPlace, progress: Progress
    ) -> tuple[Offer, ...]:
        taken = [self._places.get(place.provider, place) for place in want.beside]
        avoid = [key for key in want.avoid if key != want.to]
        try:
            fit = await self._renting.fitting(need, wishes, progress, beside=taken, avoid=avoid)
        except UsageError as error:
            if error.code != "market.nothing-fits":
                raise
            fit = await self._renting.fitting(need, wishes, progress)  # says so if nothing at all does
        others = [offer for offer in fit if offer.provider not in avoid]
        found = spread([(offer, self.place(offer.provider)) for offer in others], taken)
        if not found:
            raise UsageError(
                "market.nothing-apart",
                f"{len(fit)} offers fit, but none of another operator and network than the deployment's other "
                "replicas, or it failed us a moment ago",
            )
        return found

    async def fit(self, lease: LeaseId, need: Resources) -> None:
        """Make it large enough. Raises UsageError("lease.not-grown"), Unavailable("lease.ended")."""
        mine = self._tenant.state.leases.get(lease)
        if mine is None or mine.state not in METERED:
            raise Unavailable("lease.ended", f"the lease {short(lease)} does not run")
        more = mine.limits.covering(need) - mine.limits
        if more != Resources():
            await self._renting.grow(mine, more)


def _narrowed(wishes: Wishes, want: FindPlace) -> Wishes:
    if want.to is not None:
        wishes = msgspec.structs.replace(wishes, provider=want.to.hex())
    if want.budget is not None:
        limit = min(want.budget, want.budget if wishes.max_msat_hour is None else wishes.max_msat_hour)
        wishes = msgspec.structs.replace(wishes, max_msat_hour=limit)
    return wishes
