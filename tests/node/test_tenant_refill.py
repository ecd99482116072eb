# ruff: noqa: F403, F405
"""A tenant that opens a successor in time: when, of what size, and what it does where that fails."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.reason import Reason
from dockage.testing.playbook import Playbook, Wait
from node.parts import *

PLAN = want.PlanChannel(PROVIDER, CAPACITY, Sat(0))
PROPOSE = want.Send(PROVIDER, proposal(CHANNEL2))
PLANNED = told.ChannelPlanned(PROVIDER, plan(CHANNEL2))
LOW = Sat(3_600)
"""What an hour of the lease costs at most: the time that one confirmation may take."""


def low(left: int = LOW) -> Any:
    """A lease runs, and so much is left on its channel."""
    mind = renting()
    paid = channels.pay(mind.state.channels[CHANNEL], Sat(CAPACITY - 330 - left), b"")
    return changed(mind, channels={CHANNEL: paid})


def test_the_successor_is_proposed_while_the_old_channel_still_pays_for_an_hour() -> None:
    assert Playbook(low(LOW + 1)) >> told.Ticked()
    assert Playbook(low(), restarts=False) >> told.Ticked() << PLAN >> PLANNED << PROPOSE >> told.Ticked()


def test_from_acceptance_on_it_is_like_any_channel_and_the_old_one_pays_meanwhile() -> None:
    mind = feed(low(), told.Ticked(), PLANNED)
    announce = want.Send(PROVIDER, say.AnnounceFunding(CHANNEL2, TXID, 4))
    assert (
        Playbook(mind)
        >> from_provider(say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1))
        << want.Fund(CHANNEL2, terms())
        >> told.FundingBuilt(CHANNEL2, TXID, 4, b"successor", Sat(154))
        << want.Broadcast(CHANNEL2, b"successor")
        << announce
        >> told.Ticked()
    )
    assert mind.state.leases[LEASE].state.value == "running"


def test_a_restart_goes_on_with_the_successor_that_was_planned() -> None:
    mind = feed(low(), told.Ticked(), PLANNED)
    mind.restart(START)
    assert Playbook(mind) >> told.Ticked() >> told.BlockSeen(HEIGHT) << PROPOSE


def test_half_a_day_before_leases_would_end_a_successor_is_opened() -> None:
    mind = renting()
    feed(mind, told.BlockSeen(EXPIRY - 361))
    assert Playbook(mind, restarts=False) >> told.Ticked()
    feed(mind, told.BlockSeen(EXPIRY - 360))
    assert Playbook(mind, restarts=False) >> told.Ticked() << PLAN


def test_credit_lets_the_successor_wait() -> None:
    mind = low()
    lease = mind.state.leases[LEASE]
    changed(mind, leases={LEASE: replace(lease, quote=quote(credit_sat=Sat(1_000)))})
    assert Playbook(mind) >> told.Ticked()
    left = changed(mind, channels=low(LOW - 1_000).state.channels)
    assert Playbook(left, restarts=False) >> told.Ticked() << PLAN


def test_traffic_that_costs_more_than_the_limits_brings_it_forward() -> None:
    """The worst case of the limits leaves traffic out; the pace of the last minute does not."""
    mind = low(4_500)
    assert Playbook(mind) >> told.Ticked()
    busy = replace(mind.state.leases[LEASE], pace=Msat(4_600_000))
    changed(mind, leases={LEASE: busy})
    assert Playbook(mind, restarts=False) >> told.Ticked() << PLAN


def test_the_pace_follows_the_statements_of_about_a_minute() -> None:
    mind, last = renting(), None
    for seq in range(1, 301):
        last = statement(seq, seq * 0.5, last, received_sat=Sat(seq // 2))
        feed(mind, states(last), now=at(seq))
    assert 1_780_000 <= mind.state.leases[LEASE].pace <= 1_800_000  # half a satoshi a second


def test_a_try_that_failed_is_made_again_after_a_minute_and_tells_why() -> None:
    mind = feed(low(), told.Ticked(), told.PlanFailed(PROVIDER, WHY))
    assert mind.state.refills[PROVIDER].hindrance == WHY
    assert (
        Playbook(mind, restarts=False)
        >> Wait(59)
        >> told.Ticked()
        << Like(want.Send, message=say.AskLease(LEASE))
        >> Wait(1)
        >> told.Ticked()
        << PLAN
    )


def test_a_provider_that_refuses_the_successor_is_asked_again_later() -> None:
    refused = told.Received(PROVIDER, say.Refusal(CHANNEL2, WHY))
    mind = feed(low(), told.Ticked(), PLANNED, refused)
    assert mind.state.channels[CHANNEL2].state is ChannelState.ABANDONED
    assert mind.state.refills[PROVIDER].hindrance == WHY
    assert Playbook(mind, restarts=False) >> Wait(3) >> told.Ticked()
    assert mind.state.leases[LEASE].state.value == "running"


def test_a_wallet_that_can_not_fund_it_does_not_end_the_lease_that_runs() -> None:
    mind = feed(low(), told.Ticked(), PLANNED, from_provider(say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1)))
    close = want.Send(PROVIDER, say.CloseChannel(CHANNEL2))
    assert Playbook(mind, restarts=False) >> told.FundingFailed(CHANNEL2, WHY) << close
    assert mind.state.leases[LEASE].state.value == "running"
    assert mind.state.refills[PROVIDER].hindrance == WHY


def test_what_nobody_waits_for_any_more_is_not_funded() -> None:
    mind = feed(low(), told.Ticked(), PLANNED, told.EndRequested(LEASE, WHY))
    close = want.Send(PROVIDER, say.CloseChannel(CHANNEL2))
    assert Playbook(mind) >> told.Ticked() << close
    assert mind.state.channels[CHANNEL2].reason == Like(Reason, code="channel.not-needed")


def test_nothing_is_refilled_where_nothing_is_paid_or_nobody_wants_it() -> None:
    assert Playbook(renting_free()) >> told.Ticked()
    mind = low()
    mind.policy = TenantPolicy(refill=False)
    assert Playbook(changed(mind, policy=mind.policy)) >> told.Ticked()
    ended = feed(low(), told.EndRequested(LEASE, WHY), from_provider(notice(LeaseState.ENDED)))
    assert Playbook(ended) >> told.Ticked()


def test_a_plan_that_nobody_asked_for_opens_nothing() -> None:
    assert Playbook(renting()) >> PLANNED
    mind = feed(low(), told.Ticked(), PLANNED)
    assert Playbook(mind) >> told.ChannelPlanned(PROVIDER, plan(ChannelId(b"channel-number-3")))
