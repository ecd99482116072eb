"""The states of a lease: all in the table, all with a way out, and no way back from the end."""

from __future__ import annotations

import pytest

from dockage.domain.lease import METERED, TRANSITIONS, LeaseState, check_move


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(LeaseState)


@pytest.mark.parametrize("state", list(LeaseState))
def test_from_every_state_the_end_is_reached(state: LeaseState) -> None:
    seen, front = {state}, [state]
    while front:
        new = TRANSITIONS[front.pop()] - seen
        seen |= new
        front += new
    assert LeaseState.ENDED in seen


def test_nothing_comes_after_the_end_and_an_ending_lease_only_ends() -> None:
    assert not TRANSITIONS[LeaseState.ENDED]
    assert TRANSITIONS[LeaseState.ENDING] == {LeaseState.ENDED}


def test_metered_states_are_those_in_which_containers_exist() -> None:
    assert METERED == {LeaseState.RUNNING, LeaseState.PAUSED}


@pytest.mark.parametrize("one", list(LeaseState))
@pytest.mark.parametrize("other", list(LeaseState))
def test_only_moves_of_the_table_are_made(one: LeaseState, other: LeaseState) -> None:
    if one is other or other in TRANSITIONS[one]:
        assert check_move(one, other) is other
    else:
        with pytest.raises(AssertionError):
            check_move(one, other)
