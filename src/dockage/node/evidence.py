"""What the tenant's own leases and channels say about a provider. Counterpart: ``domain/reputation.py``.

The one rule: it is computed from what is in the journal anyway, so it can be neither lost nor forged apart from that.
"""

from __future__ import annotations

from dataclasses import dataclass

from dockage.domain.channel import ChannelState
from dockage.domain.identity import NodeKey
from dockage.domain.reputation import UNKNOWN, WEIGHTS, Breach, Evidence, risk_permille, usual_score
from dockage.domain.units import Instant, Msat, Sat

from .rented import RentedLease, Tenant


@dataclass(frozen=True, slots=True)
class Known:
    """Everybody we ever had to do with."""

    by_provider: dict[NodeKey, Evidence]
    usual: int
    """How fast a core usually is."""
    now: Instant

    def of(self, provider: NodeKey) -> Evidence:
        return self.by_provider.get(provider, UNKNOWN)

    def risk(self, provider: NodeKey) -> int:
        return risk_permille(self.of(provider), self.now, self.usual)


def known(state: Tenant, now: Instant) -> Known:
    providers = {x.provider for x in state.leases.values() if x.opened_at}
    found = {provider: evidence(state, provider) for provider in sorted(providers)}
    return Known(found, usual_score(found.values()), now)


def evidence(state: Tenant, provider: NodeKey) -> Evidence:
    leases = [x for x in state.leases.of(provider) if x.opened_at]
    settled = [c for c in state.channels.of(provider) if c.state is ChannelState.CLOSED and c.paid]
    return Evidence(
        ticks=sum(x.last.seq for x in leases if x.last is not None and not x.breaches),
        due_msat=Msat(sum(x.due for x in leases)),
        settled=len(settled),
        settled_sat=Sat(sum(c.paid for c in settled)),
        breaches=tuple(breach for x in leases for breach in _breaches(x)),
        scores=tuple(x.checks.score for x in leases if x.checks.score),
    )


def _breaches(lease: RentedLease) -> tuple[Breach, ...]:
    """Those that were found, and an end that was the provider's fault."""
    why = lease.reason
    ended = lease.is_over and why is not None and why.code in WEIGHTS
    if not ended or why is None or any(x.reason.code == why.code for x in lease.breaches):
        return lease.breaches
    return (*lease.breaches, Breach(why, lease.since))
