"""A provider that leaves in good order, and hours in which it sells: what its tenants hear, and when leases end."""

from __future__ import annotations

from typing import Any

from dockage.domain.lease import Ending, LeaseState
from dockage.domain.reason import Reason
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as mind_of
from dockage.node.provider_ending import remembered
from dockage.protocol import messages as say
from dockage.testing.playbook import START, Like, Playbook, Wait
from node.parts import (
    FREE_POLICY,
    LEASE,
    LIMITS,
    PROVIDER,
    SIG64,
    TENANT,
    WHY,
    at,
    feed,
    free_quote,
    provider,
    refusal,
    says,
    serving_free,
    told_of,
)


def word(ends_at: int, code: str = WHY.code, **more: Any) -> Like:
    reason = Like(Reason, code=code)
    message = Like(say.LeaseEnding, lease=LEASE, ends_at=ends_at, reason=reason, **more)
    return Like(want.Send, to=TENANT, message=message)


def test_a_drain_is_told_repeated_and_kept_to_the_second() -> None:
    assert (
        Playbook(serving_free())
        >> told.DrainRequested(at(25), WHY)
        << word(at(25), at=START)
        >> Wait(9)
        >> told.Ticked()
        >> Wait(2)
        >> told.Ticked()
        << word(at(25), at=at(11))
        >> Wait(13)
        >> told.Ticked()
        << word(at(25), at=at(24))
        >> Wait(1)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=WHY)
        << want.Finish(LEASE)
    )


def test_a_drain_called_off_is_told_and_leases_go_on() -> None:
    mind = feed(serving_free(), told.DrainRequested(at(60), WHY))
    assert (
        Playbook(mind)
        >> told.DrainCancelled()
        << word(0, "lease.goes-on")
        >> told.Ticked()
        >> Wait(120)
        >> told.Ticked()
    )
    assert mind_of.why_closed(mind.state, START) is None


def test_a_drain_sooner_than_said_is_told_at_once() -> None:
    mind = feed(serving_free(), told.DrainRequested(at(3600), WHY))
    assert Playbook(mind) >> told.DrainRequested(at(60), WHY) << word(at(60))


def test_a_quote_from_before_the_drain_opens_nothing() -> None:
    mind = feed(provider(FREE_POLICY), told.DrainRequested(at(60), WHY))
    assert (
        Playbook(mind)
        >> says(say.OpenLease(free_quote(), SIG64))
        << refusal(LEASE, "provider.draining")
        >> says(say.AskQuote(LEASE, LIMITS))
        << refusal(LEASE, "provider.draining")
    )


def test_while_it_drains_there_is_no_offer() -> None:
    mind = provider(FREE_POLICY)
    assert mind_of.why_closed(mind.state, START) is None
    feed(mind, told.DrainRequested(at(60), WHY))
    assert mind_of.why_closed(mind.state, START) is not None


def test_a_drain_survives_a_restart_until_its_time() -> None:
    end = Ending(at(60), WHY, START)
    assert remembered(end, at(59)) == end
    assert remembered(end, at(60)) is None
    assert remembered(None, START) is None


# -- hours -------------------------------------------------------------------------------------------
def test_leases_end_with_the_selling_hours_and_hear_it_when_they_begin() -> None:
    mind = feed(provider(FREE_POLICY), told.HoursSeen(at(3600)), says(say.OpenLease(free_quote(), SIG64)))
    assert (
        Playbook(mind)
        >> told.HostPrepared(LEASE)
        << told_of(LEASE, LeaseState.RUNNING)
        << word(at(3600), "provider.hours")
        >> Wait(3600)
        >> told.Ticked()
        << told_of(LEASE, LeaseState.ENDING, reason=Like(Reason, code="provider.hours"))
        << want.Finish(LEASE)
    )


def test_shortly_before_the_hours_end_and_after_them_nothing_is_sold() -> None:
    mind = feed(provider(FREE_POLICY), told.HoursSeen(at(3600)))
    assert mind_of.why_closed(mind.state, at(3299)) is None
    assert mind_of.why_closed(mind.state, at(3301)) is not None
    assert mind_of.why_closed(mind.state, at(9000)) is not None
    assert mind_of.offer(mind.state, PROVIDER).until == at(3600)


def test_the_next_day_it_sells_again() -> None:
    mind = feed(provider(FREE_POLICY), told.HoursSeen(at(-5)), told.HoursSeen(at(30_000)))
    assert mind_of.why_closed(mind.state, START) is None


def test_the_earlier_of_two_ends_counts() -> None:
    mind = feed(serving_free(), told.HoursSeen(at(3600)))
    assert Playbook(mind.copy()) >> told.DrainRequested(at(60), WHY) << word(at(60))
    assert Playbook(mind.copy()) >> told.DrainRequested(at(7200), WHY)
