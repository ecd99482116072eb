"""How much the replicas of each deployment have to do, from the statements of their providers, told to the controller.

Counterpart: ``domain/scaling.py``. A provider that overstates its load is found by the checks of the bill: it would be
paid for the work, too.
"""

from __future__ import annotations

from dockage.domain.identity import LeaseId
from dockage.domain.reason import Reason
from dockage.domain.scaling import Load, Scaler, Scaling, step
from dockage.domain.units import SECOND, Duration, Instant
from dockage.node import controller_words as say
from dockage.node.kept import Deployment, Stage
from dockage.node.tenant import RentedLease, Tenant

WINDOW = Duration(5 * SECOND)
"""The load is that of so many seconds at least: a single second says little."""
LOADED = Reason("load.changed", "the replicas have more or less to do than is aimed at")


class Loads:
    def __init__(self) -> None:
        self._scalers: dict[str, Scaler] = {}
        self._before: dict[LeaseId, tuple[Instant, int]] = {}
        """The statement that the next rate is counted from: its time, and CPU used by then, in ns."""
        self._rates: dict[LeaseId, int] = {}

    def look(self, of: Deployment, scaling: Scaling, tenant: Tenant, now: Instant) -> say.LoadSeen | None:
        """None while it stays as it is, or nothing is known."""
        serving = [x.lease for x in of.serving if x.stage is Stage.SERVING]
        leases = [tenant.leases[x] for x in serving if x in tenant.leases]
        rates = [rate for x in leases if (rate := self._rate(x)) is not None]
        if not scaling.is_on or not leases or len(rates) < len(leases):
            return None
        load = Load(sum(rates), sum(x.limits.cpu_milli for x in leases) // len(leases))
        scaler = self._scalers.get(of.name, Scaler())
        self._scalers[of.name], count = step(scaler, scaling, load, of.wanted, now)
        return say.LoadSeen(of.name, count, LOADED) if count != of.wanted else None

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
        for name in self._scalers.keys() - names:
            del self._scalers[name]
