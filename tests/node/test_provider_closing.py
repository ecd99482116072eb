# ruff: noqa: F403, F405
"""A provider closes: together with the tenant if it answers at once, else alone, and many in one transaction."""

from __future__ import annotations

import pytest

from dockage.protocol.bitcoin.together import HOPELESS
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

CLOSING = told_of_channel(ChannelState.CLOSING)
SENT = told_of_channel(ChannelState.CLOSING, closing_txid=TOGETHER_TX.txid)
AGREED = told.CloseAgreed(CHANNEL, Sat(5), TOGETHER_TX)
TOGETHER = want.Broadcast(CHANNEL, b"together")
DECLINED = says(say.DeclineClose(CHANNEL, NONCE, WHY))
CLOSE = says(say.CloseChannel(CHANNEL))


def asking(*more: Any, paid: int = 5) -> ProviderMind:
    """The tenant was asked for its half at second 0."""
    return feed(channelled(), pays(paid), CLOSE, *more)


def with_two_channels() -> ProviderMind:
    return feed(
        channelled(),
        says(proposal(CHANNEL2), our_key=PROVIDER_KEY),
        says(say.AnnounceFunding(CHANNEL2, TXID, 2)),
        told.FundingSeen(CHANNEL2, 1),
        pays(5),
        pays(7, CHANNEL2),
    )


def test_both_close_and_it_is_kept_on_the_chain_until_it_is_buried() -> None:
    assert (
        Playbook(asking())
        >> AGREED
        << SENT
        << TOGETHER
        >> told.BlockSeen(HEIGHT + 1)
        << TOGETHER
        >> told.SpendSeen(CHANNEL, TOGETHER_TX.txid, 1)
        >> told.BlockSeen(HEIGHT + 2)
        << TOGETHER
        >> told.SpendSeen(CHANNEL, TOGETHER_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED, closing_txid=TOGETHER_TX.txid)
    )


def test_a_tenant_that_never_answers_is_waited_for_five_seconds() -> None:
    assert (
        Playbook(asking())
        >> Wait(4.9)
        >> told.Ticked()
        >> Wait(0.1)
        >> told.Ticked()
        << ALONE
        >> told.Ticked()
        >> told.SpendBuilt(CHANNEL, CLOSE_TX)
        << CLOSING
        << want.Broadcast(CHANNEL, b"close")
    )


def test_a_tenant_that_declines_is_not_waited_for() -> None:
    assert Playbook(asking(), restarts=False) >> DECLINED << ALONE >> DECLINED


def test_only_the_tenant_can_decline() -> None:
    stranger = says(say.DeclineClose(CHANNEL, NONCE, WHY), MALLORY)
    assert Playbook(asking()) >> stranger << Refused("channel.unknown")


def test_a_half_that_comes_after_the_close_alone_is_not_used() -> None:
    assert (
        Playbook(asking(), restarts=False)
        >> Wait(5)
        >> told.Ticked()
        << ALONE
        >> AGREED
        >> told.SpendBuilt(CHANNEL, CLOSE_TX)
        << CLOSING
        << want.Broadcast(CHANNEL, b"close")
        >> AGREED
    )


def test_a_close_for_another_amount_is_not_used() -> None:
    assert Playbook(asking()) >> told.CloseAgreed(CHANNEL, Sat(4), TOGETHER_TX)


def test_a_payment_that_overtakes_the_return_of_everything_is_not_lost() -> None:
    """Nothing was paid when the tenant was asked; its late payment voids what it then signs."""
    mind = feed(channelled(), CLOSE)
    assert Playbook(mind) >> pays(5) << CLOSING << ASK >> told.CloseAgreed(CHANNEL, Sat(0), TOGETHER_TX)
    assert mind.state.channels[CHANNEL].paid == 5


def test_a_close_that_does_not_confirm_is_asked_for_again_then_made_alone() -> None:
    assert (
        Playbook(asking(AGREED), restarts=False)
        >> told.BlockSeen(HEIGHT + 5)
        << TOGETHER
        >> told.BlockSeen(HEIGHT + 6)
        << TOGETHER
        << CLOSING
        << ASK
        >> told.BlockSeen(HEIGHT + 6)
        << TOGETHER
        >> Wait(5)
        >> told.Ticked()
        << ALONE
    )


def test_after_the_expiry_nobody_is_asked() -> None:
    mind = feed(channelled(), pays(5), told.BlockSeen(EXPIRY))
    assert mind.state.channels[CHANNEL].state is ChannelState.CLOSING
    assert Playbook(mind) >> Wait(5) >> told.Ticked() >> told.BlockSeen(EXPIRY + 1) << ALONE


@pytest.mark.parametrize(
    ("paid", "height", "gives"),
    [
        (HOPELESS - 1, HEIGHT, True),
        (HOPELESS, HEIGHT, False),
        (HOPELESS, EXPIRY - 145, False),
        (HOPELESS, EXPIRY - 144, True),
    ],
)
def test_what_may_still_be_worth_a_fee_is_not_given_back_before_the_end(
    paid: int, height: int, gives: bool
) -> None:
    mind = feed(channelled(), pays(paid), told.BlockSeen(height - 1))
    effects = mind.handle(told.CloseRequested(CHANNEL), START)
    if height == EXPIRY - 144:
        effects = mind.handle(told.BlockSeen(height), at(10))
    assert effects[-1] == want.ProposeClose(CHANNEL, give_back=gives)


def test_the_tenant_that_asks_again_gets_another_chance_but_not_before_the_first_is_over() -> None:
    assert (
        Playbook(asking(told.SpendFailed(CHANNEL, WHY)), restarts=False)
        >> CLOSE
        << CLOSING
        >> Wait(5)
        >> told.Ticked()
        << ALONE
        >> told.SpendFailed(CHANNEL, WHY)
        >> CLOSE
        << CLOSING
        << ASK
    )


def test_channels_that_are_due_at_one_moment_close_in_one_transaction() -> None:
    mind = feed(with_two_channels(), CLOSE, says(say.CloseChannel(CHANNEL2)))
    both = told.SpendBuilt(CHANNEL, CLOSE_TX, (CHANNEL2,))
    assert (
        Playbook(mind)
        >> Wait(5)
        >> told.Ticked()
        << want.Settle((CHANNEL, CHANNEL2))
        >> both
        << CLOSING
        << told_of_channel(ChannelState.CLOSING, CHANNEL2)
        << want.Broadcast(CHANNEL, b"close")
        >> told.BlockSeen(HEIGHT + 1)
        << want.Broadcast(CHANNEL, b"close")
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED)
        >> told.SpendSeen(CHANNEL2, CLOSE_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED, CHANNEL2)
    )


def test_a_reorganisation_that_takes_the_close_back_makes_it_wait_again() -> None:
    assert (
        Playbook(asking(AGREED, told.SpendSeen(CHANNEL, TOGETHER_TX.txid, 1)), restarts=False)
        >> told.BlockSeen(HEIGHT + 6)
        << TOGETHER
        >> told.SpendSeen(CHANNEL, TOGETHER_TX.txid, 0)
        >> told.BlockSeen(HEIGHT + 7)
        << TOGETHER
        << CLOSING
        << ASK
    )
