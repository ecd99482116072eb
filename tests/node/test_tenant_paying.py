# ruff: noqa: F403, F405
"""What a tenant pays for, and each lie that it does not pay for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dockage.domain import channel as channels
from dockage.domain.lease import LeaseState
from dockage.domain.usage import full_use
from dockage.node import tenant as mind_of
from dockage.testing.playbook import Playbook, Refused, Wait
from node.parts import *

END = want.Send(PROVIDER, say.EndLease(LEASE))


def pay(amount: int, channel: ChannelId = CHANNEL) -> want.Pay:
    return want.Pay(PROVIDER, channel, Sat(amount))


def lease(mind: Any) -> Any:
    return mind.state.leases[LEASE]


FIRST = statement(1, 1)


def test_each_statement_is_paid_in_whole_satoshis() -> None:
    assert (
        Playbook(renting())
        >> states(statement(1, 0.5))
        >> states(statement(2, 1.999, statement(1, 0.5)))
        << pay(1)
    )


def test_a_lost_statement_costs_nothing() -> None:
    assert (
        Playbook(renting())
        >> states(FIRST)
        << pay(1)
        >> Wait(10)
        >> states(statement(7, 9, received_sat=Sat(1)))
        << pay(9)
    )


def test_a_lost_payment_is_made_again() -> None:
    assert (
        Playbook(renting())
        >> states(FIRST)
        << pay(1)
        >> states(statement(2, 1.1, FIRST, received_sat=Sat(0)))
        << pay(1)
        >> states(statement(3, 1.2, statement(2, 1.1, FIRST, received_sat=Sat(0)), received_sat=Sat(1)))
    )


def test_a_statement_said_again_is_paid_again_with_the_same_payment() -> None:
    assert Playbook(renting()) >> states(FIRST) << pay(1) >> states(FIRST) << pay(1)


def test_a_payment_that_was_lost_on_an_older_channel_is_made_again_too() -> None:
    mind = renting()
    old = mind.state.channels[CHANNEL]
    full = channels.pay(old, old.terms.spendable, b"")
    new = replace(old, id=CHANNEL2, txid="aa" * 32)
    agreed = statement(1, old.terms.spendable)
    changed(
        mind,
        channels={CHANNEL: full, CHANNEL2: new},
        leases={LEASE: replace(lease(mind), last=agreed, opened_at=at(-20000), limits_at=at(-20000))},
    )
    following = statement(2, old.terms.spendable + 5, agreed, received_sat=Sat(0))
    assert Playbook(mind) >> states(following) << pay(old.terms.spendable) << pay(5, CHANNEL2)


def test_the_leases_of_a_pair_are_one_account() -> None:
    mind = feed(renting(), rents(candidate(channel=CHANNEL2), lease=LEASE2), from_provider(quote(LEASE2)))
    feed(mind, from_provider(notice(LeaseState.RUNNING, lease=LEASE2)))
    assert Playbook(mind) >> states(statement(1, 0.6)) >> states(statement(1, 0.6, lease=LEASE2)) << pay(1)
    assert mind_of.account(mind.state, PROVIDER).due == 1200


def used_up(refill: bool) -> Any:
    """One satoshi is left of the channel."""
    mind = renting()
    mind.policy = TenantPolicy(refill=refill)
    changed(mind, policy=mind.policy)
    full = channels.pay(mind.state.channels[CHANNEL], Sat(CAPACITY - 331), b"")
    changed(mind, channels={CHANNEL: full}, leases={LEASE: replace(lease(mind), limits_at=at(-20000))})
    return changed(mind, leases={LEASE: replace(lease(mind), last=AGREED)})


AGREED = statement(1, CAPACITY - 331)
OVER = statement(2, CAPACITY - 329, AGREED, received_sat=Sat(CAPACITY - 331))
FAR_OVER = statement(3, CAPACITY - 328, OVER, received_sat=Sat(CAPACITY - 330))


def test_a_channel_that_is_used_up_ends_the_lease_where_there_is_to_be_no_successor() -> None:
    mind = used_up(refill=False)
    assert Playbook(mind) >> states(OVER) << pay(CAPACITY - 330) >> states(FAR_OVER) << END
    assert lease(mind).reason.code == "channel.exhausted"


def test_a_successor_that_did_not_come_about_ends_it_with_the_reason() -> None:
    mind = feed(used_up(refill=True), told.Ticked(), told.PlanFailed(PROVIDER, WHY))
    assert Playbook(mind, restarts=False) >> states(OVER) << pay(CAPACITY - 330) >> states(FAR_OVER) << END
    assert lease(mind).reason.code == "channel.exhausted"
    assert WHY.text in lease(mind).reason.text


def test_one_that_is_on_its_way_is_waited_for_and_takes_over() -> None:
    mind = feed(used_up(refill=True), told.Ticked(), told.ChannelPlanned(PROVIDER, plan(CHANNEL2)))
    assert Playbook(mind) >> states(OVER) << pay(CAPACITY - 330) >> states(FAR_OVER)
    feed(
        mind,
        from_provider(say.AcceptChannel(CHANNEL2, PROVIDER_KEY, 1)),
        told.FundingBuilt(CHANNEL2, TXID, 5, b"funding", Sat(154)),
    )
    after = statement(4, CAPACITY - 327, FAR_OVER, received_sat=Sat(CAPACITY - 330))
    assert Playbook(mind) >> states(after) << pay(3, CHANNEL2)


def test_one_bill_is_paid_over_two_channels_open_ones_first() -> None:
    mind = used_up(refill=True)
    old = mind.state.channels[CHANNEL]
    loose = replace(old, id=CHANNEL2, txid="aa" * 32, paid=Sat(0), state=ChannelState.FUNDED)
    changed(mind, channels={CHANNEL2: loose, CHANNEL: old})
    assert Playbook(mind) >> states(OVER) << pay(CAPACITY - 330) << pay(1, CHANNEL2)


# -- lies --------------------------------------------------------------------------------------------
SECOND_STATEMENT = statement(2, 2, FIRST, received_sat=Sat(1))


def second(**changes: Any) -> Statement:
    return statement(2, changes.pop("cpu", 2), changes.pop("last", FIRST), received_sat=Sat(1), **changes)


LIES = {
    "forked": second(last=statement(1, 0.9)),
    "two with one number": statement(1, 1.5),
    "backwards": second(cpu=0.9),
    "a clock that went back": second(at=at(0)),
    "another quote": second(terms=digest(free_quote())),
    "too dear": second(due=Msat(2001)),
    "too cheap": second(due=Msat(1999)),
    "more cpu than there is": second(cpu=9.3),
    "more memory than there is": second(usage=Usage(cpu_ns=2 * SECOND, memory_mib_ms=512 * 7001)),
    "more disk than there is": second(usage=Usage(cpu_ns=2 * SECOND, disk_mib_ms=2 * 1024 * 7001)),
    "reserved too long": second(usage=Usage(cpu_ns=2 * SECOND, cpu_reserved_ns=7_000_001_000)),
    "reserved memory too long": second(usage=Usage(cpu_ns=2 * SECOND, memory_reserved_mib_ms=512 * 7001)),
    "bytes in that we never sent": second(usage=Usage(cpu_ns=2 * SECOND, net_in_bytes=32 * MIB + 1)),
    "bytes out that never came": second(usage=Usage(cpu_ns=2 * SECOND, net_out_bytes=32 * MIB + 1)),
    "an internet that is too fast": second(
        usage=Usage(cpu_ns=2 * SECOND, internet_out_bytes=256 * MIB + 12_500_000 * 7 + 1)
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lie_is_not_paid_and_the_truth_after_it_is(lie: Statement) -> None:
    mind = feed(renting(), states(FIRST))
    before = feed(mind.copy(), states(lie), now=at(2))
    assert lease(before).faults == 1
    assert Playbook(before) >> states(SECOND_STATEMENT) << pay(2)


@pytest.mark.parametrize(
    "truth",
    [
        second(cpu=9.07),
        second(usage=Usage(cpu_ns=2 * SECOND, memory_mib_ms=512 * 7000)),
        second(usage=Usage(cpu_ns=2 * SECOND, net_in_bytes=32 * MIB)),
        second(usage=Usage(cpu_ns=2 * SECOND, internet_out_bytes=256 * MIB + 12_500_000 * 7)),
    ],
)
def test_at_the_brim_it_is_still_believed(truth: Statement) -> None:
    mind = feed(renting(), states(FIRST))
    assert Playbook(mind, now=at(2)) >> states(truth) << pay(truth.due // 1000)


def test_bytes_that_we_counted_ourselves_are_paid() -> None:
    lots = Usage(cpu_ns=1 * SECOND, net_in_bytes=200 * MIB, net_out_bytes=300 * MIB)
    assert Playbook(renting()) >> states(statement(usage=lots), sent=200 * MIB, received=300 * MIB) << pay(1)


def test_three_lies_in_a_row_and_we_leave() -> None:
    mind = feed(renting(), states(FIRST))
    lie = states(LIES["too dear"])
    accused = want.Accuse(PROVIDER, quote(), SIG64, LIES["too dear"], SIG64)
    assert (
        Playbook(mind, now=at(2))
        >> lie
        << accused
        >> lie
        << accused
        >> lie
        << accused
        << END
        >> lie
        << accused
    )
    assert lease(mind).reason.code == "statement.sum"


def test_lies_far_apart_are_not_three_in_a_row() -> None:
    mind = feed(renting(), states(FIRST))
    feed(mind, *[states(LIES["too dear"])] * 2, states(SECOND_STATEMENT), *[states(LIES["too dear"])] * 2)
    assert lease(mind).state is LeaseState.RUNNING


def test_an_overtaken_statement_is_no_lie() -> None:
    mind = feed(renting(), states(statement(5, 2)))
    assert Playbook(mind) >> states(FIRST) >> states(FIRST) >> states(FIRST) >> states(FIRST)
    assert lease(mind).state is LeaseState.RUNNING


def test_the_statement_of_another_provider_is_not_paid() -> None:
    assert Playbook(renting()) >> states(FIRST, MALLORY) << Refused("lease.unknown")


def test_before_the_lease_runs_nothing_is_paid() -> None:
    assert Playbook(opening()) >> states(FIRST)
    assert Playbook(quoted()) >> states(FIRST)


# -- the end -----------------------------------------------------------------------------------------
def test_the_last_statement_is_paid_though_the_lease_has_ended() -> None:
    mind = feed(renting(), states(FIRST), from_provider(notice(LeaseState.ENDED)), now=at(2))
    assert (
        Playbook(mind, now=at(2)) >> states(SECOND_STATEMENT) << pay(2) >> states(SECOND_STATEMENT) << pay(2)
    )


def test_what_was_used_after_the_end_is_not_paid() -> None:
    mind = feed(renting(), states(FIRST), told.EndRequested(LEASE, WHY), now=at(2))
    feed(mind, told.Ticked(), now=at(13))
    assert lease(mind).state is LeaseState.ENDED
    until = 2 + 10 + 5  # when we left, the time we asked it to end, the slack
    assert (
        Playbook(mind, now=at(100))
        >> states(statement(90, until + 3, at=at(90)))
        << END
        >> states(statement(91, until, at=at(10), received_sat=Sat(1)))
        << pay(until)
    )


# -- other limits ------------------------------------------------------------------------------------
def test_a_provider_that_cannot_know_that_we_left_is_not_paid_and_not_accused() -> None:
    """Cut off, it goes on billing the time: honestly, and in vain."""
    leaving = feed(renting(), states(FIRST), told.EndRequested(LEASE, WHY), now=at(2))
    late = statement(
        seq=2,
        previous=digest(FIRST),
        at=at(200),
        usage=Usage(cpu_ns=1 * SECOND, cpu_reserved_ns=200 * SECOND),
    )
    for seconds in (100, 200, 300):
        leaving = feed(leaving, states(late), now=at(seconds))
    assert lease(leaving).dispute.code == "statement.impossible"
    assert lease(leaving).breaches == ()
    running = feed(renting(), states(FIRST))
    lie = replace(late, usage=Usage(cpu_ns=1 * SECOND, cpu_reserved_ns=2000 * SECOND))
    for seconds in (2, 3, 40):
        running = feed(running, states(lie), now=at(seconds))
    assert [x.reason.code for x in lease(running).breaches] == ["statement.impossible"]


def test_more_reserved_than_was_asked_for_is_impossible() -> None:
    mind = renting()
    soft = LIMITS.reserving(500, 64 * MIB)
    changed(mind, leases={LEASE: replace(lease(mind), limits=soft)})
    honest = full_use(soft, Duration(20 * SECOND))
    for field in ("cpu_reserved_ns", "memory_reserved_mib_ms"):
        lie = replace(Usage(), **{field: 2 * getattr(honest, field)})
        running = feed(renting(), now=START)
        changed(running, leases={LEASE: replace(lease(running), limits=soft)})
        feed(running, states(statement(1, usage=lie, due=price(lie, SAT_A_SECOND))), now=at(20))
        assert lease(running).dispute.code == "statement.impossible"
    told_honestly = replace(honest, cpu_ns=0, memory_mib_ms=0, disk_mib_ms=0)
    feed(mind, states(statement(1, usage=told_honestly, due=price(told_honestly, SAT_A_SECOND))), now=at(20))
    assert lease(mind).dispute is None


def test_what_was_used_under_larger_limits_is_believed_after_shrinking() -> None:
    """Ten seconds of four cores, then of one: 50 CPU seconds are possible, and 70 are not."""
    large, small = replace(LIMITS, cpu_milli=4000), LIMITS
    mind = renting()
    changed(mind, leases={LEASE: replace(lease(mind), limits=large)})
    feed(mind, told.GrowRequested(LEASE, small), now=at(10))
    feed(mind, from_provider(notice(LeaseState.RUNNING, limits=small)), now=at(10))
    assert (
        Playbook(mind, now=at(20))
        >> states(statement(1, 50))
        << pay(50)
        >> states(statement(2, 70, statement(1, 50)))
    )


def test_a_growth_that_we_do_not_know_of_yet_may_already_be_charged() -> None:
    more = replace(LIMITS, cpu_milli=4000)
    mind = feed(renting(), told.GrowRequested(LEASE, more), now=at(10))
    assert Playbook(mind, now=at(20)) >> states(statement(1, 50)) << pay(50)
    feed(mind, told.Received(PROVIDER, say.Refusal(LEASE, WHY)), now=at(20))
    feed(mind, from_provider(notice(LeaseState.RUNNING)), now=at(20))
    assert Playbook(mind, now=at(30)) >> states(statement(2, 80, statement(1, 50), received_sat=Sat(50)))


# -- proofs ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lie", ["forked", "two with one number", "backwards"])
def test_what_contradicts_an_earlier_statement_is_kept_as_a_proof(lie: str) -> None:
    accused = want.Accuse(PROVIDER, FIRST, SIG64, LIES[lie], SIG64)
    mind = feed(renting(), states(FIRST))
    assert Playbook(mind, now=at(2)) >> states(LIES[lie]) << accused >> states(SECOND_STATEMENT) << pay(2)


def test_wrong_arithmetic_is_proven_with_the_quote() -> None:
    mind = feed(renting(), states(FIRST))
    accused = want.Accuse(PROVIDER, quote(), SIG64, LIES["too dear"], SIG64)
    assert Playbook(mind, now=at(2)) >> states(LIES["too dear"]) << accused


@pytest.mark.parametrize("lie", LIES.keys() - {"forked", "two with one number", "backwards"})
def test_other_lies_prove_nothing_to_others(lie: str) -> None:
    if LIES[lie].due == price(LIES[lie].usage, SAT_A_SECOND) and LIES[lie].at >= FIRST.at:
        assert Playbook(feed(renting(), states(FIRST)), now=at(2)) >> states(LIES[lie])
