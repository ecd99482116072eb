# ruff: noqa: F403, F405
"""The playbook itself: a script that is wrong, short, long or forgotten is noticed."""

from __future__ import annotations

import gc

import pytest

from dockage.domain.lease import LeaseState
from dockage.testing.playbook import Playbook, Refused
from node.parts import *

ASKS = says(say.AskQuote(LEASE, LIMITS))


@pytest.mark.parametrize(
    "script",
    [
        lambda: Playbook(provider()) >> ASKS,
        lambda: Playbook(provider()) >> ASKS << refusal(LEASE, "provider.full"),
        lambda: Playbook(provider()) >> ASKS << want.Send(TENANT, quote()) << want.Finish(LEASE),
        lambda: Playbook(provider()) << want.Finish(LEASE),
        lambda: Playbook(provider()) >> says(say.AskLease(LEASE)) << Refused("lease.other"),
        lambda: Playbook(serving()) >> says(say.AskLease(LEASE)) << told_of(LEASE, LeaseState.ENDED),
    ],
)
def test_a_play_that_goes_differently_is_noticed(script: Any) -> None:
    with pytest.raises(AssertionError, match="the play went differently"):
        bool(script())


def test_the_difference_is_shown_and_what_fits_is_not() -> None:
    with pytest.raises(AssertionError) as caught:
        bool(
            Playbook(provider())
            >> ASKS
            << Like(want.Send, to=TENANT)
            >> says(say.AskLease(LEASE))
            << Refused("lease.other")
        )
    lines = str(caught.value).splitlines()
    assert [line for line in lines if line.startswith("- ")] == ["- << Refused('lease.other')"]
    assert [line for line in lines if line.startswith("+ ")] == ["+ << Refused('lease.unknown')"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_assert_complains(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: complaints.append(str(args.exc_value)))
    Playbook(provider()) >> ASKS
    gc.collect()
    assert len(complaints) == 1
    assert "nobody asserted" in complaints[0]
