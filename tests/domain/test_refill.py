"""When a successor is opened: early enough for its confirmations, and not over and over."""

from __future__ import annotations

from math import exp, factorial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.refill import BLOCK, REFILL_BEFORE_EXPIRY, floor, lead, needs_successor
from dockage.domain.units import HOUR, MINUTE, Instant, Msat, Sat

TERMS = Terms(b"\2" * 33, b"\3" * 33, 3000, Sat(100_330), b"\x51\x20" + bytes(32))
PACE = Msat(1_000_000)
"""A thousand satoshis an hour."""


def channel(left: int = 100_000, **fields: Any) -> Channel:
    blank = Channel(
        ChannelId(b"c" * 16), NodeKey(b"p" * 32), TERMS, ChannelState.OPEN, paid=Sat(100_000 - left)
    )
    return replace(blank, **fields)


@pytest.mark.parametrize("needed", [1, 3, 6])
def test_the_lead_is_enough_but_for_three_times_in_a_thousand(needed: int) -> None:
    blocks = lead(needed) / BLOCK
    late = sum(exp(-blocks) * blocks**k / factorial(k) for k in range(needed))
    assert 0.0005 < late < 0.003
    assert lead(1) == HOUR


def test_the_floor_is_what_is_used_until_the_successor_confirms_less_the_credit() -> None:
    assert floor(PACE, 1, Sat(0)) == 1000
    assert floor(PACE, 3, Sat(0)) == 1667
    assert floor(PACE, 1, Sat(400)) == 600
    assert floor(PACE, 1, Sat(5000)) == 34  # two minutes to agree on it, whatever the credit
    assert floor(Msat(1), 1, Sat(0)) == 1


def test_a_channel_is_refilled_at_its_floor_and_not_before() -> None:
    assert not needs_successor([channel(1001)], 0, PACE, Sat(0))
    assert needs_successor([channel(1000)], 0, PACE, Sat(0))
    assert needs_successor([channel(0)], 0, PACE, Sat(0))


def test_a_channel_too_small_for_the_rate_is_refilled_at_half() -> None:
    fast = Msat(PACE * 1000)
    assert not needs_successor([channel(50_001)], 0, fast, Sat(0))
    assert needs_successor([channel(50_000)], 0, fast, Sat(0))


def test_it_is_refilled_half_a_day_before_its_leases_would_end() -> None:
    assert not needs_successor([channel()], 3000 - REFILL_BEFORE_EXPIRY - 1, PACE, Sat(0))
    assert needs_successor([channel()], 3000 - REFILL_BEFORE_EXPIRY, PACE, Sat(0))


@pytest.mark.parametrize("state", ["opening", "funded", "open"])
def test_one_successor_is_enough(state: str) -> None:
    other = channel(state=ChannelState(state))
    assert not needs_successor([channel(10), other], 0, PACE, Sat(0))


@pytest.mark.parametrize("fields", [{"state": ChannelState.CLOSING}, {"close_at": Instant(1)}])
def test_a_channel_that_is_being_closed_lasts_no_longer(fields: dict[str, Any]) -> None:
    assert needs_successor([channel(10), channel(**fields)], 0, PACE, Sat(0))
    assert needs_successor([], 0, PACE, Sat(0))


@given(st.integers(0, 100_000), st.integers(1, 10**10), st.integers(0, 10**6), st.sampled_from([1, 3, 6]))
def test_a_new_channel_as_large_as_the_old_one_never_wants_a_third(
    left: int, rate: int, credit: int, needed: int
) -> None:
    old, new = channel(left, needed=needed), channel(needed=needed)
    assert not needs_successor([new], 0, Msat(rate), Sat(credit))
    assert not needs_successor([old, new], 0, Msat(rate), Sat(credit))


@given(st.integers(1, 10**10), st.sampled_from([1, 3, 6]))
def test_what_is_left_lasts_until_the_confirmations_where_the_channel_is_large_enough(
    rate: int, needed: int
) -> None:
    left = floor(Msat(rate), needed, Sat(0))
    assert left * 1000 * HOUR >= rate * lead(needed)
    assert floor(Msat(rate), needed, Sat(10**9)) * 1000 * HOUR >= rate * 2 * MINUTE
