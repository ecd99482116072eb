"""Token buckets, and the memory of who came how often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.wire.bucket import Bucket
from dockage.wire.sources import Rates, source_of


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 50)), max_size=60))
def test_never_more_than_the_rate_and_one_burst(steps: list[tuple[float, int]]) -> None:
    bucket, now, had = Bucket(10, 20, 0), 0.0, 0
    for pause, amount in steps:
        now += pause
        had += amount if bucket.spend(now, amount) else 0
    assert had <= 20 + 10 * now + 1e-6


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_who_waits_out_its_debt_keeps_to_the_rate(amounts: list[int]) -> None:
    bucket, now = Bucket(10, 20, 0), 0.0
    for amount in amounts:
        now += bucket.owe(now, amount)
    assert now == pytest.approx(max(0.0, (sum(amounts) - 20) / 10), abs=1e-6)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, 10, 100)
    assert bucket.spend(100, 10)
    assert not bucket.spend(50)
    assert not bucket.spend(100)


def test_what_is_kept_is_kept() -> None:
    bucket = Bucket(1, 4, 0)
    assert [bucket.spend(0, keep=2) for _ in range(3)] == [True, True, False]
    assert [bucket.spend(0) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "[2001:db8::ffff:1]", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_a_source_is_what_one_customer_gets(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


def test_sources_do_not_share_a_rate_and_are_not_remembered_without_end() -> None:
    rates = Rates(1, 1, 2)
    assert [rates.spend(x, 0) for x in ("a", "a", "b", "c")] == [True, False, True, True]
    assert rates.spend("a", 0), "forgotten for c"
    assert not rates.spend("c", 0)
