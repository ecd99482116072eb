# ruff: noqa: F403, F405
"""A tenant's channels: its coins go only where it agreed, and what was not paid comes back."""

from __future__ import annotations

import pytest

from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

ASK_OTHER = want.Send(OTHER, say.AskQuote(LEASE, LIMITS))
OPEN = want.Send(PROVIDER, say.OpenLease(quote(), SIG64))
PROPOSE = want.Send(PROVIDER, proposal())
END = want.Send(PROVIDER, say.EndLease(LEASE))
CLOSE = want.Send(PROVIDER, say.CloseChannel(CHANNEL))
ANNOUNCE = want.Send(PROVIDER, say.AnnounceFunding(CHANNEL, TXID, VOUT))
ACCEPT = from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
BOTH = (candidate(), candidate(OTHER, CHANNEL2))
BUILT = told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154))


def channel(mind: Any) -> Any:
    return mind.state.channels[CHANNEL]


def lease(mind: Any) -> Any:
    return mind.state.leases[LEASE]


def notes(
    state: ChannelState, *, paid: int = 0, reason: Reason | None = None, ours: bool = False
) -> told.Received:
    message = say.ChannelNotice(CHANNEL, state, 0, Sat(paid), SIG64, "", reason)
    return told.Received(PROVIDER, message, ours=ours)


# -- opening -----------------------------------------------------------------------------------------
def test_accepting_twice_funds_once_and_rekeying_is_a_lie() -> None:
    assert (
        Playbook(quoted())
        >> ACCEPT
        << want.Fund(CHANNEL, terms())
        >> ACCEPT
        >> from_provider(say.AcceptChannel(CHANNEL, b"\2" + bytes(32), 1))
        << Refused("channel.rekeyed")
    )


def test_somebody_elses_acceptance_is_not_taken() -> None:
    assert (
        Playbook(quoted())
        >> from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1), MALLORY)
        << Refused("channel.unknown")
    )


def test_an_acceptance_that_comes_too_late_costs_no_coins() -> None:
    mind = quoted(*BOTH)
    assert Playbook(mind) >> Wait(8.5) >> told.Ticked() << CLOSE << ASK_OTHER >> ACCEPT >> BUILT
    assert channel(mind).state is ChannelState.ABANDONED


def test_a_refused_channel_leads_to_the_next_candidate() -> None:
    refused = told.Received(PROVIDER, say.Refusal(CHANNEL, WHY))
    assert Playbook(quoted(*BOTH)) >> refused << ASK_OTHER >> refused


def test_a_wallet_that_can_not_fund_ends_the_lease() -> None:
    mind = feed(quoted(*BOTH), ACCEPT)
    assert Playbook(mind) >> told.FundingFailed(CHANNEL, WHY) << CLOSE
    assert (lease(mind).state, lease(mind).reason) == (LeaseState.ENDED, WHY)


def test_a_second_funding_is_not_broadcast() -> None:
    mind = funded()
    assert Playbook(mind) >> told.FundingBuilt(CHANNEL, "00" * 32, 0, b"another", Sat(154))
    assert channel(mind).txid == TXID


def test_what_was_lost_while_opening_is_said_again_at_each_look_at_the_chain() -> None:
    assert Playbook(quoted()) >> told.BlockSeen(HEIGHT) << PROPOSE
    assert Playbook(feed(quoted(), ACCEPT)) >> told.BlockSeen(HEIGHT) << want.Fund(CHANNEL, terms())
    assert Playbook(funded()) >> told.BlockSeen(HEIGHT) << want.Broadcast(CHANNEL, b"funding") << ANNOUNCE
    assert Playbook(opening()) >> told.BlockSeen(HEIGHT)


def test_a_funding_that_never_confirms_ends_the_wait() -> None:
    waiting = told.Received(PROVIDER, say.Refusal(LEASE, Reason("channel.unconfirmed", "")))
    mind = feed(funded(), waiting)
    assert (
        Playbook(mind)
        >> Wait(61)
        >> told.Ticked()
        << OPEN
        >> Wait(6 * 3600 - 61)
        >> told.Ticked()
        << OPEN
        >> Wait(1)
        >> told.Ticked()
        << END
    )
    assert lease(mind).reason.code == "channel.unconfirmed"


def test_a_funding_that_is_gone_leads_to_the_next_candidate() -> None:
    assert Playbook(funded(*BOTH)) >> told.FundingGone(CHANNEL, WHY) >> told.Ticked() << END << ASK_OTHER


# -- what the provider says of it --------------------------------------------------------------------
def test_a_notice_of_another_provider_is_not_believed() -> None:
    message = say.ChannelNotice(CHANNEL, ChannelState.CLOSING, 0, Sat(0), b"", "", None)
    assert Playbook(funded()) >> told.Received(MALLORY, message) << Refused("channel.unknown")


@pytest.mark.parametrize("state", [ChannelState.CLOSED, ChannelState.ABANDONED, ChannelState.OPENING])
def test_the_provider_can_not_talk_our_coins_away(state: ChannelState) -> None:
    mind = renting()
    assert Playbook(mind) >> notes(state, paid=9000, reason=WHY)
    assert channel(mind).state is ChannelState.OPEN
    assert channel(mind).paid == 0


