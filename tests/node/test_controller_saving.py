"""What moves for its price, and what never does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.reason import Reason
from dockage.domain.saving import Saving
from dockage.domain.units import MINUTE, SECOND, Duration, Msat
from dockage.node import controller_words as say
from dockage.node.kept import Goal, Stage

from .controllerlab import PRICE, SHOP, World, kinds, lease, provider

PAUSE = Duration(10 * MINUTE)
GOAL = Goal(1, 0, 1, 1, recipe="r1", ready=True, saving=Saving(20, PAUSE))
CHEAP = Msat(700)


def rested(goal: Goal = GOAL) -> World:
    world = World(goal)
    world.second(PAUSE // SECOND + 1)
    return world


def offered(world: World, n: int = 5, price: Msat = CHEAP, really: Msat | None = None) -> list[say.AnyWant]:
    before = len(world.wanted)
    world.prices[n] = price if really is None else really
    world.tell(say.CheaperSeen(SHOP, provider(n), price))
    return world.wanted[before:]


def test_a_cheaper_offer_moves_it_and_the_new_one_serves_before_the_old_one_stops() -> None:
    world = rested()
    effects = offered(world)
    assert kinds(effects)[:3] == ["FindPlace", "Fit", "Publish"]
    assert world.stage(5) is Stage.SERVING
    assert world.stage(1) is Stage.DRAINING
    world.second(10)
    assert list(world.shop.replicas) == [lease(5)]
    assert world.shop.primary == lease(5)
    story = [x for x in world.shop.story if x.reason.code == "price.cheaper"]
    assert "30 % cheaper" in story[0].reason.text
    assert world.shop.move_limit is None


def test_what_saves_less_than_the_threshold_moves_nothing() -> None:
    assert offered(rested(), price=Msat(801)) == []
    assert offered(rested(), price=Msat(800)) != []


def test_a_provider_that_wants_more_than_it_offered_gets_nothing() -> None:
    world = rested()
    effects = offered(world, price=Msat(500), really=Msat(900))
    assert "End" in kinds(effects)
    world.second(60)
    assert list(world.shop.replicas) == [lease(1)]
    assert world.stage(1) is Stage.SERVING
    assert world.shop.story[-1].what == "stayed"
    assert offered(world) == [], "and it is not tried again at once"
    world.second(PAUSE // SECOND)
    assert offered(world, 6) != []


def test_nothing_moves_again_before_the_pause_is_over() -> None:
    world = rested()
    offered(world)
    world.second(PAUSE // SECOND - 60)
    assert offered(world, 6, Msat(100)) == []
    world.second(120)
    assert offered(world, 6, Msat(100)) != []


@pytest.mark.parametrize(
    "goal",
    [
        replace(GOAL, saving=Saving(None, PAUSE)),
        replace(GOAL, holds_data=True),
        replace(GOAL, max_msat_hour=PRICE),
    ],
)
def test_without_a_word_with_data_or_without_room_for_two_it_stays(goal: Goal) -> None:
    world = rested(goal)
    offered(world)
    world.second(30)
    assert world.stage(1) is Stage.SERVING
    assert list(world.shop.replicas) == [lease(1)]


def test_expendable_data_moves_and_never_has_two_writers() -> None:
    world = rested(replace(GOAL, holds_data=True, expendable=True))
    starts: list[Any] = []

    def check(world: World, effect: say.AnyWant) -> None:
        if isinstance(effect, say.Start):
            starts.append(world.stage(1))

    world.checks.append(check)
    offered(world)
    world.second(30)
    assert world.shop.primary == lease(5)
    assert Stage.SERVING not in starts


@pytest.mark.parametrize("trouble", ["unwell", "changing", "looking", "new"])
def test_nothing_moves_while_anything_else_is_going_on(trouble: str) -> None:
    world = rested(replace(GOAL, standby=1))
    match trouble:
        case "unwell":
            world.dark = {2}
            world.second(1)
        case "changing":
            world.tell(say.ChangeBegun(SHOP))
            world.second(30)
        case "looking":
            world.undone = {say.FindPlace}
            world.over[2] = Reason("lease.ended", "gone")
            world.second(2)
        case "new":
            world.tell(say.ScaleAsked(SHOP, 2))
            world.second(30)
    offered(world)
    assert world.shop.move_to is None
    assert all(x.moving is None for x in world.shop.replicas.values())


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 9), st.integers(1, 1500), st.integers(1, 700), st.booleans()), max_size=12
    ),
    st.integers(1, 3),
    st.integers(3, 5),
)
def test_prices_that_come_and_go_never_make_it_flap_nor_cost_more(
    offers: list[tuple[int, int, int, bool]], replicas: int, room: int
) -> None:
    """Each move saves the threshold by what is really asked, a pause after the last one, and within the budget."""
    ceiling = Msat(PRICE * room)
    goal = replace(GOAL, replicas=replicas, most=replicas, least=replicas, max_msat_hour=ceiling)
    world, moves = World(goal, supply=99), list[int]()
    for n, price, seconds, honest in offers:
        cost = sum(x.msat_hour for x in world.shop.serving)
        before = set(world.shop.replicas)
        if lease(n) not in before:
            offered(world, n, Msat(price), Msat(price if honest else 2 * price))
        if world.shop.moved_at and (not moves or moves[-1] != world.shop.moved_at):
            assert not moves or world.shop.moved_at - moves[-1] >= PAUSE
            moves.append(world.shop.moved_at)
        for _ in range(seconds):
            world.second()
            assert world.shop.msat_hour <= ceiling
            assert len([x for x in world.shop.serving if x.stage is Stage.SERVING]) >= min(
                replicas, len(before)
            )
        assert sum(x.msat_hour for x in world.shop.serving) <= max(cost, replicas * PRICE)
