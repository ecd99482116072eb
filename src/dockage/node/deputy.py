"""A deputy's mind: whose deployments it may run in their tenant's place, and whose the term of each is now.

It is the only witness of these terms, so what it decides here is decided: while the tenant holds a term the deputy
does nothing, and its yes to the tenant is its own end. What follows from that ``daemon/deputising.py`` brings about
by looking at the state, so there are no effects. Spec: docs/spec/12-terms.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from dockage.domain.deployment import NAME_MAX
from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.reason import Reason
from dockage.domain.term import LENGTH, Witness, consider
from dockage.domain.units import MINUTE, SECOND, Duration, Instant, Msat, Sat, after, msat, since
from dockage.protocol.mandates import Mandate

CHARGES_MAX = 64
PATIENCE = Duration(15 * SECOND)
"""Beyond the end of a tenant's term: what it had begun to start may take so long, and a laptop changes its network."""
LINGER = Duration(2 * MINUTE)
"""Our copies wait for those of the tenant that came back."""
BY_DEPUTY = Reason("lease.deputy", "your deputy has taken over: it has ended your own lease")

Key = tuple[NodeKey, str]
"""(tenant, the deployment's name there)."""


class Charge(msgspec.Struct, frozen=True):
    """One deployment that we may have to run."""

    mandate: Mandate
    witness: Witness
    before: Msat
    """What our leases for it had cost by then, under earlier mandates: that does not count against the budget."""
    runs: bool = False
    """We have taken over, and our copies are not to be ended yet."""
    yielded_at: Instant = Instant(0)
    """Since when the tenant has the term again while our copies wait for its own; 0: they don't."""
    spent: Msat = Msat(0)
    spent_out: bool = False
    holds_data: bool = False
    """One writer: ours do not wait for those of the tenant that came back."""

    def __repr__(self) -> str:
        return f"<Charge {self.name} epoch {self.witness.epoch} {'ours' if self.acts else 'tenant'}>"

    @property
    def key(self) -> Key:
        return self.mandate.tenant, self.mandate.name

    @property
    def name(self) -> str:
        return own_name(self.mandate)

    @property
    def acts(self) -> bool:
        """The term is ours."""
        return self.runs and not self.yielded_at

    @property
    def left(self) -> Msat:
        """Of the budget."""
        return Msat(max(0, msat(self.mandate.budget) - self.spent))


def own_name(mandate: Mandate) -> str:
    """As our own controller calls it: ours may have one of the same name. Two long ones that begin alike stay two."""
    whose = mandate.tenant.hex()[:8]
    if len(mandate.name) + 1 + len(whose) <= NAME_MAX:
        return f"{mandate.name}-{whose}"
    return f"{mandate.name[:46]}-{sha256(mandate.name.encode()).hexdigest()[:8]}-{whose}"


class Deputy(msgspec.Struct, frozen=True):
    me: NodeKey
    allowance: Sat = Sat(0)
    """The largest budget that our own user lets a mandate have."""
    charges: Mapping[Key, Charge] = {}


# -- events --------------------------------------------------------------------------------------------
class Mandated(msgspec.Struct, frozen=True):
    """Checked, and not refused by ``refusal``."""

    mandate: Mandate
    spent: Msat = Msat(0)
    """As in ``SpentSeen``."""
    holds_data: bool = False


class TermAsked(msgspec.Struct, frozen=True):
    tenant: NodeKey
    name: str
    epoch: int
    serves: bool


class SpentSeen(msgspec.Struct, frozen=True):
    """All that our leases for it have ever cost."""

    key: Key
    spent: Msat


class Ticked(msgspec.Struct, frozen=True):
    pass


def restore(me: NodeKey, allowance: Sat, stored: Iterable[Charge], now: Instant) -> Deputy:
    """A tenant could not renew while we were down: it has a whole term to do so."""
    heard = [
        x
        if x.runs
        else replace(x, witness=replace(x.witness, until=max(x.witness.until, after(now, LENGTH))))
        for x in stored
    ]
    return Deputy(me, allowance, {x.key: x for x in heard})


