# ruff: noqa: F403, F405
"""How a tenant finds an engine: candidates, quotes, channels, opening, growing, leaving."""

from __future__ import annotations

import msgspec
import pytest

from dockage.domain.channel import Channel
from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

ASK = want.Send(PROVIDER, say.AskQuote(LEASE, LIMITS))
ASK_OTHER = want.Send(OTHER, say.AskQuote(LEASE, LIMITS))
OPEN = want.Send(PROVIDER, say.OpenLease(quote(), SIG64))
PROPOSE = want.Send(PROVIDER, proposal())
END = want.Send(PROVIDER, say.EndLease(LEASE))
CLOSE = want.Send(PROVIDER, say.CloseChannel(CHANNEL))
ANNOUNCE = want.Send(PROVIDER, say.AnnounceFunding(CHANNEL, TXID, VOUT))
BOTH = (candidate(), candidate(OTHER, CHANNEL2))
RUNNING = from_provider(notice(LeaseState.RUNNING))


def lease(mind: Any, id_: LeaseId = LEASE) -> Any:
    return mind.state.leases[id_]


def refuses(about: bytes, code: str, peer: NodeKey = PROVIDER) -> told.Received:
    return told.Received(peer, say.Refusal(about, Reason(code, "for a test")))


def test_a_free_lease_from_wish_to_end() -> None:
    mind = tenant()
    assert (
        Playbook(mind)
        >> rents(free_candidate())
        << ASK
        >> from_provider(free_quote())
        << want.Send(PROVIDER, say.OpenLease(free_quote(), SIG64))
        >> RUNNING
        >> states(statement(by=free_quote(), due=Msat(0)))
        >> told.EndRequested(LEASE, WHY)
        << END
        >> states(statement(2, 2.0, statement(by=free_quote()), by=free_quote(), due=Msat(0)))
        >> from_provider(notice(LeaseState.ENDED))
    )
    assert (lease(mind).state, lease(mind).reason) == (LeaseState.ENDED, WHY)


def test_a_paid_lease_from_wish_to_the_last_payment() -> None:
    first = statement(1, 1)
    second = statement(2, 2, first, received_sat=Sat(1))
    last = statement(3, 2.5, second, received_sat=Sat(2))
    mind = tenant()
    assert (
        Playbook(mind)
        >> rents()
        << ASK
        >> from_provider(quote())
        << PROPOSE
        >> from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
        << want.Fund(CHANNEL, terms())
        >> told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154))
        << want.Broadcast(CHANNEL, b"funding")
        << ANNOUNCE
        << OPEN
        >> from_provider(notice(LeaseState.OPENING, reason=Reason("channel.unconfirmed", "")))
        >> told.FundingSeen(CHANNEL, 0)
        >> told.FundingSeen(CHANNEL, 1)
        << OPEN
        >> RUNNING
        >> Wait(1)
        >> states(first)
        << want.Pay(PROVIDER, CHANNEL, Sat(1))
        >> Wait(1)
        >> states(second)
        << want.Pay(PROVIDER, CHANNEL, Sat(2))
        >> told.EndRequested(LEASE, WHY)
        << END
        >> from_provider(notice(LeaseState.ENDING))
        >> Wait(1)
        >> states(last)
        >> from_provider(notice(LeaseState.ENDED))
        >> told.CloseRequested(CHANNEL)
        << CLOSE
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 1)
        >> told.SpendSeen(CHANNEL, CLOSE_TX.txid, 6)
    )
    assert mind.state.channels[CHANNEL].state is ChannelState.CLOSED
    assert mind.state.channels[CHANNEL].paid == 2  # 2,500 msat are two whole satoshis


def test_a_wish_that_nobody_can_fill_ends_with_the_reason() -> None:
    mind = tenant()
    assert Playbook(mind) >> told.RentRequested(LEASE, "web", LIMITS, ())
    assert lease(mind).reason.code == "market.nothing-fits"


def test_the_same_wish_twice_is_one_lease() -> None:
    assert Playbook(tenant()) >> rents() << ASK >> rents()


# -- candidates --------------------------------------------------------------------------------------
def test_a_refusal_leads_to_the_next_candidate() -> None:
    mind = tenant()
    assert Playbook(mind) >> rents(*BOTH) << ASK >> refuses(LEASE, "provider.full") << ASK_OTHER
    assert [(who, why.code) for who, why in lease(mind).refusals] == [(PROVIDER, "provider.full")]


