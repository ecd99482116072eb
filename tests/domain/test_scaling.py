"""As many replicas as the load needs, and no see-saw."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.scaling import Load, Scaler, Scaling, needed, step
from dockage.domain.units import MINUTE, SECOND, Duration, Instant

BY_REQUESTS = Scaling(least=1, most=10, requests=10)
BY_CPU = Scaling(least=1, most=10, cpu_percent=50)
NOW = Instant(1_000 * SECOND)


def flown(scaling: Scaling, loads: list[tuple[int, int]], ready: int = 1) -> list[int]:
    """What is wanted after each (seconds that pass, requests in flight); all that is wanted comes at once."""
    scaler, now, found = Scaler(), NOW, list[int]()
    for seconds, in_flight in loads:
        now = Instant(now + seconds * SECOND)
        scaler, ready = step(scaler, scaling, Load(in_flight=in_flight), ready, now)
        found.append(ready)
    return found


def test_each_replica_gets_its_share_of_the_requests() -> None:
    assert needed(BY_REQUESTS, Load(in_flight=31), 3) == 3, "within a tenth"
    assert needed(BY_REQUESTS, Load(in_flight=40), 3) == 4
    assert needed(BY_REQUESTS, Load(in_flight=0), 3) == 0


def test_each_replica_gets_its_share_of_the_work() -> None:
    assert needed(BY_CPU, Load(cpu_milli=2000, cpu_milli_each=1000), 2) == 4
    assert needed(BY_CPU, Load(cpu_milli=1000, cpu_milli_each=1000), 2) == 2


def test_the_greater_of_two_needs_counts() -> None:
    both = Scaling(least=1, most=10, cpu_percent=50, requests=10)
    assert needed(both, Load(cpu_milli=500, cpu_milli_each=1000, in_flight=50), 2) == 5


def test_without_a_measure_nothing_changes() -> None:
    assert needed(BY_CPU, Load(), 3) == 3


def test_it_at_most_doubles_in_half_a_minute() -> None:
    assert flown(BY_REQUESTS, [(1, 90), (1, 90), (40, 90), (40, 90)]) == [2, 2, 4, 8]


def test_it_shrinks_to_the_most_that_was_wanted_in_the_last_minutes() -> None:
    assert flown(BY_REQUESTS, [(1, 50), (60, 20), (60, 20), (200, 20)], ready=5) == [5, 5, 5, 2]


def test_it_sleeps_only_after_a_while_without_any_request() -> None:
    lazy = Scaling(least=0, most=3, requests=10, down_after=Duration(2 * MINUTE))
    assert flown(lazy, [(1, 5), (60, 0), (61, 0)]) == [1, 1, 0]
    assert flown(lazy, [(1, 1)], ready=0) == [1], "and wakes at once"


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 10_000)), max_size=30),
    st.integers(0, 3),
    st.integers(0, 20),
)
def test_it_stays_between_the_two(loads: list[tuple[int, int]], least: int, more: int) -> None:
    scaling = Scaling(least=least, most=least + more, requests=10)
    for count in flown(scaling, loads, ready=least):
        assert least <= count <= least + more
