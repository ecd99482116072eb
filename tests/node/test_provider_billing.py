# ruff: noqa: F403, F405
"""How a provider gets its money: statements, patience, freezing, thawing, and each lie about a payment."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.node import provider as mind_of
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

FROZEN = told_of(LEASE, LeaseState.PAUSED, reason=Like(Reason, code="lease.unpaid"))


def test_a_tick_is_stated_once_however_often_the_meter_is_read() -> None:
    assert (
        Playbook(serving())
        >> Wait(0.5)
        >> reads(0.5, 0.5)
        >> Wait(0.5)
        >> reads(1, 1)
        << billed(seq=2, due=1000)
    )


def test_statements_are_chained() -> None:
    mind = serving()
    said = [mind.handle(reads(n, n), at(n))[0].message for n in range(1, 4)]
    assert [s.seq for s in said] == [2, 3, 4]
    assert said[1].previous == digest(said[0])
    assert said[2].previous == digest(said[1])


def test_a_clock_that_was_set_back_stops_neither_bills_nor_their_order() -> None:
    mind = serving()
    (first,) = mind.handle(reads(1, 1), at(1))
    (second,) = mind.handle(reads(2, 2), at(-3600))
    assert (first.message.seq, second.message.seq) == (2, 3)
    assert second.message.at == first.message.at


def test_who_does_not_pay_is_frozen_after_the_patience_and_ended_after_the_grace() -> None:
    assert (
        Playbook(serving(), restarts=False)
        >> Wait(1)
        >> reads(1, 1)
        << billed(due=1000)
        >> Wait(1)
        >> reads(2, 1.1)
        << billed(due=1100)
        >> Wait(4)
        >> reads(6, 1.2)
        << billed(due=1200)
        >> Wait(1)
        >> reads(7, 1.3)
        << billed(due=1300)
        << want.Pause(LEASE)
        << FROZEN
        >> Wait(1)
        >> reads(8, 1.3)
        << billed(due=1300)
        << FROZEN
        >> Wait(58)
        >> told.Ticked()
        >> Wait(1)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="lease.unpaid-too-long"))
        << want.Finish(LEASE)
    )


def test_payment_thaws_at_once() -> None:
    mind = feed(serving(), reads(1, 1), now=at(1))
    feed(mind, reads(2, 2), now=at(2))
    feed(mind, reads(7, 2), now=at(7))
    assert (
        Playbook(mind, now=at(7))
        >> pays(1)  # what was late; the newer tick is not late yet
        << want.Thaw(LEASE)
        << told_of(LEASE, LeaseState.RUNNING, reason=None)
    )


def test_who_owes_too_much_at_once_is_frozen_without_patience() -> None:
    """Exposure: five seconds of one core, the traffic is free here, and one satoshi: 6 sat."""
    mind = serving()
    assert not mind_of.owed(mind.state, TENANT)
    assert (
        Playbook(mind, restarts=False)
        >> Wait(1)
        >> reads(1, 6)
        << billed(due=6000)
        >> Wait(1)
        >> reads(2, 6.001)
        << billed(due=6001)
        << want.Pause(LEASE)
        << FROZEN
    )


def test_paying_each_tick_one_tick_later_is_not_late_for_ever() -> None:
    mind = serving()
    for n in range(1, 60):
        effects = mind.handle(reads(n, n / 2), at(n))
        assert want.Pause(LEASE) not in effects
        if n > 2:
            mind.handle(pays(n // 2), at(n + 0.9))
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING


def test_paying_always_a_little_too_little_is_late() -> None:
    mind = serving()
    for n in range(1, 30):
        mind.handle(reads(n, n), at(n))
        if n == 1:
            mind.handle(pays(1), at(n))
    assert mind.state.leases[LEASE].state is LeaseState.PAUSED


def test_a_restart_does_not_thaw_who_has_not_paid() -> None:
    mind = serving()
    for second in (1, 2, 7):
        mind.handle(reads(second, 1), at(second))
    assert mind.state.leases[LEASE].state is LeaseState.PAUSED
    outstanding = mind.restart(at(8))
    assert outstanding == (want.Prepare(LEASE, LIMITS), want.Pause(LEASE))
    assert Playbook(mind, now=at(8)) >> reads(8, 1) << billed() << FROZEN


def test_fractions_of_a_satoshi_are_not_demanded() -> None:
    mind = serving()
    for second in range(1, 20):
        mind.handle(reads(second, 0.999), at(second))
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING
    assert mind_of.owed(mind.state, TENANT) == 0


def test_all_paid_leases_of_a_tenant_freeze_together() -> None:
    mind = feed(serving(), says(say.OpenLease(quote(LEASE2), SIG64)), told.HostPrepared(LEASE2))
    feed(mind, reads(0, 0, LEASE2))
    for second in (1, 2):
        mind.handle(reads(second, 1), at(second))
    effects = mind.handle(reads(7, 1), at(7))
    assert [e for e in effects if isinstance(e, want.Pause)] == [want.Pause(LEASE), want.Pause(LEASE2)]


def test_a_free_lease_is_never_frozen() -> None:
    mind = serving_free()
    for second in range(1, 100):
        assert len(mind.handle(reads(second, second), at(second))) == 1


# -- the last bill -----------------------------------------------------------------------------------
def test_the_last_bill_is_said_again_until_it_is_paid() -> None:
    mind = feed(serving(), reads(1, 1), pays(1), says(say.EndLease(LEASE)), now=at(1))
    (last,) = mind.handle(reads(2, 2, final=True), at(2))
    feed(mind, told.HostCleared(LEASE), now=at(2))
    assert (
        Playbook(mind, now=at(2))
        >> Wait(1)
        >> told.Ticked()
        << last
        >> says(say.AskQuote(LEASE2, LIMITS))
        << last
        << Like(want.Send, message=Like(Quote, lease=LEASE2))
        >> pays(2)
        >> told.Ticked()
        >> says(say.AskQuote(LEASE2, LIMITS))
        << Like(want.Send, message=Like(Quote, lease=LEASE2))
    )


def test_who_never_paid_the_last_lease_gets_no_new_one_until_then() -> None:
    mind = feed(serving(), reads(1, 1), now=at(1))
    feed(mind, says(say.EndLease(LEASE)), told.HostCleared(LEASE), now=at(1))
    new = say.OpenLease(quote(LEASE2), SIG64)
    assert (
        Playbook(mind, now=at(2))
        >> says(new)
        << billed(LEASE, due=1000)
        << refusal(LEASE2, "account.unpaid")
        >> pays(1)
        >> says(new)
        << want.Prepare(LEASE2, LIMITS)
    )


def test_an_unpaid_lease_is_remembered() -> None:
    mind = feed(serving(), reads(1, 1), now=at(1))
    feed(mind, says(say.EndLease(LEASE)), told.HostCleared(LEASE), now=at(1))
    feed(mind, told.Ticked(), now=at(100_000))
    assert LEASE in mind.state.leases


def test_the_last_bill_of_a_lease_that_never_ran_is_none() -> None:
    mind = feed(channelled(), says(say.OpenLease(quote(), SIG64)))
    assert (
        Playbook(mind)
        >> says(say.EndLease(LEASE))
        << told_of(LEASE, LeaseState.ENDING)
        << want.Finish(LEASE)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
        >> told.Ticked()
    )


# -- lies about payments -----------------------------------------------------------------------------
def test_a_payment_on_the_channel_of_another_pays_nothing() -> None:
    assert Playbook(serving()) >> pays(5, peer=MALLORY) << Refused("channel.unknown")


def test_a_payment_on_no_channel_pays_nothing() -> None:
    assert Playbook(serving()) >> pays(5, CHANNEL2) << Refused("channel.unknown")


def test_a_replayed_payment_pays_nothing() -> None:
    mind = feed(serving(), pays(5))
    before = mind.state
    assert Playbook(mind) >> pays(5)
    assert mind.state == before


def test_an_older_payment_pays_nothing_and_is_shown_the_newest() -> None:
    mind = feed(serving(), pays(5))
    assert Playbook(mind) >> pays(4) << told_of_channel(ChannelState.OPEN, paid=5, signature=SIG64)
    assert mind.state.channels[CHANNEL].paid == 5


def test_at_the_brim_all_but_the_reserve_can_be_paid() -> None:
    assert Playbook(serving()) >> pays(CAPACITY - 330 + 1) << Refused("channel.overdrawn")
    assert Playbook(serving()) >> pays(CAPACITY - 330)


@pytest.mark.parametrize("event", [told.FundingGone(CHANNEL, WHY), told.SpendSeen(CHANNEL, "aa" * 32, 1)])
def test_a_channel_that_is_gone_takes_no_payment(event: told.AnyEvent) -> None:
    mind = feed(serving(), event)
    assert Playbook(mind) >> pays(5) << Refused("channel.not-open")


# -- credit on unconfirmed funding -------------------------------------------------------------------
CREDIT = msgspec.structs.replace(POLICY, credit_sat=Sat(4))
"""The lease has one core, so a tick costs one of them at most."""
CREDIT_USED = Like(Reason, code="channel.credit-used")


def lent(policy: ProviderPolicy = CREDIT) -> Any:
    """A lease that runs on funding that waits in the mempool."""
    return feed(
        channelled(policy, confirmations=0),
        told.FundingSeen(CHANNEL, 0),
        says(say.OpenLease(quote(), SIG64)),
        told.HostPrepared(LEASE),
        reads(0, 0),
    )


def used(mind: Any, seconds: int) -> Any:
    """A sat a second, each signed for."""
    for second in range(1, seconds + 1):
        feed(mind, reads(second, second), pays(second), now=at(second))
    return mind


def test_credit_starts_a_lease_before_the_funding_confirms() -> None:
    mind = used(lent(), 3)
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING
    assert mind_of.owed(mind.state, TENANT) == 0


def test_credit_ends_one_tick_before_a_double_spend_would_cost_more() -> None:
    mind = used(lent(), 3)
    assert (
        Playbook(mind, now=at(4))
        >> reads(4, 4)
        << billed(due=4000)
        << want.Pause(LEASE)
        << told_of(LEASE, LeaseState.PAUSED, reason=CREDIT_USED)
        >> pays(4)
        >> told.FundingSeen(CHANNEL, 1)
        << told_of_channel(ChannelState.OPEN)
        >> Wait(1)
        >> reads(5, 4)
        << billed(received_sat=4)
        << want.Thaw(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
    )


def test_who_has_signed_for_everything_is_waited_for_while_the_funding_confirms() -> None:
    mind = feed(used(lent(), 4), now=at(4))
    assert mind.state.leases[LEASE].state is LeaseState.PAUSED
    assert (
        Playbook(mind, now=at(4))
        >> Wait(3600)
        >> told.Ticked()
        >> told.FundingMissed(CHANNEL)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="lease.unpaid-too-long"))
        << want.Finish(LEASE)
    )


def test_a_confirmation_after_more_than_the_grace_thaws_even_before_the_next_reading() -> None:
    mind = feed(used(lent(), 4), now=at(4))
    assert (
        Playbook(mind, now=at(4))
        >> Wait(3600)
        >> told.FundingSeen(CHANNEL, 1)
        << told_of_channel(ChannelState.OPEN)
        >> told.Ticked()
        << want.Thaw(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
    )


def test_who_has_not_is_not() -> None:
    mind = feed(used(lent(), 3), reads(4, 4), now=at(4))
    assert mind.state.leases[LEASE].state is LeaseState.PAUSED
    assert (
        Playbook(mind, now=at(4))
        >> Wait(60)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="lease.unpaid-too-long"))
        << want.Finish(LEASE)
    )


def test_a_funding_that_only_the_tenant_knows_of_is_worth_no_credit() -> None:
    mind = channelled(CREDIT, confirmations=0)
    unconfirmed = refusal(LEASE, "channel.unconfirmed")
    assert Playbook(mind) >> says(say.OpenLease(quote(), SIG64)) << unconfirmed
    seen = feed(channelled(CREDIT, confirmations=0), told.FundingSeen(CHANNEL, 0))
    assert Playbook(seen) >> says(say.OpenLease(quote(), SIG64)) << want.Prepare(LEASE, LIMITS)


def test_credit_that_would_not_last_a_tick_starts_nothing() -> None:
    small = msgspec.structs.replace(POLICY, credit_sat=Sat(1))
    mind = feed(channelled(small, confirmations=0), told.FundingSeen(CHANNEL, 0))
    waits = told_of(LEASE, LeaseState.OPENING, reason=Like(Reason, code="channel.unconfirmed"))
    two_cores = quote(limits=msgspec.structs.replace(LIMITS, cpu_milli=2000))
    assert Playbook(mind) >> says(say.OpenLease(two_cores, SIG64)) << waits


def test_a_crowd_of_strangers_gets_no_more_than_one_together() -> None:
    """A Sybil opens a channel under another key: what is lent to all of them is one sum."""
    policy = msgspec.structs.replace(CREDIT, credit_total_sat=Sat(6))
    mind = feed(
        used(lent(policy), 3),
        says(proposal(CHANNEL2), MALLORY, our_key=PROVIDER_KEY),
        says(say.AnnounceFunding(CHANNEL2, TXID, 2), MALLORY),
        told.FundingSeen(CHANNEL2, 0),
    )
    asked = Playbook(mind) >> says(say.AskQuote(LEASE2, LIMITS), MALLORY)
    assert asked << Like(want.Send, to=MALLORY, message=Like(Quote, credit_sat=3))
    pays_all = feed(mind, pays(100, CHANNEL2, MALLORY))
    assert mind_of.owed(pays_all.state, TENANT) == 0
    credited = {key: account.credited for key, account in pays_all.state.accounts.items()}
    assert credited == {TENANT: 3, MALLORY: 3}
    feed(mind, told.FundingSeen(CHANNEL, 1), pays(101, CHANNEL2, MALLORY))  # the first one's is firm now
    assert mind.state.accounts[MALLORY].credited == 4


def test_a_quote_says_what_this_tenant_would_be_lent() -> None:
    closed = feed(
        channelled(),
        pays(4_000),
        says(say.CloseChannel(CHANNEL)),
        told.SpendBuilt(CHANNEL, CLOSE_TX),
        told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6),
    )
    for peer, lent_sat in ((TENANT, 400), (MALLORY, 0)):
        asked = Playbook(closed) >> says(say.AskQuote(LEASE, LIMITS), peer)
        assert asked << Like(want.Send, to=peer, message=Like(Quote, credit_sat=lent_sat))


def test_moving_on_to_an_unconfirmed_successor_freezes_nothing_within_the_credit() -> None:
    mind = feed(
        serving(CREDIT),
        says(proposal(CHANNEL2), our_key=PROVIDER_KEY),
        says(say.AnnounceFunding(CHANNEL2, TXID, 2)),
        told.FundingSeen(CHANNEL2, 0),
        pays(CAPACITY - 330),
    )
    due = CAPACITY - 330 + 3
    feed(mind, reads(1, due), pays(3, CHANNEL2), now=at(1))
    account = mind.state.accounts[TENANT]
    assert (account.paid, account.credited, account.at_risk) == (due, 3, 3000)
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING


def test_a_reorganisation_takes_the_payments_back_until_it_confirms_again() -> None:
    mind = feed(serving(), reads(1, 1), pays(1), now=at(1))
    feed(mind, told.FundingSeen(CHANNEL, 0), now=at(1))
    assert mind_of.owed(mind.state, TENANT) == 1
    feed(mind, told.FundingSeen(CHANNEL, 1), now=at(1))
    assert mind_of.owed(mind.state, TENANT) == 0


def test_a_double_spent_funding_was_no_income() -> None:
    mind = feed(serving(), pays(5))
    assert mind_of.income(mind.state) == 5
    feed(mind, told.FundingGone(CHANNEL, WHY))
    assert mind_of.income(mind.state) == 0


def fills(seconds: float, disk_bytes: int) -> told.MeterRead:
    return told.MeterRead(LEASE, reading(seconds, 0, disk_bytes=disk_bytes))


@pytest.mark.parametrize("of", ["channel", "nobody"])
def test_a_disk_that_overflows_is_frozen_alone_thawed_when_it_is_freed_and_ended_when_it_is_not(
    of: str,
) -> None:
    mind = serving() if of == "channel" else serving_free()
    limit = mind.state.leases[LEASE].limits.disk_bytes
    full = told_of(LEASE, LeaseState.PAUSED, reason=Like(Reason, code="lease.disk-full"))
    too_much = 2 * limit + 64 * MIB + 1
    assert (
        Playbook(mind, restarts=False)
        >> Wait(1)
        >> fills(1, too_much - 1)
        << billed(disk_bytes=too_much - 1)
        >> Wait(1)
        >> fills(2, too_much)
        << billed(disk_bytes=too_much)
        << want.Pause(LEASE)
        << full
        >> Wait(1)
        >> fills(3, limit)
        << billed(disk_bytes=limit)
        << want.Thaw(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
        >> Wait(1)
        >> fills(4, too_much)
        << billed(disk_bytes=too_much)
        << want.Pause(LEASE)
        << full
        >> Wait(60)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="lease.disk-full-too-long"))
        << want.Finish(LEASE)
    )