def test_silence_leads_to_the_next_candidate() -> None:
    assert (
        Playbook(tenant())
        >> rents(*BOTH)
        << ASK
        >> Wait(2)
        >> told.Ticked()
        << ASK
        >> Wait(1)
        >> told.Ticked()
        >> Wait(5.5)
        >> told.Ticked()
        << ASK_OTHER
    )


def test_when_all_have_refused_it_ends_with_everybodys_reasons() -> None:
    mind = tenant()
    assert (
        Playbook(mind)
        >> rents(*BOTH)
        << ASK
        >> refuses(LEASE, "provider.full")
        << ASK_OTHER
        >> refuses(LEASE, "provider.not-for-you", OTHER)
    )
    assert lease(mind).state is LeaseState.ENDED
    assert [why.code for _, why in lease(mind).refusals] == ["provider.full", "provider.not-for-you"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tenant": MALLORY}, "quote.altered"),
        ({"limits": msgspec.structs.replace(LIMITS, memory_bytes=1)}, "quote.altered"),
        ({"tariff": msgspec.structs.replace(SAT_A_SECOND, cpu_hour=3_600_001)}, "quote.dearer"),
        ({"tariff": msgspec.structs.replace(SAT_A_SECOND, cpu_reserved_hour=1)}, "quote.dearer"),
        ({"tariff": msgspec.structs.replace(SAT_A_SECOND, net_out_gib=1)}, "quote.dearer"),
        ({"tariff": msgspec.structs.replace(SAT_A_SECOND, internet_out_gib=1)}, "quote.dearer"),
    ],
)
def test_a_quote_that_is_not_what_was_listed_is_left(change: dict[str, Any], code: str) -> None:
    mind = feed(tenant(), rents(*BOTH))
    assert Playbook(mind) >> from_provider(quote(**change)) << ASK_OTHER
    assert lease(mind).refusals[0][1].code == code


def test_a_cheaper_quote_is_taken() -> None:
    cheaper = quote(tariff=msgspec.structs.replace(SAT_A_SECOND, cpu_hour=1))
    assert Playbook(feed(tenant(), rents())) >> from_provider(cheaper) << PROPOSE


def test_a_quote_from_somebody_else_is_not_taken() -> None:
    assert Playbook(feed(tenant(), rents())) >> from_provider(quote(), MALLORY) << Refused("lease.unknown")


def test_a_second_quote_changes_nothing() -> None:
    assert Playbook(quoted()) >> from_provider(quote(tariff=FREE))


def test_an_offer_that_costs_needs_a_wallet() -> None:
    listed = msgspec.structs.replace(candidate(), plan=None)
    mind = feed(tenant(), rents(listed))
    assert Playbook(mind) >> from_provider(quote())
    assert lease(mind).reason.code == "wallet.none"


# -- opening -----------------------------------------------------------------------------------------
def test_a_lost_request_to_open_is_said_again() -> None:
    assert (
        Playbook(opening())
        >> Wait(1)
        >> told.Ticked()
        >> Wait(1)
        >> told.Ticked()
        << OPEN
        >> RUNNING
        >> Wait(2)
        >> told.Ticked()
    )


def test_a_provider_that_does_not_open_is_told_to_leave_it_and_left() -> None:
    mind = opening(*BOTH)
    assert Playbook(mind) >> Wait(60.5) >> told.Ticked() << END << ASK_OTHER
    assert (
        Playbook(mind, now=at(61))
        >> RUNNING
        << END
        >> states(statement())
        << END
        >> from_provider(notice(LeaseState.ENDED))
    )


def test_an_expired_quote_is_asked_for_again_but_not_for_ever() -> None:
    expired, again = refuses(LEASE, "quote.expired"), from_provider(quote())
    assert (
        Playbook(opening(*BOTH))
        >> expired
        << ASK
        >> again
        << OPEN
        >> expired
        << ASK
        >> again
        << OPEN
        >> expired
        << ASK
        >> again
        << OPEN
        >> expired
        << ASK_OTHER
    )


def test_an_unconfirmed_channel_is_waited_for() -> None:
    mind = funded()
    assert (
        Playbook(mind)
        >> refuses(LEASE, "channel.unconfirmed")
        >> Wait(7)
        >> told.Ticked()
        >> Wait(1)
        >> told.Ticked()
        << OPEN
        >> from_provider(notice(LeaseState.OPENING, reason=Reason("channel.unconfirmed", "")))
        >> Wait(3600)
        >> told.FundingSeen(CHANNEL, 1)
        << OPEN
        >> told.Ticked()
        >> RUNNING
    )
    assert lease(mind).opened_at == at(3608)  # the wait is not charged


