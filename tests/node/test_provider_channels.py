# ruff: noqa: F403, F405
"""A provider's channels: what it agrees to, and that it always closes in time."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.channel import FORGET_UNFUNDED
from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

CLOSING = told_of_channel(ChannelState.CLOSING)


def proposed(message: say.ProposeChannel | None = None) -> told.Received:
    return says(message or proposal(), our_key=PROVIDER_KEY)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"capacity": Sat(2_999)}, "channel.small"),
        ({"capacity": Sat(50_000_001)}, "channel.large"),
        ({"expiry_height": HEIGHT + 431}, "channel.expiry-near"),
        ({"expiry_height": HEIGHT + 25_001}, "channel.expiry-far"),
        ({"expiry_height": 1}, "channel.expiry-near"),
    ],
)
def test_terms_that_will_not_do_are_refused_with_the_reason(change: dict[str, Any], code: str) -> None:
    assert Playbook(provider()) >> proposed(proposal(**change)) << refusal(CHANNEL, code)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"network": ""}, "provider.no-wallet"),
        ({"blocked": frozenset({TENANT})}, "provider.not-for-you"),
        ({"only_for": (MALLORY,)}, "provider.not-for-you"),
        ({"channels_per_tenant": 0}, "channel.too-many"),
        ({"channels_waiting": 0}, "provider.busy"),
        ({"given_up_per_tenant": 0}, "channel.too-many"),
        ({"given_up": 0}, "provider.busy"),
    ],
)
def test_whom_it_takes_no_channel_from(policy: dict[str, Any], code: str) -> None:
    mind = provider(msgspec.structs.replace(POLICY, **policy))
    assert Playbook(mind) >> proposed() << refusal(CHANNEL, code)


def test_before_the_chain_was_seen_no_expiry_can_be_judged() -> None:
    assert Playbook(ProviderMind(POLICY)) >> proposed() << refusal(CHANNEL, "chain.unknown")


@pytest.mark.parametrize(("capacity", "needed"), [(50_000, 1), (50_001, 3), (500_000, 3), (500_001, 6)])
def test_larger_channels_need_more_confirmations(capacity: int, needed: int) -> None:
    assert (
        Playbook(provider())
        >> proposed(proposal(capacity=Sat(capacity)))
        << want.Send(TENANT, say.AcceptChannel(CHANNEL, PROVIDER_KEY, needed))
    )


def test_proposing_again_gets_the_same_answer() -> None:
    accepted = want.Send(TENANT, say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
    assert Playbook(provider()) >> proposed() << accepted >> proposed() << accepted


@pytest.mark.parametrize(
    ("message", "peer", "key"),
    [
        (proposal(), MALLORY, PROVIDER_KEY),
        (proposal(capacity=Sat(20_000)), TENANT, PROVIDER_KEY),
        (proposal(expiry_height=4000), TENANT, PROVIDER_KEY),
        (proposal(tenant_key=b"\2" + bytes(32)), TENANT, PROVIDER_KEY),
        (proposal(), TENANT, b"\2" + bytes(32)),
    ],
)
def test_an_id_in_use_is_not_given_other_terms(
    message: say.ProposeChannel, peer: NodeKey, key: bytes
) -> None:
    assert Playbook(channelled()) >> says(message, peer, our_key=key) << Refused("channel.taken")


def test_two_funding_outpoints_are_one_too_many() -> None:
    assert (
        Playbook(channelled())
        >> says(say.AnnounceFunding(CHANNEL, TXID, VOUT))
        << told_of_channel(ChannelState.OPEN)
        >> says(say.AnnounceFunding(CHANNEL, TXID, VOUT + 1))
        << Refused("channel.refunded-twice")
        >> says(say.AnnounceFunding(CHANNEL, "00" * 32, VOUT))
        << Refused("channel.refunded-twice")
    )


def test_resuming_shows_the_newest_payment_and_its_signature() -> None:
    mind = feed(channelled(), pays(5))
    shown = told_of_channel(ChannelState.OPEN, paid=5, signature=SIG64)
    assert Playbook(mind) >> says(say.ResumeChannel(CHANNEL)) << shown


@pytest.mark.parametrize(
    "message", [say.AnnounceFunding(CHANNEL, TXID, 0), say.CloseChannel(CHANNEL), say.ResumeChannel(CHANNEL)]
)
def test_the_channel_of_another_is_not_there(message: say.AnyMessage) -> None:
    assert Playbook(channelled()) >> says(message, MALLORY) << Refused("channel.unknown")


def test_a_channel_that_is_never_funded_is_forgotten_after_a_day() -> None:
    mind = feed(provider(), proposed())
    assert (
        Playbook(mind)
        >> told.BlockSeen(HEIGHT + 144)
        >> told.BlockSeen(HEIGHT + 145)
        << told_of_channel(ChannelState.ABANDONED, reason=Like(Reason, code="channel.unfunded"))
        >> says(say.AnnounceFunding(CHANNEL, TXID, VOUT))
        << Refused("channel.not-open")
    )


def test_a_funding_that_our_node_never_saw_makes_no_room_for_the_next() -> None:
    mind = provider(msgspec.structs.replace(POLICY, channels_per_tenant=1))
    announced = feed(mind, proposed(), says(say.AnnounceFunding(CHANNEL, TXID, VOUT)))
    assert Playbook(announced) >> proposed(proposal(CHANNEL2)) << refusal(CHANNEL2, "channel.too-many")
    seen = feed(announced, told.FundingSeen(CHANNEL, 0))
    accept = want.Send(TENANT, say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1))
    assert Playbook(seen) >> proposed(proposal(CHANNEL2)) << accept


def test_a_tenant_that_gives_a_proposal_up_makes_room_for_the_next() -> None:
    mind = provider(msgspec.structs.replace(POLICY, channels_per_tenant=1))
    assert (
        Playbook(feed(mind, proposed()))
        >> proposed(proposal(CHANNEL2))
        << refusal(CHANNEL2, "channel.too-many")
        >> says(say.CloseChannel(CHANNEL))
        << told_of_channel(ChannelState.ABANDONED)
        >> proposed(proposal(CHANNEL2))
        << want.Send(TENANT, say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1))
    )


def test_agreeing_and_giving_up_for_fun_comes_to_an_end_and_fills_no_memory() -> None:
    mind = provider(msgspec.structs.replace(POLICY, given_up_per_tenant=2))
    for n in (1, 2):
        id_ = ChannelId(bytes([n]) * 16)
        mind = feed(mind, proposed(proposal(id_)), says(say.CloseChannel(id_)))
    assert Playbook(mind) >> proposed() << refusal(CHANNEL, "channel.too-many")
    mind = feed(mind, told.BlockSeen(HEIGHT + 2 * FORGET_UNFUNDED))
    assert len(mind.state.channels) == 2
    mind = feed(mind, told.BlockSeen(HEIGHT + 2 * FORGET_UNFUNDED + 1))
    assert not mind.state.channels
    accept = want.Send(TENANT, say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
    far = proposal(expiry_height=HEIGHT + 2016)
    assert Playbook(mind) >> proposed(far) << accept


def test_a_crowd_of_strangers_keeps_nobody_out_who_has_paid_before() -> None:
    crowded = msgspec.structs.replace(POLICY, channels_waiting=0, given_up=0)
    mind = changed(feed(channelled(), pays(100)), policy=crowded)
    accept = want.Send(TENANT, say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1))
    assert Playbook(mind) >> proposed(proposal(CHANNEL2)) << accept


def test_a_wrong_funding_abandons_the_channel() -> None:
    assert (
        Playbook(channelled())
        >> told.FundingGone(CHANNEL, WHY)
        << told_of_channel(ChannelState.ABANDONED, reason=WHY)
    )


# -- closing -----------------------------------------------------------------------------------------
def test_a_close_with_a_lease_running_waits_for_the_last_bill() -> None:
    mind = feed(serving(), reads(1, 1), pays(1), now=at(1))
    assert (
        Playbook(mind, now=at(1))
        >> says(say.CloseChannel(CHANNEL))
        << told_of(LEASE, LeaseState.ENDING)
        << want.Finish(LEASE)
        >> says(say.OpenLease(quote(LEASE2), SIG64))
        << refusal(LEASE2, "channel.none")
        >> reads(2, 2, final=True)
        << billed(due=2000)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
        >> pays(2)
        << told_of_channel(ChannelState.CLOSING, paid=2)
        << ASK
    )


def test_a_close_does_not_wait_for_ever_for_the_last_bill() -> None:
    mind = feed(serving(), reads(1, 1), pays(1), says(say.CloseChannel(CHANNEL)), now=at(1))
    feed(mind, reads(2, 2, final=True), told.HostCleared(LEASE), now=at(1))
    assert (
        Playbook(mind, now=at(10))
        >> told.Ticked()
        << billed(due=2000)
        >> Wait(1)
        >> told.Ticked()
        << billed(due=2000)
        << CLOSING
        << ASK
    )


def test_a_close_with_another_channel_to_pay_from_ends_no_lease() -> None:
    mind = feed(
        serving(),
        proposed(proposal(CHANNEL2)),
        says(say.AnnounceFunding(CHANNEL2, TXID, 2)),
        told.FundingSeen(CHANNEL2, 1),
        pays(5),
    )
    assert Playbook(mind) >> says(say.CloseChannel(CHANNEL)) << CLOSING << ASK


def test_nothing_paid_is_nothing_to_settle_and_all_given_back_if_the_tenant_signs() -> None:
    nothing = told_of_channel(ChannelState.OPEN, reason=Like(Reason, code="channel.nothing-paid"))
    assert (
        Playbook(channelled(), restarts=False)
        >> says(say.CloseChannel(CHANNEL))
        << nothing
        << ASK
        >> Wait(5)
        >> told.Ticked()
        >> told.Ticked()
        >> told.BlockSeen(EXPIRY - 100)
        << nothing
        << ASK
        >> told.BlockSeen(EXPIRY - 100)
        >> told.CloseAgreed(CHANNEL, Sat(0), TOGETHER_TX)
        << told_of_channel(ChannelState.CLOSING, closing_txid=TOGETHER_TX.txid)
        << want.Broadcast(CHANNEL, b"together")
    )


def test_the_user_of_the_provider_may_close_too() -> None:
    mind = feed(channelled(), pays(5))
    assert Playbook(mind) >> told.CloseRequested(CHANNEL) << CLOSING << ASK


def test_a_close_that_fails_is_tried_again_at_each_block() -> None:
    mind = feed(channelled(), pays(5), says(say.CloseChannel(CHANNEL)))
    assert (
        Playbook(mind, restarts=False)  # a restart asks the tenant once more
        >> Wait(5)
        >> told.Ticked()
        << ALONE
        >> told.SpendFailed(CHANNEL, WHY)
        >> told.BlockSeen(HEIGHT)
        << ALONE
        >> told.SpendBuilt(CHANNEL, CLOSE_TX)
        << CLOSING
        << want.Broadcast(CHANNEL, b"close")
        >> told.SpendBuilt(CHANNEL, CLOSE_TX)
        << want.Broadcast(CHANNEL, b"close")
    )


DEARER_CLOSE = SpendingTx("ce" * 32, b"dearer close", Sat(306))


def test_a_close_that_does_not_confirm_is_built_again_every_six_blocks() -> None:
    mind = feed(channelled(), pays(5), says(say.CloseChannel(CHANNEL)), told.SpendBuilt(CHANNEL, CLOSE_TX))
    assert (
        Playbook(mind)
        >> told.BlockSeen(HEIGHT + 5)
        << want.Broadcast(CHANNEL, b"close")
        >> told.BlockSeen(HEIGHT + 6)
        << want.Broadcast(CHANNEL, b"close")
        << CLOSING
        << ASK
        >> Wait(5)
        >> told.Ticked()
        << ALONE
        >> told.SpendBuilt(CHANNEL, DEARER_CLOSE)
        << told_of_channel(ChannelState.CLOSING, closing_txid=DEARER_CLOSE.txid)
        << want.Broadcast(CHANNEL, b"dearer close")
        >> told.BlockSeen(HEIGHT + 7)
        << want.Broadcast(CHANNEL, b"dearer close")
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1)  # the cheap one made it after all
        >> told.BlockSeen(HEIGHT + 20)
        << want.Broadcast(CHANNEL, b"dearer close")
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED, closing_txid=CLOSE_TX.txid)
        >> told.BlockSeen(HEIGHT + 21)
    )


def test_a_restart_while_closing_broadcasts_again() -> None:
    mind = feed(channelled(), pays(5), says(say.CloseChannel(CHANNEL)))
    assert mind.copy().restart(START) == (ASK,)
    feed(mind, told.SpendBuilt(CHANNEL, CLOSE_TX))
    assert mind.restart(START) == (want.Broadcast(CHANNEL, b"close"),)


def test_a_refund_that_won_is_not_fought() -> None:
    mind = feed(channelled(), pays(5), told.SpendSeen(CHANNEL, REFUND_TX.txid, 1))
    assert (
        Playbook(mind)
        >> told.BlockSeen(EXPIRY)
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED)
    )


def test_a_funding_that_vanishes_under_the_close_ends_the_channel() -> None:
    mind = feed(channelled(), pays(5), says(say.CloseChannel(CHANNEL)), told.SpendBuilt(CHANNEL, CLOSE_TX))
    assert (
        Playbook(mind)
        >> told.FundingGone(CHANNEL, WHY)
        << told_of_channel(ChannelState.ABANDONED)
        >> told.BlockSeen(EXPIRY)
    )


def with_successor(*, confirmations: int = 1, policy: Any = POLICY) -> Any:
    return feed(
        serving(policy),
        proposed(proposal(CHANNEL2, expiry_height=EXPIRY + 2000)),
        says(say.AnnounceFunding(CHANNEL2, TXID, 2)),
        told.FundingSeen(CHANNEL2, confirmations),
    )


def test_a_channel_that_is_used_up_is_closed_once_another_carries_on() -> None:
    mind = feed(with_successor(), pays(CAPACITY - 331))
    assert (
        Playbook(mind, restarts=False)  # a restart looks at the chain
        >> told.BlockSeen(HEIGHT)
        >> pays(CAPACITY - 330)
        >> told.BlockSeen(HEIGHT)
        << CLOSING
        << want.ProposeClose(CHANNEL, give_back=False)
        >> pays(1, CHANNEL2)
    )
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING


def test_a_channel_that_is_used_up_is_left_open_while_leases_have_nothing_else() -> None:
    mind = feed(serving(), pays(CAPACITY - 330))
    assert Playbook(mind) >> told.BlockSeen(HEIGHT)
    ended = feed(mind, says(say.EndLease(LEASE)), told.HostCleared(LEASE))
    assert Playbook(ended) >> told.BlockSeen(HEIGHT) << CLOSING << want.ProposeClose(CHANNEL, give_back=False)


def test_no_lease_stops_before_the_expiry_where_a_successor_is_on_its_way() -> None:
    mind = feed(with_successor(confirmations=0), pays(5))
    assert Playbook(mind) >> told.BlockSeen(EXPIRY - 288) >> told.BlockSeen(EXPIRY - 145) >> pays(6)
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING


def test_nothing_paid_at_the_expiry_is_the_tenants_to_take_back() -> None:
    expired = told_of_channel(ChannelState.EXPIRED)
    mind = feed(channelled(), says(say.CloseChannel(CHANNEL)))
    assert (
        Playbook(mind)
        >> told.BlockSeen(EXPIRY - 1)
        >> told.BlockSeen(EXPIRY)
        << expired
        >> told.BlockSeen(EXPIRY + 1)
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 1)
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED)
    )


def test_a_reorganisation_that_undoes_a_refund_lets_the_close_race_it_again() -> None:
    mind = feed(channelled(), pays(5), told.SpendSeen(CHANNEL, REFUND_TX.txid, 1))
    assert (
        Playbook(mind)
        >> told.BlockSeen(EXPIRY)
        >> told.SpendSeen(CHANNEL, REFUND_TX.txid, 0)
        >> told.BlockSeen(EXPIRY)
        << ALONE
    )


# -- the calendar ------------------------------------------------------------------------------------
def test_leases_stop_two_days_and_the_channel_settles_one_day_before_the_expiry() -> None:
    mind = feed(serving(), reads(1, 1), pays(1), now=at(1))
    assert (
        Playbook(mind, now=at(1), restarts=False)
        >> told.BlockSeen(EXPIRY - 289)
        >> told.BlockSeen(EXPIRY - 288)
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="channel.expiring"))
        << want.Finish(LEASE)
        >> reads(1, 1, final=True)
        << billed()
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
        >> told.BlockSeen(EXPIRY - 287)
        >> told.BlockSeen(EXPIRY - 145)
        >> told.BlockSeen(EXPIRY - 144)
        << CLOSING
        << ASK
        >> told.BlockSeen(EXPIRY - 143)
        >> Wait(5)
        >> told.Ticked()
        << ALONE
        >> told.BlockSeen(EXPIRY - 142)
        << CLOSING
        << ASK
    )


def test_a_provider_that_slept_settles_at_the_first_block_it_sees() -> None:
    mind = feed(channelled(), pays(5))
    assert Playbook(mind) >> told.BlockSeen(EXPIRY - 1) << CLOSING << ASK


def test_a_lease_moves_to_a_successor_channel_before_the_first_expires() -> None:
    mind = feed(with_successor(), pays(5))
    assert (
        Playbook(mind)
        >> told.BlockSeen(EXPIRY - 288)
        >> told.BlockSeen(EXPIRY - 144)
        << CLOSING
        << ASK
        >> pays(7, CHANNEL2)
    )
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING
