"""Whole worlds: in peace everything is exact; in rough weather everything still adds up; in a large town as well.

The large town has 400 nodes; DOCKAGE_TEST_TOWN=1000 makes it another size.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from dockage.domain.channel import ChannelState
from dockage.domain.lease import LeaseState
from dockage.domain.units import MINUTE, SECOND, Duration, Sat
from dockage.sim import checkers
from dockage.sim.town import PEACE, Plan, Town

PAUSED = LeaseState.PAUSED
LARGE = int(os.environ.get("DOCKAGE_TEST_TOWN", "400"))
ROUGHER = Plan(providers=8, tenants=18, crashes_per_hour=2.0, cuts=4, reorganisations=4)


def history(town: Town, *, minutes: int = 1) -> Town:
    """Its whole life, looked at every so many minutes."""
    town.live(lambda t: checkers.always(t) if t.world.elapsed // MINUTE % minutes == 0 else None)
    town.wind_down()
    checkers.at_the_end(town)
    return town


def test_in_peace_every_user_is_served_and_every_satoshi_arrives() -> None:
    town = history(Town(1, PEACE._replace(providers=6, tenants=14)))
    checkers.the_good_happened(town, at_first=Duration(15 * MINUTE), share=0.8)
    assert not sum(sum(node.peer_errors.values()) for node in town.nodes.values())
    assert sum(town.chain.balance(n.name) for n in town.nodes.values() if n.provider) > 10_000
    ran = [x for n in town.nodes.values() if n.tenant for x in n.tenant.leases.values() if x.due]
    assert {x.reason.code for x in ran if x.reason} == {"lease.no-longer-needed"}


def test_leases_outlive_their_channels_by_money_and_by_time_and_nothing_pauses() -> None:
    """Channels of a twentieth of the usual size, which stop serving within three hours: each pair needs several."""
    town = Town(2, PEACE._replace(providers=4, tenants=12, channel=Sat(3_000), expiry_blocks=450))
    paused = []

    def look(town: Town) -> None:
        checkers.always(town)
        paused.extend(x for _, p in checkers.providers(town) for x in p.leases.values() if x.state is PAUSED)

    town.live(look)
    pairs = Counter((n.name, c.peer) for n, t in checkers.tenants(town) for c in t.channels.values())
    town.wind_down()
    checkers.at_the_end(town)
    checkers.the_good_happened(town, at_first=Duration(15 * MINUTE), share=0.8)
    assert not paused
    assert sum(count >= 3 for count in pairs.values()) >= 8
    ran = [x for _, t in checkers.tenants(town) for x in t.leases.values() if x.due]
    assert {x.reason.code for x in ran if x.reason} == {"lease.no-longer-needed"}


@pytest.mark.parametrize("seed", range(8))
def test_in_rough_weather_everything_adds_up(seed: int) -> None:
    town = history(Town(seed, ROUGHER))
    checkers.the_good_happened(town, at_first=Duration(25 * MINUTE), share=0.7)
    assert town.crashes > 10
    assert town.network.counts["lost"] > 40


@pytest.mark.timeout(240)
def test_a_large_town_for_an_hour() -> None:
    plan = Plan(
        providers=LARGE * 3 // 10,
        tenants=LARGE * 7 // 10,
        meter=Duration(120 * SECOND),
        tick=Duration(40 * SECOND),
        blocks_per_hour=30,
    )
    town = history(Town(20, plan), minutes=5)
    checkers.the_good_happened(town, at_first=Duration(25 * MINUTE), share=0.65)
    assert town.world.events > 300 * LARGE
    ended = [x for n in town.nodes.values() if n.tenant for x in n.tenant.leases.values()]
    assert {x.state for x in ended} == {LeaseState.ENDED}
    closed = [c for n in town.nodes.values() if n.tenant for c in n.tenant.channels.values()]
    assert sum(c.state is ChannelState.CLOSED for c in closed) > LARGE // 2


def test_a_broken_world_names_its_seed() -> None:
    town = Town(77, PEACE._replace(providers=2, tenants=2))
    town.world.run(MINUTE)
    town.chain.fees += 1
    with pytest.raises(checkers.Broken, match=r"^seed=77 after 60 s: satoshis came or went"):
        checkers.always(town)