def test_once_the_provider_sees_it_confirmed_its_machine_has_no_more_time_than_any() -> None:
    mind = feed(funded(*BOTH), from_provider(notice(LeaseState.OPENING, reason=WHY)))
    feed(mind, from_provider(notice(LeaseState.OPENING)), now=at(3600))
    feed(mind, told.Ticked(), now=at(3660))
    assert Playbook(mind, now=at(3661)) >> told.Ticked() << END << ASK_OTHER


def test_an_unpaid_bill_is_paid_and_then_asked_again() -> None:
    assert (
        Playbook(opening()) >> refuses(LEASE, "account.unpaid") >> Wait(2) >> told.Ticked() << OPEN >> RUNNING
    )


def test_a_used_up_channel_gets_a_successor() -> None:
    mind = renting()
    state = mind.state
    used = channels_spent(state.channels[CHANNEL])
    changed(mind, channels={CHANNEL: used})
    wish = rents(candidate(channel=CHANNEL2), lease=LEASE2)
    assert (
        Playbook(mind)
        >> wish
        << want.Send(PROVIDER, say.AskQuote(LEASE2, LIMITS))
        >> from_provider(quote(LEASE2))
        << want.Send(PROVIDER, proposal(CHANNEL2))
    )


def channels_spent(channel: Channel) -> Channel:
    from dockage.domain.channel import pay

    return pay(channel, channel.terms.spendable, b"")


def test_a_channel_that_the_provider_will_not_serve_on_gets_a_successor() -> None:
    mind = feed(renting(), rents(candidate(channel=CHANNEL2), lease=LEASE2), from_provider(quote(LEASE2)))
    assert Playbook(mind) >> refuses(LEASE2, "channel.none") << want.Send(PROVIDER, proposal(CHANNEL2))


def test_a_second_lease_waits_for_the_channel_of_the_first() -> None:
    mind = feed(quoted(), rents(candidate(channel=CHANNEL2), lease=LEASE2))
    assert (
        Playbook(mind)
        >> from_provider(quote(LEASE2))
        >> from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1))
        << want.Fund(CHANNEL, terms())
        >> told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154))
        << want.Broadcast(CHANNEL, b"funding")
        << ANNOUNCE
        << OPEN
        << want.Send(PROVIDER, say.OpenLease(quote(LEASE2), SIG64))
        >> told.FundingSeen(CHANNEL, 1)
        << OPEN
        << want.Send(PROVIDER, say.OpenLease(quote(LEASE2), SIG64))
    )


def test_credit_opens_before_the_funding_confirms() -> None:
    given = quote(credit_sat=Sat(3))
    mind = feed(tenant(), rents(), from_provider(given))
    feed(mind, from_provider(say.AcceptChannel(CHANNEL, PROVIDER_KEY, 1)))
    feed(mind, told.FundingBuilt(CHANNEL, TXID, VOUT, b"funding", Sat(154)))
    assert Playbook(mind) >> Wait(2) >> told.Ticked() << want.Send(PROVIDER, say.OpenLease(given, SIG64))


# -- growing -----------------------------------------------------------------------------------------
MORE = msgspec.structs.replace(LIMITS, cpu_milli=3000)
GROW = want.Send(PROVIDER, say.GrowLease(LEASE, MORE))


def test_growing_asks_until_it_is_granted() -> None:
    mind = renting()
    assert (
        Playbook(mind)
        >> told.GrowRequested(LEASE, MORE)
        << GROW
        >> Wait(2)
        >> told.Ticked()
        << GROW
        >> from_provider(notice(LeaseState.RUNNING))
        >> Wait(2)
        >> told.Ticked()
        << GROW
        >> from_provider(notice(LeaseState.RUNNING, limits=MORE))
        >> Wait(2)
        >> told.Ticked()
    )
    assert lease(mind).limits == MORE


def test_an_idle_lease_serves_another_deployment_and_nobody_else_is_told() -> None:
    mind = renting()
    assert Playbook(mind) >> told.Renamed(LEASE, "shop")
    assert lease(mind).deployment == "shop"


def test_growing_may_be_refused() -> None:
    mind = feed(renting(), told.GrowRequested(LEASE, MORE))
    assert Playbook(mind) >> refuses(LEASE, "provider.full") >> Wait(2) >> told.Ticked()
    assert (lease(mind).limits, lease(mind).state) == (LIMITS, LeaseState.RUNNING)


def test_a_provider_can_not_grow_a_lease_by_itself() -> None:
    mind = renting()
    assert Playbook(mind) >> from_provider(notice(LeaseState.RUNNING, limits=MORE))
    assert lease(mind).limits == LIMITS


