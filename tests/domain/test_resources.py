"""Three numbers: what fits, what lacks, what is nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.resources import NAMES, Resources

numbers = st.integers(0, 1 << 50)
resources = st.builds(Resources, numbers, numbers, numbers)
limits = st.builds(Resources.reserving, resources, numbers, numbers)
"""With a soft part."""


@given(resources, resources)
def test_adding_and_taking_away_are_inverse(one: Resources, other: Resources) -> None:
    assert one + other - other == one
    assert other.fits_in(one + other)


@given(resources, resources)
def test_it_fits_where_nothing_lacks(one: Resources, room: Resources) -> None:
    lacking = one.lacking(room)
    assert one.fits_in(room) is not bool(lacking)
    for name in NAMES:
        assert (name in lacking) is (getattr(one, name) > getattr(room, name))


@given(resources, numbers, numbers)
def test_what_is_reserved_is_never_more_than_the_limits(one: Resources, cpu: int, memory: int) -> None:
    kept = one.reserving(cpu, memory).reserved
    assert kept.cpu_milli == min(cpu, one.cpu_milli)
    assert kept.memory_bytes == min(memory, one.memory_bytes)
    assert kept.disk_bytes == one.disk_bytes


def test_without_a_word_all_of_the_limits_is_reserved() -> None:
    assert Resources(1000, 2, 3).reserved == Resources(1000, 2, 3)


@given(limits, limits)
def test_what_covers_two_is_as_large_and_has_as_much_reserved_as_either(
    one: Resources, other: Resources
) -> None:
    both = one.covering(other)
    for of in (one, other):
        assert of.fits_in(both)
        assert of.reserved.fits_in(both.reserved)
    assert both == other.covering(one)
    assert both.covering(one) == both
    assert one + (both - one) == both


@given(limits, st.integers(0, 9))
def test_several_are_a_sum(one: Resources, count: int) -> None:
    assert one * count == sum([one] * count, Resources())


@pytest.mark.parametrize(
    ("some", "sane"),
    [
        (Resources(), True),
        (Resources(1_000_000, 1 << 50, 1 << 60), True),
        (Resources(1_000_001), False),
        (Resources(memory_bytes=(1 << 50) + 1), False),
        (Resources(disk_bytes=(1 << 60) + 1), False),
        (Resources(-1), False),
        (Resources(1000, 2, 3, 1000, 2), True),
        (Resources(1000, cpu_soft_milli=1001), False),
        (Resources(1000, cpu_soft_milli=-1), False),
        (Resources(0, 2, memory_soft_bytes=3), False),
        (Resources(0, 2, memory_soft_bytes=-1), False),
        (Resources(memory_bytes=-1), False),
        (Resources(disk_bytes=-1), False),
    ],
)
def test_nonsense_is_recognised(some: Resources, sane: bool) -> None:
    assert some.is_sane is sane
