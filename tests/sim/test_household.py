"""A laptop and its deputy through closings, cuts and crashes: never do both act, and it stays up."""

from __future__ import annotations

import pytest

from dockage.domain.units import HOUR, SECOND, Duration
from dockage.sim.household import Household, Plan

EVENING = Duration(3 * HOUR)


@pytest.mark.parametrize(("seed", "slip"), [(1, 3600), (2, -3600)])
def test_never_both_and_the_deputy_keeps_it_up(seed: int, slip: int) -> None:
    seen = Household(seed, Plan(slip=slip)).run(EVENING)
    assert seen.takings >= 2
    assert seen.returns >= 1
    assert seen.served > 0.95


def test_a_line_that_breaks_all_the_time_makes_nobody_act_twice() -> None:
    often = Duration(40 * SECOND)
    assert Household(4, Plan(line_up=often, line_down=often)).run(HOUR).acts > 0


def test_a_seed_gives_the_same_history() -> None:
    digests = set[str]()
    for _ in range(2):
        home = Household(5)
        home.run(Duration(HOUR // 2))
        digests.add(home.world.digest)
    assert len(digests) == 1
