"""Credit on unconfirmed funding: earned by what was really paid, gone with the first funding that was lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.channel import Channel, ChannelState, SpendingTx, Terms
from dockage.domain.credit import SHARE, credit
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat

TERMS = Terms(b"\2" * 33, b"\3" * 33, 3000, Sat(100_000), b"\x51\x20" + bytes(32))
OURS = SpendingTx("cc" * 32, b"close", Sat(204))


def channel(state: str, paid: int, settled: str = OURS.txid) -> Channel:
    blank = Channel(ChannelId(b"c" * 16), NodeKey(b"p" * 32), TERMS, ChannelState(state))
    return replace(blank, paid=Sat(paid), spending=(OURS,), settled_txid=settled)


def test_a_stranger_gets_what_the_provider_chose_and_a_history_a_tenth_of_it_more() -> None:
    assert credit([], Sat(0), Sat(1_000)) == 0
    assert credit([], Sat(50), Sat(1_000)) == 50
    assert credit([channel("closed", 4_009)], Sat(50), Sat(1_000)) == 450
    assert credit([channel("closed", 4_000), channel("closed", 3_000)], Sat(0), Sat(1_000)) == 700


def test_it_is_capped_by_the_providers_policy() -> None:
    rich = [channel("closed", 90_000)]
    assert credit(rich, Sat(0), Sat(1_000)) == 1_000
    assert credit(rich, Sat(2_000), Sat(1_000)) == 2_000
    assert credit(rich, Sat(0), Sat(0)) == 0


@pytest.mark.parametrize("state", ["opening", "funded", "open", "closing", "expired", "refunding"])
def test_only_what_the_chain_has_buried_counts(state: str) -> None:
    assert credit([channel(state, 90_000)], Sat(0), Sat(1_000)) == 0


def test_what_the_tenant_took_back_was_not_paid() -> None:
    assert credit([channel("closed", 90_000, settled="ee" * 32)], Sat(0), Sat(1_000)) == 0


def test_what_went_back_because_it_was_not_worth_a_close_was_not_earned() -> None:
    """Else paying a little and asking for it back would build a history for nothing."""
    returned = replace(channel("closed", 400), spending=(replace(OURS, given_back=True),))
    assert credit([returned] * 10, Sat(0), Sat(1_000)) == 0


def test_a_funding_that_was_lost_under_payments_ends_it() -> None:
    history = [channel("closed", 90_000), channel("abandoned", 1)]
    assert credit(history, Sat(50), Sat(1_000)) == 0
    assert credit([channel("closed", 90_000), channel("abandoned", 0)], Sat(50), Sat(1_000)) == 1_000


@given(
    st.lists(st.builds(channel, st.sampled_from(list(ChannelState)), st.integers(0, 10**8))),
    st.integers(0, 10**4),
    st.integers(0, 10**6),
)
def test_who_runs_away_with_it_has_paid_ten_times_as_much(
    history: list[Channel], first: int, most: int
) -> None:
    lent = credit(history, Sat(first), Sat(most))
    assert type(lent) is int
    assert 0 <= lent <= max(first, most)
    paid = sum(c.paid for c in history if c.state is ChannelState.CLOSED)
    assert (lent - first) * SHARE <= paid
