"""Rolling out a change: behind a gate, a batch at a time, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Duration, Msat
from dockage.domain.update import Update
from dockage.node import controller_words as say
from dockage.node.deputy import BY_DEPUTY
from dockage.node.kept import Goal, Replica, Stage
from dockage.node.shown import shown

from .controllerlab import PRICE, SHOP, World, kinds, lease, place

ONE = Goal(1, 0, 1, 1, recipe="r1", ready=True)
NEW = replace(ONE, recipe="r2")
THREE = replace(ONE, replicas=3, most=3)


def in_rotation(world: World) -> list[int]:
    return [x.lease[0] for x in shown(world.shop) if x.state == "serving"]


def settled(world: World, goal: Goal) -> World:
    world.public = True
    world.second(20)
    assert len(in_rotation(world)) == goal.replicas
    return world


def bad(recipe: str) -> Callable[[Replica], bool | None]:
    return lambda x: x.fitted != recipe


def test_a_copy_is_changed_while_what_serves_goes_on() -> None:
    world = settled(World(ONE), ONE)
    world.tell(say.ChangeBegun(SHOP))
    world.second(1)
    assert world.stage(2) is Stage.PROVING
    assert world.shop.primary == lease(2), "our user's commands go to the copy"
    assert in_rotation(world) == [1]
    world.second(60)
    assert in_rotation(world) == [1], "while compose is at it nothing changes"


def test_the_old_one_goes_once_the_new_one_has_answered_for_a_while() -> None:
    world = settled(World(ONE), ONE)
    world.change(NEW)
    world.second(1)
    assert in_rotation(world) == [1, 2]
    world.second(3)
    assert in_rotation(world) == [1, 2], "it is watched first"
    world.second(20)
    assert in_rotation(world) == [2]
    assert world.stage(1) is None
    assert world.shop.rollout is None
    assert "updated" in [x.what for x in world.shop.story]
    assert world.replica(2).epoch == world.shop.epoch == 2


def test_what_is_not_healthy_gets_no_request_and_is_rolled_back() -> None:
    world = settled(World(ONE), ONE)
    world.well = bad("r2")
    seen = set[int]()
    world.change(NEW)
    for _ in range(20):
        world.second(1)
        seen |= set(in_rotation(world))
    assert seen == {1}
    assert world.shop.rollout is not None
    assert world.shop.rollout.failed is not None
    assert world.shop.rollout.failed.code == "deploy.unhealthy"
    assert world.shop.primary == lease(1)
    assert say.Turn(SHOP, lease(1)) in world.wanted
    assert world.stage(2) is None
    world.tell(say.Wanted(SHOP, ONE, lease(1), place(1), PRICE))
    world.second(5)
    assert world.shop.rollout is None
    assert world.shop.setback is not None, "it is said until the next change"
    assert in_rotation(world) == [1]


def test_what_only_begins_has_a_limit() -> None:
    goal = replace(NEW, update=Update(within=Duration(30 * SECOND)))
    world = settled(World(ONE), ONE)
    world.well = lambda x: None if x.fitted == "r2" else True
    world.change(goal)
    world.second(29)
    assert world.stage(2) is Stage.PROVING
    world.second(10)
    assert world.shop.rollout is not None
    assert world.shop.rollout.failed is not None
    assert world.shop.rollout.failed.code == "deploy.slow"


def test_three_are_replaced_one_at_a_time_and_never_fewer_serve() -> None:
    world = settled(World(THREE), THREE)
    before = len([x for x in world.wanted if isinstance(x, say.FindPlace)])
    world.change(replace(THREE, recipe="r2"))
    for _ in range(120):
        world.second(1)
        assert len(in_rotation(world)) >= 3
        assert len([x for x in world.shop.replicas.values() if x.moving is not None]) <= 1
        assert len(world.shop.replicas) <= 4
    assert world.shop.rollout is None
    assert {x.fitted for x in world.shop.replicas.values()} == {"r2"}
    assert len(in_rotation(world)) == 3
    asked = len([x for x in world.wanted if isinstance(x, say.FindPlace)]) - before
    assert asked == 1, "a lease whose copy is old takes the new one next"


def test_with_a_standby_nothing_more_is_rented() -> None:
    goal = replace(ONE, standby=1)
    world = settled(World(goal), goal)
    before = kinds(world.wanted).count("FindPlace")
    world.change(replace(goal, recipe="r2"))
    world.second(5)
    assert kinds(world.wanted).count("FindPlace") == before


def test_a_bad_second_replica_brings_all_back() -> None:
    world = settled(World(THREE), THREE)
    first: list[int] = []

    def well(x: Replica) -> bool:
        if x.fitted == "r2" and x.stage in (Stage.PROVING, Stage.SERVING):
            first.append(x.lease[0])
        return x.fitted != "r2" or x.lease[0] == first[0]

    world.well = well
    world.change(replace(THREE, recipe="r2"))
    for _ in range(60):
        world.second(1)
        assert len(in_rotation(world)) >= 3
    rollout = world.shop.rollout
    assert rollout is not None
    assert rollout.failed is not None
    assert rollout.failed.code == "deploy.unhealthy"
    world.tell(say.Wanted(SHOP, THREE, world.shop.primary, place(world.shop.primary[0]), PRICE))
    world.second(60)
    assert world.shop.rollout is None
    assert {x.fitted for x in world.shop.replicas.values() if x.stage is Stage.SERVING} == {"r1"}
    assert len(in_rotation(world)) == 3


def test_what_has_data_is_changed_where_it_is() -> None:
    goal = replace(ONE, holds_data=True, standby=1)
    world = settled(World(goal), goal)
    world.tell(say.ChangeBegun(SHOP))
    world.second(30)
    assert world.stage(1) is Stage.CHANGING
    assert world.stage(2) is Stage.READY, "no second writer"
    world.through(replace(goal, recipe="r2"))
    world.second(20)
    assert in_rotation(world) == [1]
    assert world.shop.rollout is None


def test_what_has_data_is_brought_back_where_it_is() -> None:
    goal = replace(ONE, holds_data=True)
    world = settled(World(goal), goal)
    world.well = bad("r2")
    world.change(replace(goal, recipe="r2"))
    effects = kinds(world.second(10))
    assert effects.index("Stop") < effects.index("Fit") < effects.index("Start") < effects.index("Turn")
    assert in_rotation(world) == [1]
    assert world.replica(1).fitted == "r1"
    world.tell(say.Wanted(SHOP, goal, lease(1), place(1), PRICE))
    assert world.shop.rollout is None


@pytest.mark.parametrize("why", ["nobody", "ceiling"])
def test_where_there_can_be_no_copy_it_is_changed_where_it_is(why: str) -> None:
    goal = replace(ONE, max_msat_hour=PRICE) if why == "ceiling" else ONE
    world = settled(World(goal, supply=1 if why == "nobody" else 9), goal)
    world.change(replace(goal, recipe="r2"))
    assert "changed in place" in [x.what for x in world.shop.story]
    world.second(20)
    assert world.replica(1).fitted == "r2"
    assert in_rotation(world) == [1]
    assert world.shop.rollout is None
    assert world.shop.msat_hour <= (goal.max_msat_hour or Msat(10 * PRICE))


def test_stop_first_lets_fewer_serve_and_rents_nothing() -> None:
    goal = replace(THREE, update=Update("stop-first"))
    world = settled(World(goal), goal)
    before = kinds(world.wanted).count("FindPlace")
    world.change(replace(goal, recipe="r2"))
    for _ in range(120):
        world.second(1)
        assert len(in_rotation(world)) >= 2
    assert world.shop.rollout is None
    assert {x.fitted for x in world.shop.replicas.values()} == {"r2"}
    assert kinds(world.wanted).count("FindPlace") == before


def test_pause_leaves_all_as_it_is() -> None:
    update = Update(on_failure="pause")
    goal = replace(ONE, update=update)
    world = settled(World(goal), goal)
    world.well = bad("r2")
    world.change(replace(goal, recipe="r2"))
    world.second(60)
    assert in_rotation(world) == [1]
    assert world.stage(2) is Stage.PROVING
    assert world.shop.setback is not None
    assert world.shop.primary == lease(2), "our user can look at it there"
    world.well = lambda _: True
    world.change(replace(goal, recipe="r3"))
    world.second(30)
    assert in_rotation(world) == [2]
    assert world.shop.rollout is None


def test_continue_goes_on_with_what_is_not_healthy() -> None:
    goal = replace(ONE, update=Update(on_failure="continue"))
    world = World(goal)
    world.well = bad("r2")
    world.change(replace(goal, recipe="r2"))
    world.second(60)
    assert world.replica(2).fitted == "r2"
    assert world.shop.rollout is None


def test_a_change_that_is_broken_off_holds_nothing_up_for_ever() -> None:
    world = settled(World(ONE), ONE)
    world.tell(say.ChangeBegun(SHOP))
    world.second(21 * 60)
    world.tell(say.Wanted(SHOP, ONE, world.shop.primary, place(2), PRICE))
    world.second(60)
    assert world.shop.rollout is None
    assert len(in_rotation(world)) == 1


def test_the_copy_is_lost_while_it_is_changed() -> None:
    world = settled(World(ONE), ONE)
    world.tell(say.ChangeBegun(SHOP))
    world.second(5)
    world.over[2] = Reason("lease.ended", "the machine is gone")
    world.through(NEW)
    world.second(5)
    assert world.shop.primary == lease(1)
    assert in_rotation(world) == [1]
    assert world.shop.story[-1].reason.code in ("deploy.lost", "lease.ended")


def test_what_serves_is_lost_while_the_copy_is_changed() -> None:
    """Then the new one is needed at once: it is all there is."""
    world = settled(World(ONE), ONE)
    world.change(NEW)
    world.over[1] = Reason("lease.ended", "the machine is gone")
    world.second(20)
    assert in_rotation(world)[:1] == [2]


def test_a_restart_in_the_middle_goes_on() -> None:
    world = settled(World(THREE), THREE)
    world.change(replace(THREE, recipe="r2"))
    for _ in range(12):
        world.second(9)
        world.restart()
    world.second(60)
    assert world.shop.rollout is None
    assert {x.fitted for x in world.shop.replicas.values()} == {"r2"}
    assert len(in_rotation(world)) == 3


# -- the laptop is closed meanwhile --------------------------------------------------------------------
def is_begun(world: World) -> None:
    world.tell(say.ChangeBegun(SHOP, NEW.update))
    world.second(3)


def is_through(world: World) -> None:
    is_begun(world)
    world.tell(say.ChangeThrough(SHOP))


def is_made(world: World) -> None:
    world.change(NEW)


def is_admitted(world: World) -> None:
    world.change(NEW)
    world.second(1)


@pytest.mark.parametrize("far", [is_begun, is_through, is_made, is_admitted])
def test_what_a_deputy_took_over_amid_a_change_is_whole_again_soon_after_our_return(
    far: Callable[[World], None],
) -> None:
    """The deputy ran what is proven, and has ended all leases of ours."""
    world = settled(World(ONE), ONE)
    far(world)
    assert world.shop.rollout is not None
    assert world.shop.proven == "r1"
    world.over = {x.lease[0]: BY_DEPUTY for x in world.shop.replicas.values()}
    world.restart()
    world.second(3)
    [x] = world.shop.replicas.values()
    assert x.stage is Stage.SERVING
    assert x.fitted == ("r2" if far is is_admitted else "r1")
    goal = NEW if far is is_admitted else ONE
    world.tell(say.Wanted(SHOP, goal, x.lease, x.place, PRICE))  # our user's docker was led there
    world.second(20)
    assert world.shop.rollout is None
    assert world.shop.proven == goal.recipe
    assert in_rotation(world) == [x.lease[0]]


def test_what_failed_and_waits_is_not_proven() -> None:
    goal = replace(NEW, update=Update(on_failure="pause"))
    world = settled(World(ONE), ONE)
    world.well = bad("r2")
    world.change(goal)
    world.second(20)
    assert world.shop.rollout is not None
    assert world.shop.rollout.paused
    assert world.shop.proven == "r1"
