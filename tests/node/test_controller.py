"""The controller: what it does about each kind of misfortune, and what it leaves alone."""

from __future__ import annotations

from msgspec.structs import replace

from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Instant, Msat
from dockage.node import controller_words as say
from dockage.node.kept import Goal, Stage
from dockage.node.signs import Health

from .controllerlab import GATEWAY, GOAL, SHOP, World, kinds, lease, place, provider

CHEAT = Reason("statement.sum", "the sum is wrong")
LEAVES = Reason("provider.leaving", "the machine is needed at home")


def test_a_standby_is_found_and_fitted_and_does_not_run() -> None:
    world = World(GOAL)
    assert kinds(world.wanted) == ["FindPlace", "Fit"]
    assert world.stage(2) is Stage.READY
    assert world.wanted[0].beside == (place(1),)


def test_a_lost_replica_is_replaced_after_three_misses() -> None:
    world = World(GOAL)
    world.second(3)
    world.dark = {1}
    assert kinds(world.second(2)) == []
    assert world.replica(1).verdict(world.now).health is Health.SLOW
    effects = world.second(1)
    assert kinds(effects) == ["Publish", "Start", "Turn", "Publish"]
    assert world.stage(2) is Stage.SERVING
    assert world.shop.primary == lease(2)
    assert world.replica(2).epoch == 2
    assert world.shop.story[-1].reason.code == "replica.dead"


def test_what_comes_back_soon_is_kept_as_the_standby() -> None:
    world = World(GOAL)
    world.dark = {1}
    world.second(10)
    world.dark = set()
    effects = world.second(1)
    assert say.Stop(SHOP, lease(1)) in effects
    assert "End" not in kinds(world.wanted)
    assert "Fence" not in kinds(world.wanted)
    assert world.stage(1) is Stage.READY
    assert world.shop.primary == lease(2)


def test_what_stays_away_is_fenced_after_thirty_seconds_and_a_new_standby_found() -> None:
    world = World(GOAL)
    world.dark = {1}
    world.second(31)
    assert kinds(world.wanted).count("FindPlace") == 1
    effects = world.second(3)
    assert "Fence" in kinds(effects)
    assert "FindPlace" in kinds(effects)
    assert world.stage(1) is None
    assert world.stage(3) is Stage.READY
    find = next(x for x in effects if isinstance(x, say.FindPlace))
    assert provider(1) in find.avoid


def test_one_missed_check_only_takes_it_out_of_the_rotation() -> None:
    world = World(replace(GOAL, replicas=2, most=2, standby=0))
    world.second(2)
    world.dark = {1}
    assert kinds(world.second(1)) == ["Turn", "Publish"]
    world.dark = set()
    assert kinds(world.second(5)) == []
    assert world.shop.primary == lease(2)
    assert world.stage(1) is Stage.SERVING


def test_a_replica_that_a_gateway_still_reaches_is_not_replaced() -> None:
    world = World(GOAL)
    world.dark = {1}
    for _ in range(40):
        world.gateway(1, 0)
        world.second(1)
    assert world.replica(1).verdict(world.now).health is Health.UNSEEN
    assert "Start" not in kinds(world.wanted)
    assert "Fence" not in kinds(world.wanted)


def test_a_slow_provider_that_still_states_its_use_is_not_replaced() -> None:
    world = World(GOAL)
    for _ in range(40):
        world.now = Instant(world.now + SECOND)
        looks = (say.Look(lease(1), False, world.now), say.Look(lease(2), True, world.now))
        world.tell(say.Looked(looks))
    assert "Start" not in kinds(world.wanted)


def test_a_gateway_and_we_together_are_enough() -> None:
    world = World(GOAL)
    world.dark = {1}
    world.gateway(1, 3)
    assert "Start" in kinds(world.second(3))


def test_a_cheat_is_replaced_before_it_is_stopped() -> None:
    world = World(GOAL)
    world.trouble = {1: CHEAT}
    effects = kinds(world.second(1))
    assert effects.index("Start") < len(effects)
    assert world.stage(2) is Stage.SERVING
    assert world.stage(1) is Stage.DRAINING
    assert "End" in kinds(world.second(6))
    assert world.shop.story[0].reason == CHEAT


def test_what_is_drained_finishes_its_answers_if_they_have_an_end() -> None:
    world = World(GOAL)
    world.trouble = {1: CHEAT}
    for _ in range(20):
        world.gateway(1, 0, busy=1)
        world.second()
    assert world.stage(1) is Stage.DRAINING
    world.gateway(1, 0, busy=0)
    world.second()
    assert world.stage(1) is None

    endless = World(GOAL)
    endless.trouble = {1: CHEAT}
    for _ in range(62):
        endless.gateway(1, 0, busy=1)
        endless.second()
    assert endless.stage(1) is None


