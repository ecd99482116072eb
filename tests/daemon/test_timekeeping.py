"""A clock that is set: it moves no bill, and is followed once nothing runs."""

from __future__ import annotations

import pytest

from dockage.adapters.system.clock import SystemClock
from dockage.daemon.timekeeping import Timekeeping
from dockage.domain.units import HOUR, SECOND

START = 1_800_000_000 * SECOND


class Machine:
    """Its two clocks; ``busy``: a lease runs."""

    def __init__(self) -> None:
        self.wall, self.passed, self.busy = START, 77 * SECOND, True
        self.clock = SystemClock(lambda: self.wall, lambda: self.passed)
        self.keeping = Timekeeping(self.clock, lambda: self.busy)

    def live(self, seconds: int) -> None:
        self.wall += seconds * SECOND
        self.passed += seconds * SECOND
        self.keeping.look()


def test_it_begins_with_what_the_machine_says() -> None:
    assert Machine().clock.now() == START
    assert abs(SystemClock().stepped()) < SECOND


@pytest.mark.parametrize("step", [HOUR, -HOUR, 3 * SECOND])
def test_a_step_moves_nothing_while_a_lease_runs_and_is_followed_then(step: int) -> None:
    machine = Machine()
    machine.live(10)
    machine.wall += step
    machine.live(20)
    assert machine.clock.now() == START + 30 * SECOND
    assert machine.clock.stepped() == step
    machine.busy = False
    machine.live(5)
    assert machine.clock.now() == START + 35 * SECOND + step
    assert machine.clock.stepped() == 0


def test_a_clock_that_nobody_sets_is_never_touched() -> None:
    machine = Machine()
    machine.busy = False
    for _ in range(100):
        machine.live(60)
    assert machine.clock.now() == START + 6000 * SECOND
