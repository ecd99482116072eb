"""Closing is waited for as long as somebody still has to sign; stopping the waiting stops nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from dockage.cli import closing
from dockage.cli.closing import Outcome, outcome, sentence, wait

ROW = {
    "channel": "3fa2c1" + "0" * 26,
    "role": "paying",
    "state": "open",
    "reason": None,
    "settled": False,
    "closing_txid": "",
    "signed_by_both": False,
    "expiry_blocks": 500,
}
TXID = "ab" * 32
BOTH = ROW | {"state": "closing", "closing_txid": TXID, "signed_by_both": True}
EARNING = ROW | {"role": "earning"}


class Told:
    """A session whose daemon answers with one list of channels after the other, the last one for ever."""

    def __init__(self, *answers: list[Any]) -> None:
        self.client, self.answers, self.said = self, list(answers), list[str]()

    def get(self, _: str) -> Any:
        rows = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(rows, BaseException):
            raise rows
        return {"channels": rows}

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    passed = [0.0]
    monkeypatch.setattr(closing.time, "sleep", lambda seconds: passed.append(passed.pop() + seconds))
    return passed


def waited(told: Any, clock: list[float], *asked: Any, seconds: float = 30) -> Any:
    return wait(told, list(asked), seconds, lambda: clock[0])


def test_it_waits_until_every_close_is_signed(clock: list[float]) -> None:
    other = ROW | {"channel": "00" * 16}
    told = Told([ROW, other], [BOTH, other], [BOTH, other], [BOTH, other | {"state": "abandoned"}])
    assert [outcome(row) for row in waited(told, clock, ROW, other)] == [Outcome.BOTH, Outcome.UNFUNDED]
    assert [line.split(" (")[0] for line in told.said] == [
        "waiting for the signatures of 2 closes",
        "waiting for the signatures of 1 close",
    ]


def test_a_silent_provider_is_waited_for_until_the_limit_and_what_comes_then_is_said(
    clock: list[float],
) -> None:
    (row,) = waited(Told([ROW]), clock, ROW, seconds=7)
    assert clock[0] == 7
    assert "has not answered yet" in sentence(row)
    assert "in 500 blocks all of it comes back" in sentence(row)


def test_ctrl_c_says_that_the_close_goes_on(clock: list[float]) -> None:
    told = Told([ROW], KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        waited(told, clock, ROW)
    assert "goes on without this command" in told.said[-1]


def test_a_channel_with_the_same_id_in_the_other_role_is_another_one(clock: list[float]) -> None:
    assert waited(Told([BOTH, EARNING]), clock, BOTH) == [BOTH]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (BOTH, f"signed by both, on its way to the chain as {TXID}"),
        (EARNING | {"closing_txid": TXID}, "signed by us alone"),
        (ROW | {"settled": True, "closing_txid": TXID}, f"closed by {TXID}"),
        (ROW | {"state": "abandoned"}, "never funded"),
        (
            EARNING | {"reason": {"code": "channel.nothing-paid", "text": "nothing was paid"}},
            "not signed yet (nothing was paid",
        ),
    ],
)
def test_every_outcome_has_its_sentence(row: Any, said: str) -> None:
    assert said in sentence(row)