# -- notices -----------------------------------------------------------------------------------------
def test_freezing_is_shown_and_looked_after() -> None:
    mind = renting()
    ask = want.Send(PROVIDER, say.AskLease(LEASE))
    assert (
        Playbook(mind)
        >> from_provider(notice(LeaseState.PAUSED, reason=WHY))
        >> Wait(2)
        >> told.Ticked()
        << ask
        >> from_provider(notice(LeaseState.RUNNING))
        >> Wait(2)
        >> told.Ticked()
    )
    assert lease(mind).state is LeaseState.RUNNING


def test_a_lease_that_opens_frozen_is_shown_frozen() -> None:
    mind = opening()
    assert Playbook(mind) >> from_provider(notice(LeaseState.PAUSED, reason=WHY))
    assert (lease(mind).state, lease(mind).reason) == (LeaseState.PAUSED, WHY)


def test_the_provider_may_end_it_and_says_why() -> None:
    mind = renting()
    assert (
        Playbook(mind)
        >> from_provider(notice(LeaseState.ENDING, reason=WHY))
        >> Wait(2)
        >> told.Ticked()
        << END
        >> from_provider(notice(LeaseState.ENDED, reason=WHY))
    )
    assert (lease(mind).state, lease(mind).reason) == (LeaseState.ENDED, WHY)


def test_a_notice_about_the_lease_of_another_provider_is_not_believed() -> None:
    assert Playbook(renting()) >> from_provider(notice(LeaseState.ENDED), MALLORY) << Refused("lease.unknown")


def test_an_ended_lease_that_still_runs_there_is_ended_again() -> None:
    mind = feed(renting(), from_provider(notice(LeaseState.ENDED)))
    assert Playbook(mind) >> RUNNING << END >> from_provider(notice(LeaseState.ENDED))


@pytest.mark.parametrize("message", [say.AskLease(LEASE), say.Payment(CHANNEL, Sat(1), SIG64), proposal()])
def test_a_tenant_does_not_take_a_tenants_words(message: say.AnyMessage) -> None:
    assert Playbook(renting()) >> from_provider(message) << Refused("message.unexpected")


# -- silence -----------------------------------------------------------------------------------------
def test_silence_is_asked_about_and_then_the_lease_is_lost() -> None:
    mind = renting()
    ask = want.Send(PROVIDER, say.AskLease(LEASE))
    assert (
        Playbook(mind)
        >> Wait(5)
        >> told.Ticked()
        >> Wait(1)
        >> told.Ticked()
        << ask
        >> Wait(595)
        >> told.Ticked()
        << END
    )
    assert lease(mind).reason.code == "provider.silent"


@pytest.mark.parametrize("state", ["renting", "paused", "ending"])
def test_a_provider_that_lost_the_lease_ends_it(state: str) -> None:
    mind = renting()
    if state == "paused":
        feed(mind, from_provider(notice(LeaseState.PAUSED, reason=WHY)))
    if state == "ending":
        feed(mind, told.EndRequested(LEASE, WHY))
    assert Playbook(mind) >> refuses(LEASE, "lease.unknown")
    assert lease(mind).state is LeaseState.ENDED
    assert lease(mind).reason.code == ("test.reason" if state == "ending" else "lease.unknown-there")


def test_an_end_that_nobody_confirms_is_an_end() -> None:
    mind = feed(renting(), told.EndRequested(LEASE, WHY))
    assert Playbook(mind) >> Wait(2) >> told.Ticked() << END >> Wait(8.5) >> told.Ticked() >> told.Ticked()
    assert lease(mind).state is LeaseState.ENDED


def test_ending_before_anything_was_opened_asks_nobody() -> None:
    for mind in (feed(tenant(), rents()), quoted()):
        assert Playbook(mind) >> told.EndRequested(LEASE, WHY) >> told.EndRequested(LEASE2, WHY)
        assert lease(mind).state is LeaseState.ENDED


def test_a_late_refusal_does_not_change_why_it_ended() -> None:
    mind = feed(renting(), from_provider(notice(LeaseState.ENDED, reason=WHY)))
    assert Playbook(mind) >> refuses(LEASE, "provider.full")
    assert lease(mind).reason == WHY


def test_a_restarted_tenant_asks_what_became_of_its_leases() -> None:
    resume = want.Send(PROVIDER, say.ResumeChannel(CHANNEL))
    assert renting().restart(START) == (want.Send(PROVIDER, say.AskLease(LEASE)), resume)
    assert funded().restart(START) == (want.Broadcast(CHANNEL, b"funding"), ANNOUNCE)
