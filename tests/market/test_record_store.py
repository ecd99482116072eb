"""The notice board: newest wins, bounds hold, and a flood without work displaces nobody."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import MINUTE, SECOND, Instant
from dockage.protocol.record_store import RecordStore, StoreLimits
from dockage.protocol.records import LIFETIME, OfferBody, node_topic, offers_topic, open_record, seal
from dockage.testing.clock import START
from dockage.testing.directory import offer_of, sealed_offer
from dockage.testing.keys import MemoryKeys, verify

A = MemoryKeys(1)
LATER = Instant(START + SECOND)


def trusting(key: NodeKey, message: bytes, signature: bytes) -> bool:
    """The tests of order and bounds need many records and no signatures."""
    return True


def cheap(number: int, region: str = "eu", seq: int = START, work: int = 0) -> tuple[bytes, bytes]:
    """An unsigned offer of publisher *number*; all are in shard 0 of their region."""
    key = NodeKey(bytes([0, *number.to_bytes(31, "big")]))
    offer = msgspec.structs.replace(offer_of(A, region), provider=key)
    body = OfferBody(Instant(seq), Instant(seq + LIFETIME), offer, "", ())
    return offers_topic(region, 0), seal("offer", key, body, lambda m: seq.to_bytes(64, "big"), work)


def all_of(store: RecordStore, topic: bytes, now: Instant = START) -> list[bytes]:
    return list(store.page(topic, b"", frozenset(), now, 1 << 30).records)


def test_a_record_is_held_and_listed() -> None:
    store, (topic, blob) = RecordStore(verify), sealed_offer(A, START)
    assert store.put(topic, blob, START)
    assert all_of(store, topic) == [blob]
    assert len(store) == 1


def test_the_newest_wins_and_a_replay_changes_nothing() -> None:
    store = RecordStore(verify)
    topic, old = sealed_offer(A, START)
    _, new = sealed_offer(A, LATER, cpu=1000)
    assert store.put(topic, new, LATER)
    assert not store.put(topic, old, LATER)
    assert all_of(store, topic, LATER) == [new]


def test_the_same_record_again_is_held_already() -> None:
    store, (topic, blob) = RecordStore(verify), sealed_offer(A, START)
    assert store.put(topic, blob, START)
    assert store.put(topic, blob, START)
    assert len(store) == 1


def test_two_records_with_one_seq_do_not_take_turns() -> None:
    store = RecordStore(verify)
    topic, first = sealed_offer(A, START, cpu=1000)
    _, second = sealed_offer(A, START, cpu=2000)
    held = (
        first if open_record(first, verify, START).work >= open_record(second, verify, START).work else second
    )
    for blob in (first, second, first, second):
        store.put(topic, blob, START)
    assert all_of(store, topic) == [held]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda topic, blob: (topic, blob[:-70] + bytes(70)), "record.malformed"),
        (lambda topic, blob: (topic, blob.replace(b"x86_64", b"x86_65")), "record.signature"),
        (lambda topic, blob: (node_topic(A.node), blob), "record.misplaced"),
        (lambda topic, blob: (topic, blob + bytes(2048)), "record.oversized"),
    ],
)
def test_nothing_that_is_refused_leaves_a_trace(
    spoil: Callable[[bytes, bytes], tuple[bytes, bytes]], code: str
) -> None:
    store = RecordStore(verify)
    with pytest.raises(PeerError) as caught:
        store.put(*spoil(*sealed_offer(A, START)), START)
    assert caught.value.code == code
    assert len(store) == 0
    assert list(store) == []


def test_expired_records_are_not_shown_and_then_dropped() -> None:
    store, (topic, blob) = RecordStore(verify), sealed_offer(A, START, lifetime=MINUTE)
    store.put(topic, blob, START)
    later = Instant(START + MINUTE)
    assert all_of(store, topic, later) == []
    assert store.expire(later) == 1
    assert len(store) == 0


def test_pages_cover_everything_once_and_in_order() -> None:
    store = RecordStore(trusting)
    for number in range(40):
        store.put(*cheap(number), START)
    seen: list[bytes] = []
    after, more = b"", True
    while more:
        page = store.page(offers_topic("eu", 0), after, frozenset(), START, 1000)
        assert page.records
        assert sum(map(len, page.records)) <= 1000
        seen += page.records
        after, more = page.last, page.more
    assert seen == [cheap(number)[1] for number in range(40)]


def test_a_page_always_makes_progress() -> None:
    store = RecordStore(trusting)
    store.put(*cheap(1), START)
    assert len(store.page(offers_topic("eu", 0), b"", frozenset(), START, 1).records) == 1


def test_what_the_reader_knows_is_left_out() -> None:
    store = RecordStore(trusting)
    for number in range(10):
        store.put(*cheap(number), START)
    known = frozenset(record.tag for record in store if record.blob != cheap(3)[1])
    page = store.page(offers_topic("eu", 0), b"", known, START, 1 << 20)
    assert page.records == (cheap(3)[1],)
    assert not page.more


def works(store: RecordStore) -> list[int]:
    return sorted(record.work for record in store)


@pytest.mark.parametrize("limits", [StoreLimits(per_topic=4, floor=0), StoreLimits(total=4, floor=0)])
def test_when_there_is_no_room_work_decides(limits: StoreLimits) -> None:
    store = RecordStore(trusting, limits)
    for number in range(4):
        store.put(*cheap(number, work=6), START)
    before = all_of(store, offers_topic("eu", 0))
    flood = [n for n in range(10, 40) if open_record(cheap(n)[1], trusting, START).work < min(works(store))]
    assert not any(store.put(*cheap(number), START) for number in flood)
    assert all_of(store, offers_topic("eu", 0)) == before
    assert store.put(*cheap(50, work=12), START)
    assert len(store) == 4


def test_a_publisher_may_refresh_in_a_full_topic() -> None:
    store = RecordStore(trusting, StoreLimits(per_topic=1))
    store.put(*cheap(1, work=4), START)
    assert store.put(*cheap(1, seq=LATER), LATER)


# -- shares and weak stamps ------------------------------------------------------------------------------
def test_one_giver_fills_no_more_than_its_share_and_others_still_fit() -> None:
    store = RecordStore(trusting, StoreLimits(per_topic=16, share=4, floor=0))
    for number in range(4):
        assert store.put(*cheap(number), START, b"net")
    with pytest.raises(PeerError) as caught:
        store.put(*cheap(4), START, b"net")
    assert caught.value.code == "record.share"
    assert store.put(*cheap(4), START, b"other")
    assert store.put(*cheap(5), START), "what we put ourselves has no share"
    assert store.put(*cheap(3, seq=LATER), LATER, b"net"), "a refresh always fits"


def test_a_share_is_of_all_topics_together_too_and_comes_back_with_time() -> None:
    store = RecordStore(trusting, StoreLimits(total=16, share=4, floor=0))
    for number in range(4):
        assert store.put(*cheap(number, region=str(number)), START, b"net")
    with pytest.raises(PeerError):
        store.put(*cheap(9, region="9"), START, b"net")
    later = Instant(START + LIFETIME)
    store.expire(later)
    assert store.put(*cheap(9, region="9", seq=later), later, b"net")
    assert len(store._given) == 2
    store.expire(Instant(later + LIFETIME))
    assert not store._given
    assert not store._givers


def test_a_board_that_fills_up_asks_newcomers_for_work() -> None:
    store = RecordStore(trusting, StoreLimits(per_topic=4, floor=6))
    weak = [n for n in range(200) if open_record(cheap(n)[1], trusting, START).work < 6]
    assert store.put(*cheap(weak[0]), START)
    assert store.put(*cheap(weak[1]), START)
    with pytest.raises(PeerError) as caught:
        store.put(*cheap(weak[2]), START)
    assert caught.value.code == "record.weak"
    assert store.put(*cheap(weak[2], work=6), START)
    assert store.put(*cheap(weak[0], seq=LATER), LATER), "who is there may refresh without"


class Board(RuleBasedStateMachine):
    """Any history of puts, replays and time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.store = RecordStore(trusting, StoreLimits(per_topic=3, total=5, floor=0))

    @rule(
        number=st.integers(0, 6), age=st.integers(0, 3), region=st.sampled_from("ab"), work=st.integers(0, 3)
    )
    def put(self, number: int, age: int, region: str, work: int) -> None:
        topic, blob = cheap(number, region, self.now - age * SECOND, work)
        record = open_record(blob, trusting, self.now)
        before = {(r.topic, r.key): r for r in self.store}
        taken = self.store.put(topic, blob, self.now)
        after = {(r.topic, r.key): r for r in self.store}
        old = before.get((topic, record.key))
        if old is not None and record.seq > old.seq:
            assert taken, "a newer record of a held publisher always fits"
        if not taken:
            assert after == before
        for slot in before.keys() - after.keys():
            assert before[slot].work < record.work, "only more work displaces"

    @rule(step=st.sampled_from([SECOND, MINUTE, LIFETIME - 1, LIFETIME]))
    def time_passes(self, step: int) -> None:
        self.now = Instant(self.now + step)

    @rule()
    def expire(self) -> None:
        over = sum(record.expires <= self.now for record in self.store)
        assert self.store.expire(self.now) == over
        assert all(record.expires > self.now for record in self.store)

    @invariant()
    def bounds_hold(self) -> None:
        held = list(self.store)
        assert len(held) == len(self.store) <= 5
        for region in "ab":
            assert sum(record.topic == offers_topic(region, 0) for record in held) <= 3

    @invariant()
    def only_live_records_are_shown(self) -> None:
        shown = [blob for region in "ab" for blob in all_of(self.store, offers_topic(region, 0), self.now)]
        assert sorted(shown) == sorted(record.blob for record in self.store if record.expires > self.now)


TestBoard = Board.TestCase