def test_what_we_cannot_pay_is_left_alone() -> None:
    world = World(GOAL)
    world.trouble = {1: Reason("channel.exhausted", "the channel is used up")}
    assert kinds(world.second(60)) == []
    assert world.replica(1).verdict(world.now).reason.code == "replica.unpaid"


def test_a_provider_that_leaves_is_left_before_it_goes() -> None:
    world = World(GOAL)
    world.tell(say.LeaseEnding(lease(1), LEAVES))
    assert world.stage(2) is Stage.SERVING
    assert world.shop.primary == lease(2)
    world.second(7)
    assert world.stage(1) is None
    assert world.stage(3) is Stage.READY


def test_a_lease_that_ended_is_replaced_at_once() -> None:
    world = World(GOAL)
    world.over = {1: Reason("host.failed", "the disk is full")}
    assert "Start" in kinds(world.second(1))
    assert world.stage(1) is None
    assert "Fence" not in kinds(world.wanted)


def test_most_of_the_providers_lost_at_once_means_that_we_are_cut_off() -> None:
    world = World(GOAL)
    world.dark = {1, 2}
    assert "Start" not in kinds(world.second(100))
    assert "Fence" not in kinds(world.wanted)
    assert "FindPlace" not in kinds(world.wanted[2:])
    world.dark = set()
    assert kinds(world.second(5)) == []


def test_a_gateway_that_agrees_ends_the_doubt() -> None:
    world = World(replace(GOAL, replicas=3, most=3, standby=1))
    world.dark = {1, 2}
    world.second(4)
    assert world.stage(4) is Stage.READY
    world.gateway(1, 3)
    assert world.stage(4) is Stage.SERVING


def test_data_is_not_left_behind_for_a_transient_fault() -> None:
    world = World(replace(GOAL, holds_data=True))
    world.dark = {1}
    world.second(300)
    assert "Start" not in kinds(world.wanted)
    assert "Fence" not in kinds(world.wanted)


def test_expendable_data_starts_anew_once_the_old_lease_is_over() -> None:
    world = World(replace(GOAL, holds_data=True, expendable=True))
    world.dark = {1}
    world.second(30)
    assert "Start" not in kinds(world.wanted)
    effects = kinds(world.second(5))
    assert effects.index("Fence") < effects.index("Start")


def test_a_standby_that_cannot_be_fitted_is_given_back_and_another_found() -> None:
    world = World(GOAL)
    world.undone = {say.Fit}
    world.tell(say.Wanted(SHOP, replace(GOAL, recipe="r2"), lease(1), place(1)))
    for _ in range(3):
        world.tell(say.Failed(lease(2), Reason("engine.refused", "no")))
        world.second(10)
    assert world.stage(2) is None
    assert world.stage(3) is Stage.FITTING


def test_a_search_that_fails_is_tried_again_ever_more_seldom() -> None:
    world = World(GOAL, supply=1)
    world.second(60)
    assert 4 <= kinds(world.wanted).count("FindPlace") <= 7
    assert world.shop.hindrance is not None
    assert world.shop.hindrance.code == "market.nothing-fits"


def test_scaling_up_and_down_keeps_what_is_cheapest() -> None:
    world = World(replace(GOAL, standby=0, most=3))
    world.tell(say.ScaleAsked(SHOP, 3))
    assert [world.stage(n) for n in (1, 2, 3)] == [Stage.SERVING] * 3
    world.tell(say.ScaleAsked(SHOP, 1))
    world.second(7)
    assert len(world.shop.replicas) == 1
    assert world.shop.primary == lease(1)


def test_what_our_user_takes_down_is_ended_everywhere() -> None:
    world = World(GOAL)
    effects = world.tell(say.Unwanted(SHOP))
    assert sorted(kinds(effects)) == ["End", "End"]
    assert not world.state.deployments


def test_what_is_slow_to_begin_is_not_replaced_as_what_has_stopped_answering() -> None:
    stopped, slow = World(GOAL), World(GOAL)
    stopped.gateway(1, 0)
    for world in (stopped, slow):
        for _ in range(60):
            world.gateway(1, 3)
            world.second(1)
    assert stopped.stage(2) is Stage.SERVING
    assert slow.stage(1) is Stage.SERVING
    assert slow.stage(2) is Stage.READY


def test_it_sleeps_and_wakes_where_it_was() -> None:
    world = World(replace(GOAL, standby=0, least=0))
    world.tell(say.LoadSeen(SHOP, 0, Reason("load.none", "no request for a while")))
    assert world.stage(1) is Stage.READY
    assert "End" not in kinds(world.wanted)
    world.tell(say.LoadSeen(SHOP, 1, Reason("load.request", "a request came")))
    assert world.stage(1) is Stage.SERVING


