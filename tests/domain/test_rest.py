"""Sleeping: only when nobody asks, and every gateway says so."""

from __future__ import annotations

import pytest

from dockage.domain.rest import Asked, Rest, step
from dockage.domain.units import SECOND, Duration, Instant

AFTER = Duration(60 * SECOND)
QUIET = Asked(0, 7, wanted=False)


def sleeps(*seen: Asked | None) -> bool:
    """One look every 30 s; whether it may sleep at the last."""
    rest, found = Rest(), False
    for number, each in enumerate(seen):
        rest, found = step(rest, each, AFTER, Instant((1000 + 30 * number) * SECOND))
    return found


def test_it_sleeps_after_so_long_without_a_request() -> None:
    assert not sleeps(QUIET, QUIET)
    assert sleeps(QUIET, QUIET, QUIET)


@pytest.mark.parametrize(
    "disturbed",
    [
        Asked(1, 7, wanted=False),
        Asked(0, 8, wanted=False),
        Asked(0, 0, wanted=False),
        Asked(0, 7, wanted=True),
        None,
    ],
)
def test_whatever_may_be_a_request_keeps_it_awake(disturbed: Asked | None) -> None:
    assert not sleeps(QUIET, QUIET, disturbed, QUIET)
    assert not sleeps(disturbed)
