# ruff: noqa: F403, F405
"""What a provider answers to those who want to rent."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, SECOND
from dockage.domain.usage import Usage
from dockage.node import provider as mind_of
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

OPEN = say.OpenLease(quote(), SIG64)


def test_a_free_lease_from_quote_to_end() -> None:
    assert (
        Playbook(provider(FREE_POLICY))
        >> says(say.AskQuote(LEASE, LIMITS))
        << want.Send(TENANT, free_quote())
        >> says(say.OpenLease(free_quote(), SIG64))
        << want.Prepare(LEASE, LIMITS)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
        >> reads(0, 0)
        << billed(seq=1, due=0)
        >> Wait(1)
        >> reads(1, 0.5)
        << billed(seq=2, due=0)
        >> says(say.EndLease(LEASE))
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="lease.ended-by-tenant"))
        << want.Finish(LEASE)
        >> reads(1.5, 0.6, final=True)
        << billed(seq=3)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
    )


def test_a_paid_lease_from_proposal_to_a_buried_close() -> None:
    assert (
        Playbook(provider())
        >> says(proposal(), our_key=PROVIDER_KEY)
        << want.Send(TENANT, say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
        >> says(say.AnnounceFunding(CHANNEL, TXID, VOUT))
        << told_of_channel(ChannelState.FUNDED)
        >> told.FundingSeen(CHANNEL, 0)
        >> told.FundingSeen(CHANNEL, 1)
        << told_of_channel(ChannelState.OPEN, confirmations=1)
        >> says(OPEN)
        << want.Prepare(LEASE, LIMITS)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
        >> reads(0, 0)
        << billed(seq=1, due=0, received_sat=0)
        >> Wait(1)
        >> reads(1, 1)
        << billed(seq=2, due=1000, received_sat=0)
        >> pays(1)
        >> Wait(1)
        >> reads(2, 2)
        << billed(seq=3, due=2000, received_sat=1)
        >> pays(2)
        >> says(say.CloseChannel(CHANNEL))
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="channel.closing"))
        << want.Finish(LEASE)
        >> reads(2.5, 2.5, final=True)
        << billed(seq=4, due=2500, received_sat=2)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
        << told_of_channel(ChannelState.CLOSING, paid=2, signature=SIG64)
        << ASK
        >> told.CloseAgreed(CHANNEL, Sat(2), CLOSE_TX)
        << told_of_channel(ChannelState.CLOSING, closing_txid=CLOSE_TX.txid)
        << want.Broadcast(CHANNEL, b"close")
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 0)
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1)
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6)
        << told_of_channel(ChannelState.CLOSED)
    )


@pytest.mark.parametrize(
    ("policy", "limits", "code"),
    [
        ({"blocked": frozenset({TENANT})}, LIMITS, "provider.not-for-you"),
        ({"only_for": (MALLORY,)}, LIMITS, "provider.not-for-you"),
        ({"leases_per_tenant": 0}, LIMITS, "provider.too-many-leases"),
        ({"remembered_per_tenant": 0}, LIMITS, "provider.too-many-leases"),
        ({}, Resources(cpu_milli=4001), "provider.full"),
    ],
)
def test_whom_it_does_not_serve_hears_why(policy: dict[str, Any], limits: Resources, code: str) -> None:
    mind = provider(replace(POLICY, **policy))
    assert Playbook(mind) >> says(say.AskQuote(LEASE, limits)) << refusal(LEASE, code)


def test_who_leaves_the_market_sells_nothing_new() -> None:
    assert (
        Playbook(provider())
        >> told.DrainRequested(at(3600), WHY)
        >> says(say.AskQuote(LEASE, LIMITS))
        << refusal(LEASE, "provider.draining")
    )


def test_asking_the_same_quote_a_thousand_times_leaves_nothing_behind() -> None:
    mind = provider()
    before = mind.state
    for _ in range(1000):
        mind.handle(says(say.AskQuote(LEASE, LIMITS)), START)
    assert mind.state is before


# -- opening -----------------------------------------------------------------------------------------
def test_opening_twice_tells_the_state_and_prepares_once() -> None:
    assert (
        Playbook(channelled())
        >> says(OPEN)
        << want.Prepare(LEASE, LIMITS)
        >> says(OPEN)
        << told_of(LEASE, LeaseState.OPENING)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
        >> says(OPEN)
        << told_of(LEASE, LeaseState.RUNNING)
    )


def test_a_quote_that_was_made_for_another_tenant_opens_nothing() -> None:
    assert Playbook(channelled()) >> says(OPEN, MALLORY) << Refused("quote.not-yours")


def test_an_expired_quote_opens_nothing() -> None:
    assert Playbook(channelled()) >> Wait(61) >> says(OPEN) << refusal(LEASE, "quote.expired")


def test_the_last_room_goes_to_the_first_who_opens() -> None:
    policy = replace(FREE_POLICY, capacity=LIMITS)
    assert (
        Playbook(provider(policy))
        >> says(say.OpenLease(free_quote(), SIG64))
        << want.Prepare(LEASE, LIMITS)
        >> says(say.OpenLease(free_quote(LEASE2), SIG64))
        << refusal(LEASE2, "provider.full")
    )


def test_a_paid_lease_wants_a_channel() -> None:
    assert Playbook(provider()) >> says(OPEN) << refusal(LEASE, "channel.none")


def test_a_paid_lease_wants_a_confirmed_channel_where_no_credit_is_given() -> None:
    assert Playbook(channelled(confirmations=0)) >> says(OPEN) << refusal(LEASE, "channel.unconfirmed")


def test_an_announcement_may_be_overtaken_by_the_request_to_open() -> None:
    mind = feed(provider(), says(proposal(), our_key=PROVIDER_KEY))
    assert Playbook(mind) >> says(OPEN) << refusal(LEASE, "channel.unconfirmed")


WAITING = told_of(LEASE, LeaseState.OPENING, reason=Like(Reason, code="channel.unconfirmed"))


def test_room_is_kept_for_who_has_really_sent_the_funding_off() -> None:
    mind = feed(channelled(confirmations=0), told.FundingSeen(CHANNEL, 0))
    assert (
        Playbook(mind)
        >> says(OPEN)
        << WAITING
        >> says(OPEN)
        << WAITING
        >> told.HostPrepared(LEASE)
        >> says(say.OpenLease(quote(LEASE2), SIG64))
        << refusal(LEASE2, "channel.unconfirmed")
        >> Wait(3600)
        >> told.Ticked()
        >> told.FundingSeen(CHANNEL, 1)
        << told_of_channel(ChannelState.OPEN)
        << want.Prepare(LEASE, LIMITS)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
    )


def test_room_is_kept_only_until_the_funding_is_gone() -> None:
    mind = feed(channelled(confirmations=0), told.FundingSeen(CHANNEL, 0), says(OPEN))
    assert mind_of.free(mind.state).cpu_milli == 3000
    assert (
        Playbook(mind)
        >> told.FundingGone(CHANNEL, WHY)
        << told_of_channel(ChannelState.ABANDONED)
        << told_of(LEASE, LeaseState.ENDING, reason=WHY)
        << want.Finish(LEASE)
    )


def test_room_is_not_kept_for_ever() -> None:
    mind = feed(channelled(confirmations=0), told.FundingSeen(CHANNEL, 0), says(OPEN))
    assert (
        Playbook(mind)
        >> Wait(6 * 3600)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="channel.unconfirmed"))
        << want.Finish(LEASE)
    )


def test_a_paid_lease_wants_a_channel_that_can_still_pay() -> None:
    mind = feed(channelled(), pays(CAPACITY - 330))
    assert Playbook(mind) >> says(OPEN) << refusal(LEASE, "channel.exhausted")


def test_a_paid_lease_wants_a_channel_far_from_its_expiry() -> None:
    mind = feed(channelled(), told.BlockSeen(EXPIRY - 288))
    assert Playbook(mind) >> says(OPEN) << refusal(LEASE, "channel.none")


def test_a_machine_that_can_not_prepare_ends_the_lease() -> None:
    assert (
        Playbook(channelled())
        >> says(OPEN)
        << want.Prepare(LEASE, LIMITS)
        >> told.HostFailed(LEASE, WHY)
        << told_of(LEASE, LeaseState.ENDING, reason=WHY)
        << want.Finish(LEASE)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED, reason=WHY)
    )


def test_a_machine_that_never_answers_ends_the_lease() -> None:
    assert (
        Playbook(channelled())
        >> says(OPEN)
        << want.Prepare(LEASE, LIMITS)
        >> Wait(119)
        >> told.Ticked()
        >> Wait(1)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="host.slow"))
        << want.Finish(LEASE)
    )


def test_a_machine_that_was_not_cleared_is_asked_again() -> None:
    assert (
        Playbook(feed(serving_free(), says(say.EndLease(LEASE))))
        >> Wait(60)
        >> told.Ticked()
        << want.Finish(LEASE)
        >> told.Ticked()
        >> Wait(60)
        >> told.Ticked()
        << want.Finish(LEASE)
    )


# -- growing -----------------------------------------------------------------------------------------
MORE = replace(LIMITS, cpu_milli=3000)


def test_a_lease_grows_once_the_machine_has_grown() -> None:
    assert (
        Playbook(serving_free())
        >> says(say.GrowLease(LEASE, MORE))
        << want.Prepare(LEASE, MORE)
        >> says(say.GrowLease(LEASE, MORE))
        << told_of(LEASE, LeaseState.RUNNING, limits=LIMITS)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING, limits=MORE)
        >> says(say.GrowLease(LEASE, MORE))
        << told_of(LEASE, LeaseState.RUNNING, limits=MORE)
    )


def test_a_machine_that_can_not_grow_leaves_the_lease_as_it_was() -> None:
    assert (
        Playbook(serving_free())
        >> says(say.GrowLease(LEASE, MORE))
        << want.Prepare(LEASE, MORE)
        >> told.HostFailed(LEASE, WHY)
        << want.Prepare(LEASE, LIMITS)
        << refusal(LEASE, WHY.code)
        >> says(say.AskLease(LEASE))
        << told_of(LEASE, LeaseState.RUNNING, limits=LIMITS)
    )


def test_what_a_restart_asked_of_the_machine_is_no_answer_to_a_growth() -> None:
    """The machine is as it was; billed as if it had grown, the tenant would pay for what is not there."""
    assert (
        Playbook(serving_free())
        >> says(say.GrowLease(LEASE, MORE))
        << want.Prepare(LEASE, MORE)
        >> told.HostPrepared(LEASE, limits=LIMITS)
        >> told.HostFailed(LEASE, WHY, LIMITS)
        >> says(say.AskLease(LEASE))
        << told_of(LEASE, LeaseState.RUNNING, limits=LIMITS)
        >> told.HostFailed(LEASE, WHY, MORE)
        << want.Prepare(LEASE, LIMITS)
        << refusal(LEASE, WHY.code)
    )


def test_a_lease_does_not_grow_beyond_what_is_left() -> None:
    too_much = replace(LIMITS, cpu_milli=4001)
    all_of_it = replace(LIMITS, cpu_milli=4000)
    assert (
        Playbook(serving_free())
        >> says(say.GrowLease(LEASE, too_much))
        << refusal(LEASE, "provider.full")
        >> says(say.GrowLease(LEASE, all_of_it))
        << want.Prepare(LEASE, all_of_it)
    )


def test_a_lease_may_shrink_even_where_nothing_is_left() -> None:
    mind = serving_free()
    mind.policy = replace(FREE_POLICY, capacity=Resources())
    mind.state = replace(mind.state, policy=mind.policy)
    less = replace(LIMITS, cpu_milli=1)
    assert Playbook(mind) >> says(say.GrowLease(LEASE, less)) << want.Prepare(LEASE, less)


def test_room_that_a_growth_was_promised_is_not_sold_twice() -> None:
    mind = feed(serving_free(), says(say.GrowLease(LEASE, MORE)))
    assert mind_of.free(mind.state).cpu_milli == 1000
    assert mind_of.offer(mind.state, PROVIDER).free.cpu_milli == 1000


def test_an_operator_who_takes_capacity_back_offers_nothing_and_not_less() -> None:
    mind = serving_free()
    state = replace(mind.state, policy=replace(FREE_POLICY, capacity=Resources()))
    assert mind_of.free(state) == Resources()
    assert mind_of.offer(state, PROVIDER).is_sane


# -- reserving less than the limits ---------------------------------------------------------------------
SOFT = Resources(4000, 512 * MIB, 1 * GIB, cpu_soft_milli=3500, memory_soft_bytes=412 * MIB)
"""All four cores of the machine, half a core of them reserved."""


def soft_lease() -> Any:
    mind = feed(provider(FREE_POLICY), says(say.OpenLease(free_quote(limits=SOFT), SIG64)))
    return feed(mind, told.HostPrepared(LEASE, reading(0)))


def test_what_a_tenant_has_not_reserved_is_sold_to_others() -> None:
    mind = soft_lease()
    assert mind_of.free(mind.state) == FREE_POLICY.capacity - SOFT.reserved
    ask = say.OpenLease(free_quote(LEASE2, limits=replace(LIMITS, cpu_milli=3500), tenant=OTHER), SIG64)
    assert Playbook(mind) >> says(ask, OTHER) << want.Prepare(LEASE2, replace(LIMITS, cpu_milli=3500))


def test_what_it_has_reserved_is_not() -> None:
    ask = say.OpenLease(free_quote(LEASE2, limits=replace(LIMITS, cpu_milli=3501), tenant=OTHER), SIG64)
    assert Playbook(soft_lease()) >> says(ask, OTHER) << refusal(LEASE2, "provider.full", OTHER)


def test_a_lease_begins_only_where_all_of_its_limits_fit() -> None:
    more = replace(SOFT, cpu_milli=4001)
    assert (
        Playbook(provider(FREE_POLICY)) >> says(say.AskQuote(LEASE, more)) << refusal(LEASE, "provider.full")
    )


def test_a_lease_that_reserves_more_later_needs_the_room_for_it() -> None:
    mind = soft_lease()
    ask = say.OpenLease(free_quote(LEASE2, limits=replace(LIMITS, cpu_milli=3000), tenant=OTHER), SIG64)
    mind = feed(mind, says(ask, OTHER))
    enough, more = replace(SOFT, cpu_soft_milli=3000), replace(SOFT, cpu_soft_milli=2999)
    assert (
        Playbook(mind)
        >> says(say.GrowLease(LEASE, more))
        << refusal(LEASE, "provider.full")
        >> says(say.GrowLease(LEASE, enough))
        << want.Prepare(LEASE, enough)
    )


def test_only_what_is_reserved_is_billed_as_reserved() -> None:
    mind = soft_lease()
    assert (
        Playbook(mind)
        >> reads(0, 0)
        << billed(seq=1)
        >> Wait(1)
        >> reads(1, 2)
        << billed(
            usage=Like(
                Usage, cpu_ns=2 * SECOND, cpu_reserved_ns=SECOND // 2, memory_reserved_mib_ms=100 * 1000
            )
        )
    )


# -- lies --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "message",
    [say.AskLease(LEASE), say.EndLease(LEASE), say.GrowLease(LEASE, LIMITS), OPEN],
    ids=lambda m: type(m).__name__,
)
def test_the_lease_of_another_tenant_is_not_there(message: say.AnyMessage) -> None:
    assert Playbook(serving()) >> says(message, MALLORY) << Refused("lease.unknown")


@pytest.mark.parametrize(
    "message", [say.AskLease(LEASE2), say.EndLease(LEASE2), say.GrowLease(LEASE2, LIMITS)]
)
def test_a_lease_that_is_not_there_gets_the_same_answer(message: say.AnyMessage) -> None:
    assert Playbook(serving()) >> says(message) << Refused("lease.unknown")


@pytest.mark.parametrize(
    "message",
    [
        say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1),
        say.LeaseNotice(LEASE, LeaseState.RUNNING, LIMITS, START, None),
        statement(),
        quote(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_provider_does_not_take_a_providers_words(message: say.AnyMessage) -> None:
    assert Playbook(serving()) >> says(message) << Refused("message.unexpected")


# -- ending ------------------------------------------------------------------------------------------
def test_ending_twice_ends_once() -> None:
    assert (
        Playbook(serving_free())
        >> says(say.EndLease(LEASE))
        << told_of(LEASE, LeaseState.ENDING)
        << want.Finish(LEASE)
        >> says(say.EndLease(LEASE))
        << told_of(LEASE, LeaseState.ENDING)
        >> told.HostCleared(LEASE)
        << told_of(LEASE, LeaseState.ENDED)
        >> told.HostCleared(LEASE)
        >> says(say.EndLease(LEASE))
        << told_of(LEASE, LeaseState.ENDED)
    )


def test_a_restarted_provider_asks_for_everything_again() -> None:
    mind = feed(serving_free(), says(say.OpenLease(free_quote(LEASE2), SIG64)), says(say.EndLease(LEASE2)))
    assert mind.restart(START) == (want.Prepare(LEASE, LIMITS), want.Finish(LEASE2))


def test_an_ended_and_paid_lease_leaves_memory_but_not_the_account() -> None:
    mind = feed(serving(), reads(1, 1), now=at(1))
    feed(mind, pays(1), says(say.EndLease(LEASE)), told.HostCleared(LEASE), now=at(2))
    feed(mind, told.Ticked(), now=at(3601))
    assert LEASE in mind.state.leases
    feed(mind, told.Ticked(), now=at(3602))
    assert LEASE not in mind.state.leases
    assert mind.state.accounts[TENANT].due == 1000


def test_the_users_own_events_for_the_other_role_change_nothing() -> None:
    assert (
        Playbook(serving())
        >> told.GrowRequested(LEASE, MORE)
        >> told.FundingFailed(CHANNEL, WHY)
        >> told.HostFailed(LEASE, WHY)
        >> told.HostFailed(LEASE2, WHY)
        >> told.HostPrepared(LEASE2)
        >> told.EndRequested(LEASE2, WHY)
        >> told.CloseRequested(CHANNEL2)
        >> told.FundingSeen(CHANNEL2, 1)
        >> told.SpendBuilt(CHANNEL2, CLOSE_TX)
        >> reads(0, 0, LEASE2)
    )


def test_a_lease_below_the_least_price_is_not_sold_but_for_nothing_it_is() -> None:
    picky = replace(POLICY, min_msat_hour=Msat(ceiling(LIMITS, SAT_A_SECOND, HOUR) + 1), free_for=(MALLORY,))
    assert (
        Playbook(provider(picky)) >> says(say.AskQuote(LEASE, LIMITS)) << refusal(LEASE, "provider.too-small")
    )
    assert isinstance(
        feed(provider(picky)).handle(says(say.AskQuote(LEASE, LIMITS), MALLORY), START)[0].message, Quote
    )
    assert picky.offer(PROVIDER, LIMITS).min_msat_hour == picky.min_msat_hour


def test_a_quote_binds_for_its_lifetime_whatever_the_price_is_by_then() -> None:
    mind = feed(channelled(), told.Priced(Tariff(cpu_hour=99_999_999)))
    feed(mind, says(say.OpenLease(quote(), SIG64)))
    assert mind.state.leases[LEASE].tariff == SAT_A_SECOND
    late = Playbook(mind.copy()) >> Wait(61) >> says(say.OpenLease(quote(LEASE2), SIG64))
    assert late << refusal(LEASE2, "quote.expired")


def test_a_lease_is_billed_from_before_its_tenant_could_start_anything() -> None:
    opening = reads(0, 7).reading
    mind = feed(
        provider(FREE_POLICY), says(say.OpenLease(free_quote(), SIG64)), told.HostPrepared(LEASE, opening)
    )
    (first,) = [x.message for x in mind.handle(reads(1, 7.9), at(1))]
    assert first.usage.cpu_ns == SECOND * 9 // 10


def test_a_growth_reads_nothing_for_its_tenant_chose_the_moment() -> None:
    mind = feed(serving_free(), says(say.GrowLease(LEASE, Resources(2000, 512 * MIB, 1 * GIB))))
    before = mind.state.leases[LEASE].meter
    feed(mind, told.HostPrepared(LEASE, reads(0.5, 1).reading), now=at(0.5))
    assert mind.state.leases[LEASE].limits.cpu_milli == 2000
    assert mind.state.leases[LEASE].meter == before