def refusal(state: Deputy, mandate: Mandate) -> Reason | None:
    """Why an honest tenant's mandate is not taken, if so."""
    known = state.charges.get((mandate.tenant, mandate.name))
    if known is not None and mandate.version < known.mandate.version:
        return Reason("mandate.old", "a newer mandate for this deployment is here already")
    if known is None and len(state.charges) >= CHARGES_MAX:
        return Reason("deputy.full", f"this machine is the deputy of {CHARGES_MAX} deployments already")
    if mandate.budget > state.allowance:
        return Reason(
            "mandate.budget",
            f"this machine spends at most {state.allowance} sat as a deputy: raise tenant.deputy_sat there, or ask "
            "for a smaller budget",
        )
    return None


def step(state: Deputy, event: object, now: Instant) -> tuple[Deputy, tuple[()]]:
    """Raises PeerError("mandate.unknown")."""
    match event:
        case Mandated():
            return _put(state, _on_mandate(state, event, now)), ()
        case TermAsked():
            return _put(state, _on_asked(state, event, now)), ()
        case SpentSeen(key=key, spent=spent) if key in state.charges:
            charge = state.charges[key]
            return _put(state, _on_spent(charge, Msat(spent - charge.before))), ()
        case Ticked():
            return _on_tick(state, now), ()
        case _:
            return state, ()


def _put(state: Deputy, charge: Charge) -> Deputy:
    return replace(state, charges={**state.charges, charge.key: charge})


def _on_mandate(state: Deputy, event: Mandated, now: Instant) -> Charge:
    """One that is withdrawn is kept until it would have expired: an older one must not come back."""
    mandate = event.mandate
    known = state.charges.get((mandate.tenant, mandate.name))
    if known is None or (known.mandate.is_withdrawn and not mandate.is_withdrawn):
        epoch = known.witness.epoch if known else 0
        witness = Witness(epoch, mandate.tenant, after(now, LENGTH))
        return Charge(mandate, witness, event.spent, holds_data=event.holds_data)
    if mandate.is_withdrawn:
        return replace(_ended(known), mandate=mandate)
    known = replace(known, mandate=mandate, spent_out=False, holds_data=event.holds_data)
    return _on_spent(known, known.spent)


def _ended(charge: Charge) -> Charge:
    return replace(charge, runs=False, yielded_at=Instant(0))


def _on_asked(state: Deputy, event: TermAsked, now: Instant) -> Charge:
    charge = state.charges.get((event.tenant, event.name))
    if charge is None:
        raise PeerError("mandate.unknown", "this machine is not the deputy of that deployment")
    charge = _considered(charge, state.me, event, now)
    returned = charge.witness.holder == event.tenant and event.serves
    return _ended(charge) if charge.yielded_at and returned else charge


def _considered(charge: Charge, me: NodeKey, event: TermAsked, now: Instant) -> Charge:
    if charge.witness.holder != me:
        return replace(charge, witness=consider(charge.witness, event.tenant, event.epoch, now)[0])
    if event.epoch <= charge.witness.epoch:
        return charge
    charge = replace(charge, witness=Witness(event.epoch, event.tenant, after(now, LENGTH)))
    if charge.holds_data:
        return _ended(charge)
    return replace(charge, yielded_at=now if charge.runs else Instant(0))


def _on_spent(charge: Charge, spent: Msat) -> Charge:
    """A budget of nothing allows what costs nothing."""
    charge = replace(charge, spent=spent)
    return replace(_ended(charge), spent_out=True) if spent and not charge.left else charge


def _on_tick(state: Deputy, now: Instant) -> Deputy:
    live = [x for x in state.charges.values() if now < x.mandate.expires]
    charges = {x.key: _aged(x, state.me, now) for x in live}
    same = len(charges) == len(state.charges) and all(x is state.charges[key] for key, x in charges.items())
    return state if same else replace(state, charges=charges)


def _aged(charge: Charge, me: NodeKey, now: Instant) -> Charge:
    if charge.mandate.is_withdrawn or charge.spent_out:
        return charge
    if charge.witness.holder == me:
        return charge if charge.runs else replace(charge, runs=True)  # it may spend again
    if now >= charge.witness.until + PATIENCE:
        ours = Witness(charge.witness.epoch + 1, me, now)
        return replace(charge, witness=ours, runs=True, yielded_at=Instant(0))
    if charge.yielded_at and since(charge.yielded_at, now) >= LINGER:
        return _ended(charge)
    return charge
