"""What a tenant makes of a provider that says when its lease will end."""

from __future__ import annotations

from dockage.domain.lease import LeaseState
from dockage.domain.units import Instant
from dockage.node import events as told
from dockage.protocol import messages as say
from dockage.testing.playbook import START, Playbook, Refused
from node.parts import LEASE, MALLORY, WHY, at, feed, from_provider, notice, renting_free


def word(ends_at: int, said_at: int = START) -> say.LeaseEnding:
    return say.LeaseEnding(LEASE, Instant(ends_at), Instant(said_at), WHY)


def test_an_announced_end_is_known_and_nothing_is_done_about_it() -> None:
    mind = renting_free()
    assert Playbook(mind) >> from_provider(word(at(3600))) >> told.Ticked()
    end = mind.state.leases[LEASE].announced
    assert end is not None
    assert (end.at, end.reason) == (at(3600), WHY)
    assert mind.state.leases[LEASE].state is LeaseState.RUNNING


def test_an_older_word_changes_nothing() -> None:
    mind = feed(renting_free(), from_provider(word(at(60), at(2))), from_provider(word(at(3600), at(1))))
    assert mind.state.leases[LEASE].announced.at == at(60)


def test_an_end_that_was_called_off_stays_called_off() -> None:
    mind = feed(renting_free(), from_provider(word(at(60), at(1))), from_provider(word(0, at(2))))
    assert mind.state.leases[LEASE].announced is None
    feed(mind, from_provider(word(at(60), at(1))))
    assert mind.state.leases[LEASE].announced is None


def test_nobody_else_announces_an_end() -> None:
    assert Playbook(renting_free()) >> from_provider(word(at(60)), MALLORY) << Refused("lease.unknown")


def test_what_has_ended_has_no_end_to_come() -> None:
    mind = feed(renting_free(), from_provider(word(at(60))), from_provider(notice(LeaseState.ENDED)))
    assert mind.state.leases[LEASE].announced is None
    assert Playbook(mind) >> from_provider(word(at(90), at(5)))
