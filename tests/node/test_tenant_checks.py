# ruff: noqa: F403, F405
"""Looks at random moments: what they find pauses payment, heals, ends the lease, and is remembered."""

from __future__ import annotations

from typing import Any

import msgspec

from dockage.domain.checks import Beside, Counted, Look, Probe
from dockage.domain.lease import LeaseState
from dockage.domain.units import MILLISECOND, MINUTE
from dockage.node.evidence import known
from dockage.testing.playbook import Playbook
from node.parts import *

LOOKING = TenantPolicy(check_every=Duration(10 * MINUTE))
SOON = want.Moment(LEASE, LOOKING.check_soon)


class Story:
    """A second at a time: the containers use half a core, the provider states *lie* times that."""

    def __init__(self) -> None:
        self.mind = feed(renting(), told.Ticked())
        self.mind.policy = LOOKING
        changed(self.mind, policy=LOOKING)
        self.second, self.used, self.said = 0, 0.0, 0.0
        self.last: Statement | None = None
        self.effects: list[Any] = []

    def live(self, seconds: int, lie: float = 1.0) -> Story:
        for _ in range(seconds):
            self.second += 1
            self.used += 0.5
            self.said += 0.5 * lie
            paid = self.mind.state.channels[CHANNEL].paid
            self.last = statement(self.second, self.said, self.last, received_sat=paid)
            self.tell(states(self.last), told.Ticked())
        return self

    def look(self, delivered: float = 0.5, **changes: Any) -> Story:
        self.tell(told.MomentCame(LEASE))
        wall = 500 * MILLISECOND
        probe = Probe(wall, int(delivered * wall), 100, beside=Beside(wall // 2, wall, 1024))
        seen = Look((Counted("web", "now", int(self.used * SECOND), 0),), probe=probe)
        self.tell(told.Looked(LEASE, msgspec.structs.replace(seen, **changes)))
        return self

    def tell(self, *events: Any) -> None:
        for event in events:
            self.effects += self.mind.handle(event, at(self.second))

    @property
    def lease(self) -> Any:
        return self.mind.state.leases[LEASE]


def test_nobody_looks_unless_the_policy_says_so() -> None:
    assert Playbook(renting()) >> told.Ticked() >> told.MomentCame(LEASE)


def test_a_moment_is_asked_for_once_and_again_after_the_limit() -> None:
    story = Story()
    story.tell(told.Ticked(), told.Ticked())
    assert story.effects == [SOON]
    story.second = 69
    story.tell(told.Ticked())
    assert story.effects.count(SOON) == 2


def test_after_a_restart_the_moment_is_asked_for_again() -> None:
    story = Story().live(1)
    assert SOON in story.mind.restart(at(2))


def test_the_truth_changes_nothing_and_looks_become_rare() -> None:
    story = Story()
    for _ in range(4):
        story.live(20).look()
    assert story.lease.checks.judged == 3
    assert story.lease.dispute is story.lease.warning is None
    assert not story.lease.breaches
    assert story.effects[-1] == want.Moment(LEASE, Duration(20 * MINUTE))
    assert story.mind.state.channels[CHANNEL].paid == 40


def test_one_finding_is_none() -> None:
    story = Story().live(4).look().live(12, lie=2).look()
    assert story.lease.checks.overstated == 1
    assert story.lease.dispute is None
    assert not story.lease.breaches


def test_two_pause_payment_with_the_reason_and_are_remembered() -> None:
    story = Story().live(4).look().live(12, lie=1.8).look().live(12, lie=1.8).look()
    paid = story.mind.state.channels[CHANNEL].paid
    story.live(5, lie=1.8)
    assert story.lease.dispute.code == "meter.overstated"
    assert story.mind.state.channels[CHANNEL].paid == paid
    assert story.lease.due < story.lease.stated
    assert [x.reason.code for x in story.lease.breaches] == ["meter.overstated"]
    assert known(story.mind.state, at(0)).risk(PROVIDER) > 6000


def test_what_heals_is_paid() -> None:
    story = Story().live(4).look().live(12, lie=1.8).look().live(12, lie=1.8).look().live(20).look().live(1)
    assert story.lease.dispute is None
    assert story.lease.due == story.lease.stated
    assert story.mind.state.channels[CHANNEL].paid == story.lease.stated // 1000


def test_three_and_we_leave_and_what_was_held_back_is_never_paid() -> None:
    story = Story().live(4).look()
    for _ in range(3):
        story.live(9, lie=1.8).look()
    paid = story.mind.state.channels[CHANNEL].paid
    assert story.lease.state is LeaseState.ENDING
    assert story.lease.reason.code == "meter.overstated"
    assert want.Send(PROVIDER, say.EndLease(LEASE)) in story.effects
    story.live(3)
    assert story.mind.state.channels[CHANNEL].paid == paid


def test_a_dispute_that_no_look_heals_has_a_limit() -> None:
    story = Story().live(4).look().live(9, lie=1.8).look().live(9, lie=1.8).look().live(31)
    assert story.lease.state is LeaseState.ENDING
    assert story.lease.reason.code == "meter.overstated"


def test_a_look_that_fails_or_is_incomplete_accuses_nobody() -> None:
    story = Story().live(4).look()
    for _ in range(4):
        story.live(9, lie=1.8).look(complete=False)
        story.tell(told.MomentCame(LEASE), told.LookFailed(LEASE, WHY))
    assert not story.lease.breaches
    assert story.lease.checks.judged == 0
    assert story.lease.checks.unchecked == 1


def test_a_short_core_is_a_warning_that_five_good_probes_take_back() -> None:
    story = Story().live(3)
    for _ in range(4):
        story.live(5).look(delivered=0.1)
    assert story.lease.warning.code == "meter.short"
    assert [x.reason.code for x in story.lease.breaches] == ["meter.short"]
    assert story.lease.dispute is None
    for _ in range(5):
        story.live(5).look(delivered=0.6)
    assert story.lease.warning is None
    assert not story.lease.breaches


def test_a_disagreement_that_may_heal_has_half_a_minute() -> None:
    """Bytes that our own end has not counted yet."""
    story = Story().live(2)
    ahead = Usage(cpu_ns=SECOND, net_in_bytes=40 << 20)
    paid = story.mind.state.channels[CHANNEL].paid
    for second in (4, 10, 20, 30):
        story.second = second
        story.tell(
            states(statement(second, last=story.last, usage=ahead, at=at(second), previous=bytes([9]) * 32))
        )
        assert story.lease.dispute.code == "statement.impossible"
        assert story.mind.state.channels[CHANNEL].paid == paid
    healed = statement(31, usage=ahead, at=at(31), previous=bytes([9]) * 32)
    story.tell(states(healed, sent=40 << 20))
    assert story.lease.dispute is None
    assert not story.lease.breaches
    story.second = 32
    more = Usage(cpu_ns=SECOND, net_in_bytes=90 << 20)
    for second in (32, 63):
        story.second = second
        story.tell(
            states(statement(second, usage=more, at=at(second), previous=bytes([9]) * 32), sent=40 << 20)
        )
    assert story.lease.state is LeaseState.ENDING
    assert story.lease.reason.code == "statement.impossible"
