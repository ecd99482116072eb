"""Three numbers: what fits, what lacks, what is nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.resources import Resources

numbers = st.integers(0, 1 << 50)
resources = st.builds(Resources, numbers, numbers, numbers)


@given(resources, resources)
def test_adding_and_taking_away_are_inverse(one: Resources, other: Resources) -> None:
    assert one + other - other == one
    assert other.fits_in(one + other)


@given(resources, resources)
def test_it_fits_where_nothing_lacks(one: Resources, room: Resources) -> None:
    lacking = one.lacking(room)
    assert one.fits_in(room) is not bool(lacking)
    for name in Resources.__struct_fields__:
        assert (name in lacking) is (getattr(one, name) > getattr(room, name))


@pytest.mark.parametrize(
    ("some", "sane"),
    [
        (Resources(), True),
        (Resources(1_000_000, 1 << 50, 1 << 60), True),
        (Resources(1_000_001), False),
        (Resources(memory_bytes=(1 << 50) + 1), False),
        (Resources(disk_bytes=(1 << 60) + 1), False),
        (Resources(-1), False),
        (Resources(memory_bytes=-1), False),
        (Resources(disk_bytes=-1), False),
    ],
)
def test_nonsense_is_recognised(some: Resources, sane: bool) -> None:
    assert some.is_sane is sane
