"""Where we are, by what others say, and the choice among relays: what must happen, and what lies must not do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Duration, Instant
from dockage.node.whereabouts import (
    RELAYS_MAX,
    SIGHTING_LASTS,
    Advertise,
    Effect,
    Event,
    Leased,
    LeaveRelay,
    Observed,
    Probed,
    UseRelay,
    Whereabouts,
    Withdraw,
    begin,
    due,
    is_plausible,
    step,
)

A, B, C = (NodeKey(bytes([n]) * 32) for n in (1, 2, 3))
HOME, OTHER, THIRD = "203.0.113.1:4800", "203.0.113.1:5000", "203.0.113.1:6000"
R1, R2, R3 = (f"http://198.51.100.{n}:3340/" for n in (1, 2, 3))
NEAR, FAR = Duration(SECOND // 100), Duration(SECOND // 10)


def play(
    state: Whereabouts, *events: Event, at: float = 0, apart: float = 0
) -> tuple[Whereabouts, list[Effect]]:
    done: list[Effect] = []
    for number, event in enumerate(events):
        state, effects = step(state, event, Instant(round((at + number * apart) * SECOND)))
        done += effects
    return state, done


def fresh() -> Whereabouts:
    return begin((), takes_told=True)


# -- the address ---------------------------------------------------------------------------------------
def test_what_one_sees_is_advertised_once() -> None:
    _, done = play(fresh(), Observed(A, HOME), Observed(A, HOME), Observed(B, HOME))
    assert done == [Advertise(HOME)]


def test_a_nat_with_an_address_for_each_is_worth_no_advertisement() -> None:
    state, done = play(fresh(), Observed(A, HOME), Observed(B, OTHER), Observed(C, THIRD))
    assert done == [Advertise(HOME), Withdraw(HOME)]
    assert state.advertised == ""


def test_one_liar_among_three_changes_nothing() -> None:
    state, _ = play(fresh(), Observed(A, HOME), Observed(B, HOME), Observed(C, THIRD))
    assert state.advertised == HOME


def test_when_our_address_changes_the_new_one_comes_before_the_old_one_goes() -> None:
    state, _ = play(fresh(), Observed(A, HOME), Observed(B, HOME))
    state, done = play(state, Observed(A, OTHER), Observed(B, OTHER), at=20)
    assert done == [Withdraw(HOME), Advertise(OTHER)]
    state, done = play(fresh(), Observed(A, HOME), Observed(A, OTHER))
    assert done == [Advertise(HOME), Advertise(OTHER), Withdraw(HOME)]


def test_what_nobody_says_any_more_is_forgotten() -> None:
    state, _ = play(fresh(), Observed(A, HOME), Observed(B, HOME))
    state, done = play(state, Observed(C, OTHER), at=SIGHTING_LASTS / SECOND + 1)
    assert state.advertised == OTHER
    assert done == [Advertise(OTHER), Withdraw(HOME)]


def test_who_is_relayed_itself_has_no_vote() -> None:
    state, _ = play(fresh(), Observed(A, HOME), Observed(B, ""), Observed(C, ""))
    assert state.advertised == HOME


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:1",
        "[::1]:1",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "169.254.1.1:1",
        "1.2.3.4",
        "x:1",
        "1.2.3.4:0",
        "",
    ],
)
def test_an_address_that_nobody_could_reach_is_a_lie(text: str) -> None:
    assert not is_plausible(text)
    assert play(fresh(), Observed(A, text))[1] == []


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.sampled_from([HOME, OTHER, "", "nonsense"])), max_size=30
    )
)
def test_advertised_is_always_exactly_what_was_not_withdrawn(said: list[tuple[NodeKey, str]]) -> None:
    state, done = play(fresh(), *(Observed(by, where) for by, where in said), apart=30)
    standing: set[str] = set()
    for effect in done:
        if isinstance(effect, Advertise):
            assert effect.address not in standing
            standing.add(effect.address)
        elif isinstance(effect, Withdraw):
            standing.remove(effect.address)
    assert standing == ({state.advertised} if state.advertised else set())


# -- the relay -----------------------------------------------------------------------------------------
def test_the_first_relay_that_answers_is_used_and_kept() -> None:
    state, done = play(begin((R1, R2), True), Probed(R1, FAR), Probed(R2, NEAR), Probed(R1, FAR))
    assert done == [UseRelay(R1)]
    assert state.relay == R1


def test_a_relay_that_dies_is_left_for_the_nearest_other_and_one_lost_probe_is_no_death() -> None:
    state, _ = play(begin((R1, R2, R3), True), Probed(R1, NEAR), Probed(R2, FAR), Probed(R3, NEAR))
    state, done = play(state, Probed(R1, None), Probed(R1, NEAR), Probed(R1, None))
    assert done == []
    state, done = play(state, Probed(R1, None))
    assert done == [UseRelay(R3), LeaveRelay(R1)]
    assert play(state, Probed(R1, NEAR))[1] == [], "we stay with what works"


def test_without_another_the_dead_one_is_kept_and_taken_anew_when_it_answers() -> None:
    state, _ = play(begin((R1, R2), True), Probed(R1, NEAR), Probed(R2, None))
    state, done = play(state, Probed(R1, None), Probed(R1, None), Probed(R1, None))
    assert done == []
    state, done = play(state, Probed(R1, NEAR))
    assert done == [LeaveRelay(R1), UseRelay(R1)]


def test_if_all_are_dead_the_first_to_come_back_is_used() -> None:
    state, _ = play(begin((R1, R2), True), Probed(R1, NEAR), *[Probed(R1, None)] * 2, *[Probed(R2, None)] * 2)
    assert play(state, Probed(R2, NEAR))[1] == [UseRelay(R2), LeaveRelay(R1)]


def test_relays_of_those_we_ask_are_used_only_where_our_user_named_none() -> None:
    told = Observed(A, HOME, R2)
    state, _ = play(begin((R1,), True), told)
    assert set(state.relays) == {R1}
    state, _ = play(begin((), False), told)
    assert not state.relays
    state, done = play(fresh(), told, Probed(R2, NEAR))
    assert done == [Advertise(HOME), UseRelay(R2)]


def test_the_relay_in_use_stays_while_it_lives_whoever_is_silent_about_it() -> None:
    state, _ = play(fresh(), Observed(A, HOME, R1), Probed(R1, NEAR))
    state, _ = play(state, Observed(A, HOME, ""), Observed(B, HOME, R2))
    assert set(state.relays) == {R1, R2}
    assert state.relay == R1


def test_relays_told_are_bounded() -> None:
    events = [Observed(NodeKey(bytes([n]) * 32), HOME, f"http://198.51.100.{n}:1/") for n in range(1, 60)]
    state, _ = play(fresh(), *events)
    assert len(state.relays) <= RELAYS_MAX
    assert len(state.sightings) <= 8
    assert len(begin(tuple(f"http://198.51.100.{n}:1" for n in range(60)), True).relays) == RELAYS_MAX


def test_an_answer_of_a_relay_that_is_forgotten_is_nothing() -> None:
    assert play(fresh(), Probed(R1, NEAR)) == (fresh(), [])


def test_a_dead_relay_is_left_three_seconds_after_its_death() -> None:
    """With a second for each probe, as ``adapters/relay/probe.py`` has it."""
    state, now, left = begin((R1, R2), True), 100.0, None
    death = 120.3
    while left is None:
        for url in due(state, Instant(round(now * SECOND))):
            dead = url == R1 and now >= death
            asked = now
            state, effects = step(state, Probed(url, None if dead else NEAR), Instant(round(asked * SECOND)))
            if LeaveRelay(R1) in effects:
                left = asked + 1
        now += 0.2
    assert 0 < left - death <= 3.01


def test_others_are_asked_seldom_unless_ours_falters() -> None:
    state, _ = play(begin((R1, R2), True), Probed(R1, NEAR), Probed(R2, NEAR), at=100)
    assert due(state, Instant(102 * SECOND)) == (R1,)
    assert due(state, Instant(116 * SECOND)) == (R1, R2)
    state, _ = play(state, Probed(R1, None), at=102)
    assert due(state, Instant(103 * SECOND)) == (R1, R2)


LOOKS = st.builds(Probed, st.sampled_from([R1, R2, R3]), st.sampled_from([NEAR, FAR, None]))
LEASES = st.builds(Leased, st.sampled_from([R1, R3, ""]))


@given(st.lists(LOOKS | LEASES, max_size=40), st.sampled_from([(R1, R2, R3), (R1, R2)]), st.integers(1, 40))
def test_one_relay_is_used_at_a_time(said: list[Event], named: tuple[str, ...], apart: int) -> None:
    state, done = play(begin(named, True), *said, apart=apart)
    assert state.relay in (*state.relays, "")
    used: set[str] = set()
    for effect in done:
        if isinstance(effect, UseRelay):
            used.add(effect.url)
        elif isinstance(effect, LeaveRelay):
            used.discard(effect.url)
    assert used == ({state.relay} if state.relay else set())


# -- a relay that is paid ------------------------------------------------------------------------------
def test_a_paid_relay_is_used_while_no_free_one_answers() -> None:
    state, done = play(begin((R1,), takes_told=False), Probed(R1, None), Leased(R2), Probed(R2, FAR))
    assert (state.relay, done) == (R2, [UseRelay(R2)])
    assert not state.has_free


def test_a_free_one_that_is_far_comes_before_a_paid_one_that_is_near() -> None:
    state, done = play(begin((R1,), takes_told=False), Leased(R2), Probed(R1, FAR), Probed(R2, NEAR))
    assert (state.relay, done) == (R1, [UseRelay(R1)])


def test_a_free_one_takes_its_place_once_it_has_answered_for_a_minute() -> None:
    state, _ = play(begin((R1,), takes_told=False), Leased(R2), Probed(R2, NEAR))
    state, done = play(state, *[Probed(R1, FAR)] * 4, at=10, apart=15)
    assert (state.relay, done) == (R2, [])
    state, done = play(state, Probed(R1, None), Probed(R1, FAR), at=69, apart=1)
    assert done == [], "it was silent meanwhile"
    state, done = play(state, Probed(R1, FAR), at=131)
    assert (state.relay, done) == (R1, [UseRelay(R1), LeaveRelay(R2)])


def test_what_is_paid_no_more_is_left_at_once() -> None:
    state, _ = play(begin((R1,), takes_told=False), Leased(R2), Probed(R2, NEAR))
    state, done = play(state, Leased(""))
    assert (state.relay, state.leased, list(state.relays), done) == ("", "", [R1], [LeaveRelay(R2)])
    assert play(state, Probed(R2, NEAR))[1] == [], "a late answer of it is nobody's"


def test_one_that_our_user_named_stays_named_when_its_lease_ends() -> None:
    state, _ = play(begin((R1,), takes_told=False), Leased(R1), Probed(R1, NEAR), Leased(""))
    assert list(state.relays) == [R1]


def test_a_paid_relay_is_not_forgotten_for_what_observers_tell() -> None:
    state, _ = play(fresh(), Leased(R3), Observed(A, HOME, R1), Observed(B, HOME, R2))
    assert set(state.relays) == {R1, R2, R3}