def test_it_is_moved_to_the_provider_that_our_user_names() -> None:
    world = World(GOAL)
    world.tell(say.MoveAsked(SHOP, Reason("move.asked", "our user wants it elsewhere"), provider(7)))
    world.second(7)
    assert world.shop.primary == lease(7)
    assert world.stage(1) is None
    assert world.shop.move_to is None


def test_a_move_that_finds_no_place_leaves_everything_where_it_is() -> None:
    world = World(replace(GOAL, standby=0), supply=1)
    world.tell(say.MoveAsked(SHOP, Reason("move.asked", "our user wants it elsewhere")))
    world.second(20)
    assert world.stage(1) is Stage.SERVING
    assert world.shop.story[-1].what == "stayed"
    assert "End" not in kinds(world.wanted)


def test_a_move_to_the_standby_needs_no_further_provider() -> None:
    world = World(GOAL, supply=2)
    world.second(3)
    world.tell(say.MoveAsked(SHOP, Reason("move.asked", "elsewhere")))
    world.second(10)
    assert world.shop.primary == lease(2)
    assert world.stage(2) is Stage.SERVING
    assert world.stage(1) is None
    assert "stayed" not in [x.what for x in world.shop.story]


def test_of_two_that_move_one_does_where_one_place_is_left() -> None:
    world = World(replace(GOAL, replicas=2, most=2, standby=0), supply=3)
    world.second(5)
    world.tell(say.MoveAsked(SHOP, Reason("move.asked", "our user wants it elsewhere")))
    world.second(30)
    assert [x for x in (1, 2) if world.stage(x) is Stage.SERVING] == [1]
    assert world.stage(3) is Stage.SERVING
    assert "stayed" in [x.what for x in world.shop.story]


def test_a_ceiling_is_never_passed() -> None:
    world = World(replace(GOAL, replicas=3, most=3, standby=1, max_msat_hour=Msat(2500)))
    world.second(120)
    assert world.shop.msat_hour <= 2500
    assert world.shop.hindrance is not None


def test_without_the_term_nothing_is_wanted() -> None:
    world = World(GOAL)
    world.tell(say.Shared(SHOP, shared=True))
    world.dark = {1}
    assert world.second(100) == []


def test_a_restart_forgets_no_work() -> None:
    world = World(GOAL)
    world.undone = {say.Start}
    world.dark = {1}
    world.second(3)
    assert world.stage(2) is Stage.STARTING
    world.restart()
    assert say.Start(SHOP, lease(2), 2) in world.second(1)


def test_what_crashed_is_started_again_where_it_is() -> None:
    world = World(GOAL)
    world.now = Instant(world.now + SECOND)
    looks = tuple(
        say.Look(x.lease, True, world.now, crashed=x.lease == lease(1)) for x in world.shop.replicas.values()
    )
    effects = world.tell(say.Looked(looks))
    assert kinds(effects) == ["Start"]
    assert effects[0].lease == lease(1)


def test_a_goal_with_nothing_running_copies_nothing() -> None:
    world = World(Goal(standby=1, recipe="r1"))
    assert kinds(world.second(10)) == []


def test_a_new_recipe_reaches_the_standby() -> None:
    world = World(GOAL)
    effects = world.tell(say.Wanted(SHOP, replace(GOAL, recipe="r2"), lease(1), place(1)))
    assert kinds(effects) == ["Fit"]
    assert world.replica(2).fitted == "r2"


def test_words_about_strangers_change_nothing() -> None:
    world = World(GOAL)
    before = world.state.deployments
    world.tell(say.GatewaySaw(lease(8), GATEWAY, 3))
    world.tell(say.Fitted(lease(8), "r1"))
    world.tell(say.Failed(lease(8), CHEAT))
    assert world.state.deployments == before


def test_what_falls_asleep_is_kept_where_our_users_commands_go() -> None:
    two = Goal(2, 0, 0, 2, recipe="r1", ready=True)
    world = World(two)
    world.second(5)
    night = replace(two, replicas=0, most=0, scheduled=True)
    world.tell(say.Wanted(SHOP, night, lease(1), place(1), world.replica(1).msat_hour))
    world.second(10)
    assert world.stage(1) is Stage.READY
    assert world.stage(2) is None
    assert [x.reason.code for x in world.shop.story if x.what == "scaled from 2 to 0"] == [
        "deployment.scheduled"
    ]
    day = replace(two, scheduled=False)
    world.tell(say.Wanted(SHOP, day, lease(1), place(1), world.replica(1).msat_hour))
    world.second(5)
    assert [x.stage for x in world.shop.replicas.values()] == [Stage.SERVING] * 2
