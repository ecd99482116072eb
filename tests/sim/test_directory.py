"""The directory of `benchmarks/dht.py` in small: real nodes of the market by the hundred, and those who attack it."""

from __future__ import annotations

import pytest

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration
from dockage.protocol.dht_node import Upkeep
from dockage.protocol.kademlia import Space
from dockage.protocol.records import node_topic
from dockage.sim.directory import Plan, Web
from dockage.sim.directory_trials import Trials
from dockage.sim.gangs import KINDS, Pool, surround

CALM = Plan(nodes=200, mtbf=0)


def tried(web: Web, stores: int = 8) -> Trials:
    trials = Trials(web)
    for _ in range(stores):
        trials.trial(3)
    web.world.run(Duration(2 * MINUTE))
    assert len(trials.copies) == stores
    assert len(trials.found) == 3 * stores
    return trials


def attacked(plan: Plan, networks: int, each: int) -> Trials:
    web = Web(3, plan)
    trials, pool = Trials(web), Pool(web, networks)
    for _ in range(2):
        key = NodeKey(web.world.random.randbytes(32))
        surround(web, pool, node_topic(key), each)
        trials.trial_of(key, 4)
    web.world.run(Duration(2 * MINUTE))
    assert len(trials.found) == 8
    return trials


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_third_hostile_every_record_is_stored_and_found(kind: str) -> None:
    trials = tried(Web(1, CALM._replace(hostile=0.3), KINDS[kind]))
    assert trials.stored_rate == trials.found_rate == 1.0
    assert min(trials.copies) >= 10


def test_half_a_day_of_churn_ten_times_as_fast_and_callers_that_push_in() -> None:
    """Hostile nodes call everybody all the time and never leave; honest ones come and go, as often as in five days."""
    quick = Upkeep(rate=1 << 20, burst=1 << 20, refresh=HOUR, refill=Duration(20 * MINUTE))
    plan = Plan(nodes=100, hostile=0.3, mtbf=Duration(9 * HOUR), upkeep=quick, spam=20)
    web = Web(2, plan, KINDS["deny"])
    before = Trials(web).hostile_share()
    web.world.run(Duration(6 * HOUR))
    trials = tried(web)
    assert trials.found_rate == trials.stored_rate == 1.0
    assert trials.dead_share() < 0.2
    assert trials.hostile_share() < before + 0.15


def test_a_plain_kademlia_is_eclipsed_by_mined_keys() -> None:
    """So the attack is a real one."""
    trials = attacked(CALM._replace(space=Space(bound=False), region=False), 0, 32)
    assert trials.found_rate < 0.6


@pytest.mark.parametrize("bound", [True, False])
def test_a_crowd_around_a_topic_hides_nothing_where_a_place_is_a_region(bound: bool) -> None:
    trials = attacked(CALM._replace(space=Space(bound)), 3_000, 32)
    assert trials.stored_rate == trials.found_rate == 1.0


def test_the_same_seed_is_the_same_history() -> None:
    told = []
    for _ in range(2):
        web = Web(5, Plan(nodes=40, hostile=0.2, mtbf=HOUR, spam=2), KINDS["poison"])
        tried(web, 2)
        web.world.run(Duration(30 * 60 * SECOND))
        told.append((web.world.digest, web.questions))
    assert told[0] == told[1]
