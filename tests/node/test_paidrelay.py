"""When a relay is paid for, and when no more: what must happen, and that no budget is passed by more than a look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.identity import LeaseId
from dockage.domain.pricing import PRESETS, Tariff
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Instant, Msat, Sat, msat
from dockage.node.paidrelay import (
    AGAIN_MAX,
    DAY,
    DEAF,
    DEAF_BYTES,
    FREE,
    NO_BUDGET,
    SPENT,
    Effect,
    End,
    Event,
    Looked,
    NotRented,
    PaidRelay,
    Rent,
    Rented,
    Spending,
    is_affordable,
    spend,
    step,
)

ONE, TWO = LeaseId(b"1" * 16), LeaseId(b"2" * 16)
LACKS, HAS = Looked(has_free=False, uses_free=False), Looked(has_free=True, uses_free=True)
GONE = Reason("lease.ended", "it is over")
BEGIN = 1_000_000 * DAY


def play(state: PaidRelay, *events: Event, at: int = 0, apart: int = 1) -> tuple[PaidRelay, list[Effect]]:
    """An event each *apart* seconds."""
    done: list[Effect] = []
    for number, event in enumerate(events):
        state, effects = step(state, event, Instant(BEGIN + (at + number * apart) * SECOND))
        done += effects
    return state, done


def renting(budget: int = 1_000) -> PaidRelay:
    state, _ = play(PaidRelay(Sat(budget)), *[LACKS] * 6, Rented(ONE))
    return state


def test_one_is_rented_once_no_free_one_has_answered_for_a_while() -> None:
    state, done = play(PaidRelay(Sat(10)), *[LACKS] * 5)
    assert done == []
    _, done = play(state, LACKS, at=5)
    assert done == [Rent()]


def test_a_free_one_in_between_begins_the_wait_anew() -> None:
    _, done = play(PaidRelay(Sat(10)), *[LACKS] * 4, HAS, *[LACKS] * 5)
    assert done == []


def test_without_a_budget_none_is_rented_and_it_is_said_why_until_a_free_one_is_there() -> None:
    state, done = play(PaidRelay(), *[LACKS] * 20)
    assert (done, state.trouble) == ([], NO_BUDGET)
    assert play(state, HAS, at=20)[0].trouble is None


def test_what_failed_is_tried_again_ever_more_seldom() -> None:
    state, done = play(PaidRelay(Sat(10)), *[LACKS] * 6)
    for number in range(1, 12):
        state, _ = play(state, NotRented(GONE), at=number * 1000)
        assert state.trouble == GONE
        pause = min(AGAIN_MAX // SECOND, 5 << (number - 1))
        assert play(state, LACKS, at=number * 1000 + pause - 1)[1] == []
        state, done = play(state, LACKS, at=number * 1000 + pause)
        assert done == [Rent()]


def test_it_is_given_back_for_a_free_one() -> None:
    state, done = play(renting(), HAS, at=10)
    assert done == [End(ONE, FREE)]
    assert state.lease is None


def test_a_lease_that_ended_is_followed_by_another() -> None:
    state, done = play(renting(), replace(LACKS, ended=GONE), at=10)
    assert done == [End(ONE, GONE, failed=True)]
    assert play(state, LACKS, at=15)[1] == [Rent()]


def test_the_day_s_budget_ends_it_and_the_next_day_is_another() -> None:
    state, done = play(renting(10), replace(LACKS, due=Msat(9_999)), at=10)
    assert done == []
    state, done = play(state, replace(LACKS, due=Msat(10_001)), at=11)
    assert done == [End(ONE, SPENT)]
    state, done = play(state, *[replace(LACKS, due=Msat(10_500))] * 10, at=12)
    assert (done, state.trouble) == ([], SPENT)
    assert state.spending.spent == 10_500, "what was still stated after the end counts, too"
    assert play(state, LACKS, at=DAY // SECOND)[1] == [Rent()]


def test_one_that_takes_and_brings_nothing_is_left() -> None:
    sent = replace(LACKS, sent=DEAF_BYTES, received=0)
    state, done = play(renting(), sent, at=14)
    assert done == []
    _, done = play(state, sent, at=30)
    assert done == [End(ONE, DEAF, failed=True)]


def test_one_that_brings_something_is_not_deaf() -> None:
    looks = [replace(LACKS, sent=n * DEAF_BYTES, received=n) for n in range(60)]
    assert play(renting(), *looks, at=10)[1] == []


def test_a_quiet_one_is_not_deaf() -> None:
    assert play(renting(), *[replace(LACKS, sent=1000)] * 1000, at=10)[1] == []


@given(
    st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 10_000), st.integers(0, 3)), max_size=50)
)
def test_no_msat_is_counted_twice_or_forgotten_within_a_day(bills: list[tuple[LeaseId, int, int]]) -> None:
    """Leases follow each other; each one's due only grows."""
    spent, day, state, total, last = 0, 0, Spending(), {ONE: 0, TWO: 0}, ONE
    for lease, more, days in bills:
        if lease != last:
            total[lease], last = 0, lease  # another lease, whose bill begins at nothing
        spent, day = (0 if days else spent) + more, day + days
        total[lease] += more
        state = spend(state, lease, Msat(total[lease]), Instant(BEGIN + day * DAY))
        assert state.spent == spent


@given(st.integers(1, 1000), st.lists(st.integers(0, 500), max_size=50))
def test_the_budget_is_never_passed_by_more_than_a_look(budget: int, looks: list[int]) -> None:
    state, due = renting(budget), 0
    for number, more in enumerate(looks):
        due += more
        state, done = play(state, replace(LACKS, due=Msat(due)), at=10 + number)
        if done:
            assert due - more < msat(Sat(budget)) <= due
            break
    else:
        assert due < msat(Sat(budget))


def test_a_price_at_which_a_lie_within_the_allowance_would_cost_much_is_not_paid() -> None:
    """64 MiB may be stated that were never carried, and a place that keeps nothing may be charged by the hour."""
    fair = PRESETS["fair"].net_out_gib
    assert is_affordable(Tariff(net_in_gib=fair, net_out_gib=fair), Sat(10))
    assert is_affordable(Tariff(net_in_gib=1_024_000), Sat(128))
    for line in ("net_in_gib", "net_out_gib", "cpu_reserved_hour", "memory_reserved_gib_hour"):
        assert not is_affordable(Tariff(**{line: 10**9}), Sat(300)), line
