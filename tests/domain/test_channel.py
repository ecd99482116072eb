"""A channel from agreement to burial, by example and by whatever a counterparty may send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from dockage.domain import channel as ch
from dockage.domain.channel import BURIED, RESERVE, Channel, ChannelState, SpendingTx, Terms
from dockage.domain.errors import PeerError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import Instant, Sat

WHY = Reason("test", "because")
TERMS = Terms(b"\2" * 33, b"\3" * 33, 3000, Sat(10_000), b"\x51\x20" + bytes(32))
CLOSE = SpendingTx("cc" * 32, b"close", Sat(204))


def channel(state: str = "opening", **fields: Any) -> Channel:
    found = Channel(ChannelId(b"c" * 16), NodeKey(b"p" * 32), TERMS, ChannelState(state))
    return replace(found, **fields)


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(PeerError) as caught:
        yield
    assert caught.value.code == code


def test_the_story_of_a_channel() -> None:
    opened = ch.confirm(ch.fund(channel(), "ab" * 32, 1, 1000), 1)
    assert (opened.state, opened.seen, opened.opened_height) == (ChannelState.OPEN, True, 1000 - BURIED)
    paid = ch.pay(ch.pay(opened, Sat(1), b"one"), Sat(5), b"five")
    assert (paid.paid, paid.signature, paid.remaining) == (5, b"five", 10_000 - RESERVE - 5)
    closing = ch.spend(paid, CLOSE, ChannelState.CLOSING)
    assert closing.spending == (CLOSE,)
    assert ch.spend(closing, CLOSE, ChannelState.CLOSING) == closing
    shallow = ch.settle(closing, CLOSE.txid, BURIED - 1)
    assert (shallow.state, shallow.settled_txid) == (ChannelState.CLOSING, CLOSE.txid)
    assert not shallow.is_spent_by_other
    assert ch.settle(shallow, CLOSE.txid, BURIED).state is ChannelState.CLOSED


def test_a_channel_that_was_agreed_on_is_worth_nothing_yet() -> None:
    new = Channel(ChannelId(b"c" * 16), NodeKey(b"p" * 32), TERMS)
    assert (new.state, new.paid, new.confirmations, new.needed) == (ChannelState.OPENING, 0, 0, 1)
    assert (new.vout, new.opened_height, new.spent_height, new.funding_fee) == (0, 0, 0, 0)
    assert not any((new.seen, new.txid, new.spending, new.close_at, new.asked_until, new.settled_txid))
    assert not CLOSE.given_back
    assert (CLOSE.channels, CLOSE.share) == (1, CLOSE.fee)


@pytest.mark.parametrize(
    ("record", "field"),
    [(channel(), "paid"), (TERMS, "expiry_height"), (CLOSE, "fee")],
    ids=lambda x: str(x)[:12],
)
def test_nothing_changes_a_record_in_place(record: Any, field: str) -> None:
    """A refused event could leave a trace otherwise."""
    with pytest.raises(AttributeError):
        setattr(record, field, 7)


@pytest.mark.parametrize("record", [TERMS, CLOSE], ids=lambda x: type(x).__name__)
def test_what_a_newer_version_has_written_is_not_read_in_part(record: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({**msgspec.to_builtins(record), "more": 1}, type(record))


def test_larger_channels_open_deeper_and_a_reorganisation_takes_it_back() -> None:
    funded = replace(ch.fund(channel(), "ab" * 32, 0, 1000), needed=3)
    assert ch.confirm(funded, 2).state is ChannelState.FUNDED
    opened = ch.confirm(funded, 3)
    assert opened.state is ChannelState.OPEN
    again = ch.confirm(opened, 1)
    assert (again.state, again.confirmations) == (ChannelState.FUNDED, 1)


def test_the_same_funding_twice_is_one_and_another_is_refused() -> None:
    funded = ch.fund(channel(), "ab" * 32, 1, 1000)
    assert ch.fund(funded, "ab" * 32, 1, 2000) == funded
    with refused("channel.refunded-twice"):
        ch.fund(funded, "ab" * 32, 2, 1000)
    with refused("channel.not-open"):
        ch.fund(channel("abandoned"), "ab" * 32, 1, 1000)


@pytest.mark.parametrize("state", ["opening", "closing", "closed", "refunding", "abandoned"])
def test_only_a_live_channel_is_paid_on(state: str) -> None:
    with refused("channel.not-open"):
        ch.pay(channel(state), Sat(1), b"")


@pytest.mark.parametrize(
    ("total", "code"),
    [
        (4, "channel.not-increasing"),
        (5, "channel.not-increasing"),
        (0, "channel.not-increasing"),
        (-1, "channel.not-increasing"),
        (9_671, "channel.overdrawn"),
        (10_000, "channel.overdrawn"),
    ],
)
def test_at_the_brim_it_is_refused(total: int, code: str) -> None:
    with refused(code):
        ch.pay(channel("open", paid=Sat(5)), Sat(total), b"")


@pytest.mark.parametrize("total", [6, 9_670])
def test_at_the_brim_it_is_still_taken(total: int) -> None:
    assert ch.pay(channel("open", paid=Sat(5)), Sat(total), b"").paid == total


def test_whoever_spent_it_it_takes_no_payment_any_more() -> None:
    spent = ch.settle(channel("open"), "dd" * 32, 1)
    assert (spent.state, spent.is_spent_by_other) == (ChannelState.CLOSING, True)
    assert ch.settle(channel("open"), "dd" * 32, 0).state is ChannelState.OPEN
    assert ch.settle(channel("open"), "dd" * 32, BURIED).state is ChannelState.CLOSED
    assert ch.settle(channel("opening"), "dd" * 32, BURIED).state is ChannelState.OPENING


@pytest.mark.parametrize("state", list(ChannelState))
def test_a_funding_that_vanished_abandons_what_was_not_yet_settled(state: ChannelState) -> None:
    gone = ch.vanish(channel(state), WHY)
    untouched = state in (ChannelState.OPENING, ChannelState.CLOSED, ChannelState.ABANDONED)
    assert gone.state is (state if untouched else ChannelState.ABANDONED)
    settled = channel(state, settled_txid=CLOSE.txid)
    assert ch.vanish(settled, WHY) == settled


@pytest.mark.parametrize(
    ("state", "back"), [("closing", "closing"), ("refunding", "refunding"), ("expired", "expired")]
)
def test_a_reorganisation_undoes_what_had_spent_it(state: str, back: str) -> None:
    spent = channel(state, txid="ab" * 32, settled_txid="ee" * 32)
    for undone in (ch.settle(spent, "ee" * 32, 0), ch.confirm(spent, 3)):
        assert (undone.state, undone.settled_txid) == (back, "")
    buried = channel("closed", txid="ab" * 32, settled_txid="ee" * 32)
    assert ch.confirm(buried, 3) == ch.settle(buried, "ee" * 32, 0) == buried


@pytest.mark.parametrize(
    ("state", "after"),
    [
        ("open", "funded"),
        ("funded", "funded"),
        ("closing", "closing"),
        ("expired", "expired"),
        ("refunding", "refunding"),
    ],
)
def test_a_funding_that_no_node_shows_is_a_word_again(state: str, after: str) -> None:
    was = channel(state, txid="ab" * 32, confirmations=3, seen=True, settled_txid="ee" * 32, paid=Sat(5))
    assert ch.miss(was) == channel(after, txid="ab" * 32, paid=Sat(5))


def test_what_is_over_or_never_was_cannot_be_missed() -> None:
    for state in ("closed", "abandoned"):
        over = channel(state, txid="ab" * 32, confirmations=3, seen=True)
        assert ch.miss(over) == over
    assert ch.miss(channel(confirmations=3)) == channel(confirmations=3)


def test_a_close_of_several_is_shared_and_rounded_up() -> None:
    assert [SpendingTx("aa", b"", Sat(205), channels=n).share for n in (1, 2, 3)] == [205, 103, 69]


def test_what_the_provider_gets_besides_is_in_the_terms() -> None:
    terms = ch.with_setup(TERMS, b"script", Sat(1000))
    assert (terms.setup_script, terms.setup_sat, terms.spendable) == (b"script", 1000, TERMS.spendable)


def test_the_search_for_a_spender_begins_before_the_funding_but_not_before_the_chain() -> None:
    assert ch.fund(channel(), "ab" * 32, 1, BURIED - 1).opened_height == 0
    assert ch.fund(channel(), "ab" * 32, 1, BURIED + 1).opened_height == 1


def test_a_funding_that_comes_after_all_brings_the_channel_back() -> None:
    opened = ch.confirm(ch.fund(channel(), "ab" * 32, 1, 1000), 1)
    lost = ch.vanish(ch.pay(opened, Sat(7), b"sig"), WHY)
    assert (lost.state, lost.confirmations, lost.reason) == (ChannelState.ABANDONED, 0, WHY)
    back = ch.confirm(lost, 1)
    assert (back.state, back.paid, back.reason) == (ChannelState.OPEN, 7, None)
    assert ch.confirm(lost, 0).state is ChannelState.FUNDED
    assert ch.confirm(channel("abandoned"), 1).state is ChannelState.ABANDONED  # it never had a funding


@pytest.mark.parametrize(
    ("fields", "height", "watched"),
    [
        ({"state": "opening"}, 0, False),
        ({"state": "open", "txid": "ab"}, 9000, True),
        ({"state": "closed", "txid": "ab", "paid": Sat(1)}, 0, False),
        ({"state": "abandoned", "txid": "ab", "paid": Sat(1)}, 3143, True),
        ({"state": "abandoned", "txid": "ab", "funding_raw": b"raw"}, 3143, True),
        ({"state": "abandoned", "txid": "ab", "paid": Sat(1)}, 3144, False),
        ({"state": "abandoned", "txid": "ab"}, 0, False),
        ({"state": "abandoned", "paid": Sat(1)}, 0, False),
    ],
)
def test_what_is_given_up_is_watched_while_it_is_worth_something(
    fields: dict[str, Any], height: int, watched: bool
) -> None:
    assert channel(**fields).is_watched_at(height) is watched


@pytest.mark.parametrize("state", ["funded", "open", "closing"])
def test_at_the_expiry_what_nobody_spent_is_the_tenants(state: str) -> None:
    assert ch.expire(channel(state), 2999).state == state
    assert ch.expire(channel(state), 3000).state is ChannelState.EXPIRED
    spent = channel(state, settled_txid="ee" * 32)
    assert ch.expire(spent, 3000) == spent
    with refused("channel.not-open"):
        ch.pay(ch.expire(channel(state), 3000), Sat(1), b"")


@pytest.mark.parametrize("state", ["opening", "closed", "expired", "refunding", "abandoned"])
def test_nothing_else_expires(state: str) -> None:
    assert ch.expire(channel(state), 3000) == channel(state)


def test_the_calendar() -> None:
    live = channel("open")
    assert live.serves_at(3000 - 289)
    assert not live.serves_at(3000 - 288)
    assert not replace(live, close_at=Instant(1)).serves_at(1)
    assert not channel("closing").serves_at(1)
    assert not live.must_settle_at(3000 - 145)
    assert live.must_settle_at(3000 - 144)
    assert not channel("closing").must_settle_at(3000 - 144)


def test_a_move_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        ch.move(channel("closed"), ChannelState.OPEN)


def test_every_state_is_in_the_table_and_what_is_over_is_over() -> None:
    assert set(ch.TRANSITIONS) == set(ChannelState)
    assert [state.value for state in ChannelState if not ch.TRANSITIONS[state]] == ["closed"]
    assert ch.TRANSITIONS[ChannelState.ABANDONED] == {ChannelState.FUNDED, ChannelState.OPEN}


class AnyCounterparty(RuleBasedStateMachine):
    """Whatever the peer and the chain do, the money adds up."""

    @initialize(capacity=st.integers(0, 10**6), needed=st.integers(0, 6))
    def open(self, capacity: int, needed: int) -> None:
        terms = Terms(TERMS.tenant_key, TERMS.provider_key, 3000, Sat(capacity), TERMS.tenant_script)
        self.channel = replace(channel(), terms=terms, needed=needed)
        self.before = self.channel

    def feed(self, change: Any) -> None:
        self.before = self.channel
        try:
            self.channel = change(self.channel)
        except PeerError:
            assert self.channel is self.before

    @rule(txid=st.sampled_from(["ab" * 32, "cd" * 32]), vout=st.integers(0, 1))
    def fund(self, txid: str, vout: int) -> None:
        self.feed(lambda c: ch.fund(c, txid, vout, 1000))

    @rule(depth=st.integers(0, 7))
    def confirm(self, depth: int) -> None:
        self.feed(lambda c: ch.confirm(c, depth))

    @rule(total=st.integers(-5, 2 * 10**6))
    def pay(self, total: int) -> None:
        self.feed(lambda c: ch.pay(c, Sat(total), b"s"))

    @rule(off=st.integers(-1, 1))
    def pay_at_the_brim(self, off: int) -> None:
        self.feed(lambda c: ch.pay(c, Sat(c.terms.spendable + off), b"s"))

    @rule(off=st.integers(-1, 1))
    def pay_again(self, off: int) -> None:
        self.feed(lambda c: ch.pay(c, Sat(c.paid + off), b"s"))

    @rule()
    def close(self) -> None:
        self.feed(lambda c: ch.spend(c, CLOSE, ChannelState.CLOSING) if c.is_live else c)

    @rule(txid=st.sampled_from([CLOSE.txid, "ee" * 32]), depth=st.integers(0, 7))
    def settle(self, txid: str, depth: int) -> None:
        self.feed(lambda c: ch.settle(c, txid, depth))

    @rule()
    def vanish(self) -> None:
        self.feed(lambda c: ch.vanish(c, WHY))

    @rule(height=st.sampled_from([2999, 3000]))
    def expire(self, height: int) -> None:
        self.feed(lambda c: ch.expire(c, height))

    @invariant()
    def the_reserve_is_never_spent(self) -> None:
        assert 0 <= self.channel.paid <= max(0, self.channel.terms.capacity - RESERVE)
        assert type(self.channel.paid) is int

    @invariant()
    def what_was_paid_stays_paid(self) -> None:
        assert self.channel.paid >= self.before.paid

    @invariant()
    def the_outpoint_never_changes(self) -> None:
        assert not self.before.txid or (self.channel.txid, self.channel.vout) == (
            self.before.txid,
            self.before.vout,
        )

    @invariant()
    def each_move_is_in_the_table(self) -> None:
        if self.channel.state is not self.before.state:
            direct = ch.TRANSITIONS[self.before.state]
            assert self.channel.state in direct or any(
                self.channel.state in ch.TRANSITIONS[s] for s in direct
            )

    @invariant()
    def a_live_channel_has_a_funding_and_no_spender(self) -> None:
        if self.channel.is_live:
            assert self.channel.txid
            assert not self.channel.settled_txid


TestAnyCounterparty = AnyCounterparty.TestCase
TestAnyCounterparty.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