def test_our_own_newer_signature_brings_an_old_backup_up_to_date() -> None:
    mind = renting()
    assert Playbook(mind) >> notes(ChannelState.OPEN, paid=77, ours=True)
    assert channel(mind).paid == 77
    assert (
        Playbook(mind) >> notes(ChannelState.OPEN, paid=7, ours=True) << want.Pay(PROVIDER, CHANNEL, Sat(77))
    )
    assert channel(mind).paid == 77


def test_a_provider_that_holds_less_than_we_signed_gets_the_newest_payment_again() -> None:
    mind = feed(renting(), states(statement(1, 5)))
    again = want.Pay(PROVIDER, CHANNEL, Sat(5))
    assert (
        Playbook(mind)
        >> notes(ChannelState.OPEN, paid=4)
        << again
        >> notes(ChannelState.OPEN, paid=5)
        >> notes(ChannelState.CLOSING, paid=4)
    )


RESUME = want.Send(PROVIDER, say.ResumeChannel(CHANNEL))


def test_at_its_start_and_at_each_block_it_asks_what_the_provider_holds() -> None:
    mind = renting()
    assert (
        Playbook(mind, restarts=False)
        >> told.BlockSeen(HEIGHT)
        >> told.BlockSeen(HEIGHT + 1)
        << RESUME
        >> told.BlockSeen(HEIGHT + 1)
    )
    assert mind.restart(START) == (want.Send(PROVIDER, say.AskLease(LEASE)), RESUME)


def test_a_tenant_that_is_behind_goes_on_from_its_own_newest_signature() -> None:
    behind = renting()
    assert (
        Playbook(behind)
        >> notes(ChannelState.OPEN, paid=2, ours=True)
        >> states(statement(1, 4, received_sat=Sat(2)))
        << want.Pay(PROVIDER, CHANNEL, Sat(4))
    )


def test_a_provider_that_lost_the_channel_is_not_paid_on_it_again() -> None:
    mind = renting()
    assert Playbook(mind) >> told.Received(PROVIDER, say.Refusal(CHANNEL, Reason("channel.unknown", "")))
    assert channel(mind).state is ChannelState.CLOSING
    assert Playbook(mind) >> told.BlockSeen(EXPIRY) << want.Refund(CHANNEL)


# -- closing and the refund --------------------------------------------------------------------------
def test_a_wish_to_close_is_said_again_until_it_happens() -> None:
    assert (
        Playbook(opening())
        >> told.CloseRequested(CHANNEL)
        << CLOSE
        >> told.BlockSeen(HEIGHT)
        << CLOSE
        >> notes(ChannelState.CLOSING)
        >> told.BlockSeen(HEIGHT)
        >> told.CloseRequested(CHANNEL)
        << CLOSE
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1)
        >> told.CloseRequested(CHANNEL)
    )


def test_a_wish_to_close_ends_where_nothing_was_paid() -> None:
    nothing = Reason("channel.nothing-paid", "for a test")
    assert (
        Playbook(opening())
        >> told.CloseRequested(CHANNEL)
        << CLOSE
        >> notes(ChannelState.OPEN, reason=nothing)
        >> told.BlockSeen(HEIGHT)
    )


def test_a_channel_that_was_never_funded_is_simply_given_up() -> None:
    mind = quoted()
    assert Playbook(mind) >> told.CloseRequested(CHANNEL) << CLOSE >> told.CloseRequested(CHANNEL)
    assert channel(mind).state is ChannelState.ABANDONED


@pytest.mark.parametrize("closing", [False, True])
def test_at_the_expiry_everything_comes_back(closing: bool) -> None:
    mind = renting()
    if closing:
        feed(mind, notes(ChannelState.CLOSING))  # it said so, and never did it
    feed(mind, told.BlockSeen(EXPIRY - 1))
    assert (
        Playbook(mind)
        >> told.BlockSeen(EXPIRY - 1)
        >> told.BlockSeen(EXPIRY)
        << want.Refund(CHANNEL)
        >> told.SpendFailed(CHANNEL, WHY)
        >> told.BlockSeen(EXPIRY)
        << want.Refund(CHANNEL)
        >> told.SpendBuilt(CHANNEL, REFUND_TX)
        << want.Broadcast(CHANNEL, b"refund")
        >> told.BlockSeen(EXPIRY + 1)
        << want.Broadcast(CHANNEL, b"refund")
        >> told.BlockSeen(EXPIRY + 6)
        << want.Broadcast(CHANNEL, b"refund")
        << want.Refund(CHANNEL)
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 1)
        >> told.BlockSeen(EXPIRY + 20)
        << want.Broadcast(CHANNEL, b"refund")
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 6)
        >> told.BlockSeen(EXPIRY + 21)
    )
    assert channel(mind).state is ChannelState.CLOSED


def test_a_late_close_by_the_provider_wins_over_our_refund() -> None:
    mind = feed(renting(), told.BlockSeen(EXPIRY), told.SpendBuilt(CHANNEL, REFUND_TX))
    assert (
        Playbook(mind)
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1)
        >> told.BlockSeen(EXPIRY + 1)
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6)
    )
    assert channel(mind).state is ChannelState.CLOSED


def test_no_refund_of_what_was_already_spent() -> None:
    mind = feed(renting(), told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1))
    assert Playbook(mind) >> told.BlockSeen(EXPIRY) >> told.SpendBuilt(CHANNEL, REFUND_TX)
