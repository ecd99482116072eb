"""Slow, partitioned, dead, cheating and bankrupt are told apart: each has its own health, reason and answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Instant
from dockage.node import controller_words as say
from dockage.node.kept import Goal, Stage
from dockage.node.signs import Health

from .controllerlab import World, kinds, lease

CHEAT = Reason("statement.sum", "the sum is wrong")
BROKE = Reason("channel.exhausted", "the channel is used up")
LEAVES = Reason("provider.leaving", "the machine is needed at home")
ENDED = Reason("provider.restarted", "what ran on it is gone")
GOAL = Goal(1, 1, 1, 1, recipe="r1", ready=True)


def slow(world: World) -> None:
    """It misses our checks and states its use all the same."""
    world.now = Instant(world.now + SECOND)
    looks = [replace(world._look(x), answered=x.lease != lease(1)) for x in world.shop.replicas.values()]
    world.wanted += world.tell(say.Looked(tuple(looks)))


def partitioned(world: World) -> None:
    """We do not reach it, and a gateway does."""
    world.dark = {1}
    world.gateway(1, 0)
    world.second()


def dead(world: World) -> None:
    world.dark = {1}
    world.second()


def sick(world: World) -> None:
    """Its provider answers, its containers do not."""
    world.gateway(1, 3)
    world.second()


def apart(world: World) -> None:
    """Its provider answers us, and the gateway cannot speak with it any more."""
    if world.stage(1) is not None and not world.replica(1).answered:
        world.gateway(1, 0)
    world.gateway(1, 3, is_reached=False)
    world.second()


def cheating(world: World) -> None:
    world.trouble = {1: CHEAT}
    world.second()


def bankrupt(world: World) -> None:
    world.trouble = {1: BROKE}
    world.second()


def leaving(world: World) -> None:
    if world.stage(1) is Stage.SERVING:
        world.tell(say.LeaseEnding(lease(1), LEAVES))
    world.second()


def over(world: World) -> None:
    world.over = {1: ENDED}
    world.second()


class Row(NamedTuple):
    happens: Callable[[World], None]
    seconds: int
    health: Health
    code: str
    does: set[str]
    """Of these: Start, Stop, End, Fence."""
    stage: Stage | None
    """Of what was in trouble, afterwards."""
    is_avoided: bool = False


TABLE = [
    Row(slow, 20, Health.SLOW, "replica.slow", set(), Stage.SERVING),
    Row(partitioned, 40, Health.UNSEEN, "replica.unseen", set(), Stage.SERVING),
    Row(dead, 4, Health.DEAD, "replica.dead", {"Start"}, Stage.SERVING),
    Row(dead, 40, Health.DEAD, "replica.dead", {"Start", "Fence"}, None, is_avoided=True),
    Row(sick, 3, Health.SICK, "replica.sick", {"Start"}, Stage.SERVING),
    Row(apart, 20, Health.APART, "replica.apart", set(), Stage.SERVING),
    Row(apart, 45, Health.APART, "replica.apart", {"Start", "End"}, None),
    Row(cheating, 3, Health.CHEATING, "statement.sum", {"Start"}, Stage.DRAINING),
    Row(cheating, 20, Health.CHEATING, "statement.sum", {"Start", "End"}, None, is_avoided=True),
    Row(bankrupt, 60, Health.UNPAID, "replica.unpaid", set(), Stage.SERVING),
    Row(leaving, 20, Health.LEAVING, "provider.leaving", {"Start", "End"}, None, is_avoided=True),
    Row(over, 3, Health.OVER, "provider.restarted", {"Start", "End"}, None, is_avoided=True),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.happens.__name__}-{row.seconds}")
def test_each_trouble_has_its_own_name_and_answer(row: Row) -> None:
    world = World(GOAL, supply=2)
    world.second(3)
    before, provider = len(world.wanted), world.replica(1).place.provider
    verdicts = []
    for _ in range(row.seconds):
        row.happens(world)
        if world.stage(1) is not None:
            verdicts.append(world.replica(1).verdict(world.now))
    done = set(kinds(world.wanted[before:])) & {"Start", "Stop", "End", "Fence"}
    told = {x.reason.code for x in world.shop.story} | {x.reason.code for x in verdicts if x.reason}
    assert done == row.does
    assert world.stage(1) is row.stage
    assert row.code in told
    if verdicts:
        assert row.health in {x.health for x in verdicts}
    assert (provider in world.shop.avoid) is row.is_avoided


def test_no_two_troubles_have_one_code() -> None:
    names = {row.happens.__name__: row.code for row in TABLE}
    assert len(set(names.values())) == len(names)
    assert len({(row.health, row.code) for row in TABLE}) == len(names)
