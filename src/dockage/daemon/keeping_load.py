"""How much the replicas of each deployment have to do, told to the controller: from the statements of their providers,
and from what the gateways have in flight.

Counterparts: ``domain/scaling.py``, ``domain/rest.py``. A provider that overstates its load is found by the checks of
the bill: it would be paid for the work, too.
"""

from __future__ import annotations

from dockage.domain.identity import LeaseId
from dockage.domain.reason import Reason
from dockage.domain.rest import Asked, Rest
from dockage.domain.rest import step as nap
from dockage.domain.scaling import Load, Scaler, Scaling, step
from dockage.domain.units import SECOND, Duration, Instant
from dockage.node import controller_words as say
from dockage.node.kept import Deployment, Stage
from dockage.node.tenant import RentedLease, Tenant

WINDOW = Duration(5 * SECOND)
"""The load is that of so many seconds at least: a single second says little."""
SLEEPS = Reason("load.none", "no request came for a while: it sleeps until the next one")
WOKEN = Reason("load.request", "a request waits at a gateway")
LOADED = Reason("load.changed", "the replicas have more or less to do than is aimed at")


class Loads:
    def __init__(self) -> None:
        self._scalers: dict[str, Scaler] = {}
        self._before: dict[LeaseId, tuple[Instant, int]] = {}
        """The statement that the next rate is counted from: its time, and CPU used by then, in ns."""
        self._rates: dict[LeaseId, int] = {}
        self._rests: dict[str, Rest] = {}

    def look(
        self, of: Deployment, scaling: Scaling, tenant: Tenant, in_flight: int | None, now: Instant
    ) -> say.LoadSeen | None:
        """None while it stays as it is, or nothing is known. *in_flight*: at its gateways; None: not heard."""
        serving = [x.lease for x in of.serving if x.stage is Stage.SERVING]
        leases = [tenant.leases[x] for x in serving if x in tenant.leases]
        rates = [rate for x in leases if (rate := self._rate(x)) is not None]
        used = sum(rates) if len(rates) == len(leases) else None
        if not scaling.is_on or not leases or (used is None and in_flight is None):
            return None
        load = Load(used, sum(x.limits.cpu_milli for x in leases) // len(leases), in_flight)
        scaler = self._scalers.get(of.name, Scaler())
        self._scalers[of.name], count = step(scaler, scaling, load, of.wanted, now)
        return say.LoadSeen(of.name, count, LOADED) if count != of.wanted else None

    def rests(
        self, of: Deployment, after_sec: int | None, asked: Asked | None, now: Instant
    ) -> say.LoadSeen | None:
        """Whether it is to fall asleep."""
        if after_sec is None:
            return None
        rest = self._rests.get(of.name, Rest(now))
        self._rests[of.name], may = nap(rest, asked, Duration(after_sec * SECOND), now)
        return say.LoadSeen(of.name, 0, SLEEPS) if may and of.wanted else None

    def wakes(self, of: Deployment, now: Instant) -> say.LoadSeen | None:
        """Somebody waits at a gateway."""
        if of.wanted or not of.goal.replicas:
            return None
        self._rests[of.name] = Rest(now)
        return say.LoadSeen(of.name, of.goal.replicas, WOKEN)

    def _rate(self, lease: RentedLease) -> int | None:
        """Thousandths of a core."""
        last = lease.last
        if last is None:
            return None
        at, used = self._before.setdefault(lease.id, (last.at, last.usage.cpu_ns))
        if last.at - at >= WINDOW:
            self._rates[lease.id] = (last.usage.cpu_ns - used) * 1000 // (last.at - at)
            self._before[lease.id] = (last.at, last.usage.cpu_ns)
        return self._rates.get(lease.id)

    def forget(self, known: set[LeaseId], names: set[str]) -> None:
        """All but these."""
        for gone in self._before.keys() - known:
            del self._before[gone]
            self._rates.pop(gone, None)
        for name in (self._scalers.keys() | self._rests.keys()) - names:
            self._scalers.pop(name, None)
            self._rests.pop(name, None)
