"""Cheats among honest nodes: what they take is bounded, and nobody else notices."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.lease import LeaseState
from dockage.domain.pricing import ceiling
from dockage.domain.units import GIB, Duration, Sat
from dockage.node import provider as selling
from dockage.sim import checkers
from dockage.sim.hostile import (
    Babbler,
    CpuDoubler,
    DoubleSpender,
    Forger,
    Forker,
    Freeloader,
    Overbiller,
    Skimper,
)
from dockage.sim.node import Node
from dockage.sim.people import User
from dockage.sim.town import PEACE, Town, provider_policy

SMALL = PEACE._replace(providers=4, tenants=8)


def cheapest(town: Town, kind: type[Node], credit: int = 0) -> Node:
    """A provider that everybody takes first."""
    some = town._some_policy(100)
    tariff = type(some.tariff)(*(getattr(some.tariff, f) // 4 for f in some.tariff.__struct_fields__))
    capacity = msgspec.structs.replace(some.capacity, cpu_milli=64_000, memory_bytes=64 * GIB)
    return town.add_provider(100, kind, provider_policy(tariff, capacity, town.plan.meter, Sat(credit)))


def live(town: Town) -> None:
    town.live(checkers.always)
    town.wind_down()
    checkers.always(town)
    checkers.bills_are_true(town)
    checkers.nothing_is_left(town)


def leases_of(user: User) -> list[selling.SoldLease]:
    return [
        lease
        for node in user.node.around.network._nodes.values()
        if isinstance(node, Node) and node.provider is not None
        for lease in node.provider.leases.values()
        if lease.tenant == user.node.name
    ]


def test_a_provider_that_bills_three_times_the_usage_gets_at_most_the_quoted_worst_case() -> None:
    town = Town(3, SMALL)
    cheat = cheapest(town, Overbiller)
    live(town)
    rented = [x for u in town.users if u.node.tenant for x in u.node.tenant.leases.values()]
    cheated = [x for x in rented if x.provider == cheat.name and x.quote is not None and x.opened_at]
    assert len(cheated) >= 5
    left = [x for x in cheated if x.reason and x.reason.code == "statement.impossible"]
    assert left, "nobody noticed"
    for lease in cheated:
        time = Duration(lease.left_until - lease.opened_at)
        network = 2 * 10**7  # 200 kB/s, what we counted ourselves, and the slack of each direction
        worst = ceiling(lease.most, lease.tariff, Duration(time + 60 * 10**9)) * 2
        assert lease.due <= worst + network
    checkers.every_satoshi_arrived(town)


TICKS = 60
"""Within so many a cheat must be found."""


def found(town: Town, cheat: Node, code: str) -> list[float]:
    """After how many ticks of the lease each tenant found it out."""
    rented = [x for u in town.users if u.node.tenant for x in u.node.tenant.leases.values()]
    return [
        (breach.at - lease.opened_at) / town.plan.meter
        for lease in rented
        for breach in lease.breaches
        if lease.provider == cheat.name and breach.reason.code == code
    ]


def rented_long(town: Town, cheat: Node) -> int:
    """Leases on the cheat that lasted long enough to be found out or were ended for it."""
    leases = [x for u in town.users if u.node.tenant for x in u.node.tenant.leases.values()]
    here = [x for x in leases if x.provider == cheat.name and x.last is not None]
    return sum(x.last is not None and (x.last.seq >= TICKS or bool(x.breaches)) for x in here)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_twice_the_cpu_is_found_within_sixty_ticks_and_left(seed: int) -> None:
    town = Town(seed, SMALL)
    cheat = cheapest(town, CpuDoubler)
    live(town)
    ticks = found(town, cheat, "meter.overstated")
    impossible = found(town, cheat, "statement.impossible")
    assert ticks, "the looks found nothing"
    assert len(ticks) + len(impossible) >= rented_long(town, cheat) > 0
    assert max(ticks + impossible) <= TICKS
    ended = [
        x
        for u in town.users
        if u.node.tenant
        for x in u.node.tenant.leases.values()
        if x.provider == cheat.name and any(b.reason.code == "meter.overstated" for b in x.breaches)
    ]
    assert all(x.dispute is not None and x.due <= x.stated for x in ended), "what was found is not paid"
    checkers.every_satoshi_arrived(town)


@pytest.mark.parametrize("seed", [14, 15, 16])
def test_half_a_core_is_found_within_sixty_ticks(seed: int) -> None:
    town = Town(seed, SMALL)
    cheat = cheapest(town, Skimper)
    live(town)
    ticks = found(town, cheat, "meter.short")
    assert len(ticks) >= rented_long(town, cheat) > 0
    assert max(ticks) <= TICKS
    checkers.every_satoshi_arrived(town)


def test_who_was_found_out_is_chosen_no_more() -> None:
    """The cheapest by far, and after the first lease nobody comes back."""
    town = Town(17, SMALL)
    cheat = cheapest(town, CpuDoubler)
    live(town)
    for user in town.users:
        mind = user.node.tenant
        leases = list(mind.leases.values()) if mind else []
        burnt = [n for n, x in enumerate(leases) if x.provider == cheat.name and x.breaches]
        assert not any(x.provider == cheat.name and x.opened_at for x in leases[min(burnt, default=99) + 1 :])


def test_two_statements_with_one_number_are_proven_to_everybody() -> None:
    town = Town(18, SMALL)
    cheat = cheapest(town, Forker)
    live(town)
    assert any(node.proofs for node in town.nodes.values())
    assert found(town, cheat, "statement.forked")


def test_a_tenant_that_never_pays_is_frozen_and_ended_everywhere() -> None:
    town = Town(4, SMALL)
    cheats = [town.add_tenant(100 + n, Freeloader) for n in range(4)]
    live(town)
    for cheat in cheats:
        sold = [x for x in leases_of(cheat) if not x.tariff.is_free]
        codes = {x.reason.code for x in sold if x.reason}
        assert "lease.unpaid-too-long" in codes
    honest = [u for u in town.users if u not in cheats]
    assert all(u.first_ran for u in honest)


def test_a_forged_payment_pays_nothing() -> None:
    town = Town(5, SMALL)
    cheat = town.add_tenant(100, Forger)
    live(town)
    assert sum(n.peer_errors["payment.forged"] for n in town.nodes.values()) > 0
    for node in town.nodes.values():
        held = node.provider.channels.values() if node.provider else ()
        assert not sum(c.paid for c in held if c.peer == cheat.node.name)


@pytest.mark.parametrize("seed", [8, 24])
def test_a_double_spent_funding_costs_the_provider_at_most_its_credit(seed: int) -> None:
    town = Town(seed, SMALL)
    provider = cheapest(town, Node, credit=500)
    cheat = town.add_tenant(100, DoubleSpender)
    live(town)
    account = provider.provider and provider.provider.accounts.get(cheat.node.name)
    assert account is not None
    assert 0 < account.at_risk <= 500_000
    assert account.paid == 0
    assert all(x.state is LeaseState.ENDED for x in leases_of(cheat))


@pytest.mark.parametrize("seed", [7, 8])
def test_noise_is_counted_and_harms_nobody_else(seed: int) -> None:
    town = Town(seed, SMALL)
    babbler = town.add_tenant(100, Babbler)
    town.live(checkers.always)
    town.wind_down()
    checkers.at_the_end(town)
    errors = sum(n.peer_errors["message.malformed"] for n in town.nodes.values())
    assert errors > 20
    assert all(u.first_ran for u in town.users if u is not babbler)
