# ruff: noqa: F403, F405
"""A tenant's half of a close: what it signs, what it declines, and that it pays nothing afterwards."""

from __future__ import annotations

import pytest

from dockage.domain.reason import Reason
from dockage.testing.playbook import Playbook, Refused
from node.parts import *


def proposed(paid: int = 5, peer: NodeKey = PROVIDER) -> told.Received:
    return from_provider(say.ProposeClose(CHANNEL, Sat(paid), SCRIPT, 1000, NONCE), peer)


def declined(code: str) -> Like:
    return Like(
        want.Send,
        to=PROVIDER,
        message=Like(say.DeclineClose, channel=CHANNEL, asked=NONCE, reason=Like(Reason, code=code)),
    )


def paying(*more: Any) -> TenantMind:
    """A tenant that paid 5 sat."""
    return feed(renting(), states(statement(1, 5)), *more)


def signs(paid: int = 5) -> want.CoSign:
    return want.CoSign(PROVIDER, say.ProposeClose(CHANNEL, Sat(paid), SCRIPT, 1000, NONCE))


@pytest.mark.parametrize("paid", [5, 4, 0])
def test_it_signs_for_what_it_paid_or_less_and_pays_nothing_more(paid: int) -> None:
    mind = paying()
    assert Playbook(mind) >> proposed(paid) << signs(paid)
    effects = mind.handle(states(statement(2, 7, statement(1, 5))), at(2))
    assert not any(isinstance(effect, want.Pay) for effect in effects)
    assert mind.state.channels[CHANNEL].state is ChannelState.CLOSING
    assert mind.state.channels[CHANNEL].paid == 5


def test_it_signs_again_when_a_dearer_close_replaces_the_first() -> None:
    assert Playbook(paying()) >> proposed() << signs() >> proposed() << signs()


def test_it_declines_to_have_paid_more_than_it_signed_and_goes_on_paying() -> None:
    mind = paying()
    assert Playbook(mind) >> proposed(6) << declined("close.overpaid")
    assert mind.state.channels[CHANNEL].is_live


def test_a_close_after_the_expiry_is_declined() -> None:
    expired = paying(told.BlockSeen(EXPIRY))
    assert Playbook(expired) >> proposed() << declined("close.expired")
    refunding = paying(told.BlockSeen(EXPIRY), told.SpendBuilt(CHANNEL, REFUND_TX))
    assert Playbook(refunding) >> proposed() << declined("close.expired")


def test_a_close_of_a_closed_channel_is_declined() -> None:
    assert (
        Playbook(paying(told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1))) >> proposed() << declined("close.settled")
    )
    assert (
        Playbook(paying(told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6))) >> proposed() << declined("close.settled")
    )


def test_a_close_of_what_was_never_funded_is_declined() -> None:
    assert Playbook(quoted()) >> proposed(0) << declined("close.not-open")
    assert Playbook(funded()) >> told.FundingGone(CHANNEL, WHY) >> proposed(0) << declined("close.not-open")


def test_the_close_of_anothers_channel_is_not_signed() -> None:
    assert Playbook(paying()) >> proposed(5, MALLORY) << Refused("channel.unknown")


def test_a_close_that_is_agreed_and_never_sent_leaves_the_refund() -> None:
    mind = paying(proposed())
    assert Playbook(mind) >> told.BlockSeen(EXPIRY - 1) >> told.BlockSeen(EXPIRY) << want.Refund(CHANNEL)


def test_channels_that_are_agreed_on_together_are_funded_together_or_not_at_all() -> None:
    mind = feed(
        quoted(),
        rents(candidate(OTHER, CHANNEL2), lease=LEASE2),
        from_provider(quote(LEASE2), OTHER),
        from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1)),
        from_provider(say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1), OTHER),
    )
    second = told.FundingBuilt(CHANNEL2, TXID, 2, b"funding", Sat(99))
    both = told.FundingBuilt(CHANNEL, TXID, 1, b"funding", Sat(100), (second,))
    given_up = mind.copy()
    feed(mind, both)
    assert [(c.state, c.vout, c.funding_fee) for c in mind.state.channels.values()] == [
        (ChannelState.FUNDED, 1, 100),
        (ChannelState.FUNDED, 2, 99),
    ]
    feed(given_up, told.CloseRequested(CHANNEL2), both)
    assert [c.state for c in given_up.state.channels.values()] == [
        ChannelState.OPENING,
        ChannelState.ABANDONED,
    ]
