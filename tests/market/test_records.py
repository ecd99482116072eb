"""A record says who sealed it, until when it holds and where it belongs; one test for each lie about that."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant
from dockage.protocol.records import (
    CLOCK_SLACK,
    LIFETIME,
    RECORD_MAX,
    ZONE_LIFETIME,
    ZONE_MAX,
    NodeBody,
    OfferBody,
    ZoneBody,
    check_place,
    node_topic,
    offers_topic,
    offers_topics,
    open_record,
    seal,
    zone_topic,
)
from dockage.testing.clock import START
from dockage.testing.directory import offer_of, sealed_offer
from dockage.testing.keys import MemoryKeys, verify

KEYS, OTHER = MemoryKeys(1), MemoryKeys(2)
TOPIC, BLOB = sealed_offer(KEYS, START)
VECTORS = Path(__file__).parents[2] / "docs/spec/vectors/records.json"


def refusal(blob: bytes, now: Instant = START) -> str:
    with pytest.raises(PeerError) as caught:
        open_record(blob, verify, now)
    return caught.value.code


def body(**changes: object) -> OfferBody:
    fields = {
        "seq": START,
        "expires": Instant(START + LIFETIME),
        "offer": offer_of(KEYS),
        "relay": "",
        "direct": ("127.0.0.1:1",),
    }
    return OfferBody(**{**fields, **changes})  # type: ignore[arg-type]


def envelope(**changes: object) -> bytes:
    """BLOB with fields of the envelope replaced, by position: kind, key, body, signature, stamp."""
    parts = msgspec.msgpack.decode(BLOB)
    for name, value in changes.items():
        parts[("kind", "key", "body", "signature", "stamp").index(name)] = value
    return msgspec.msgpack.encode(parts)


def test_what_was_sealed_is_what_is_opened() -> None:
    record = open_record(BLOB, verify, START)
    assert record.key == KEYS.node
    assert record.body.offer == offer_of(KEYS)
    assert (record.seq, record.expires) == (START, START + LIFETIME)
    assert record.topic == offers_topic("eu", KEYS.node[0] % 8)
    assert record.topic in offers_topics("eu")
    assert len(record.tag) == 8


def test_a_node_record_has_a_topic_of_its_own() -> None:
    blob = seal("node", KEYS.node, NodeBody(START, Instant(START + MINUTE), "", ("1.2.3.4:5",)), KEYS.sign)
    assert open_record(blob, verify, START).topic == node_topic(KEYS.node)


def zone(payload: bytes = b"x", lasts: int = ZONE_LIFETIME) -> bytes:
    return seal("zone", KEYS.node, ZoneBody(START, Instant(START + lasts), payload), KEYS.sign)


def test_a_zone_holds_for_a_day_and_lies_under_its_key() -> None:
    record = open_record(zone(bytes(ZONE_MAX)), verify, Instant(START + ZONE_LIFETIME - 1))
    assert record.topic == zone_topic(KEYS.node)
    assert len(record.blob) < RECORD_MAX


def test_a_stamp_proves_work() -> None:
    _, blob = sealed_offer(KEYS, START, work=6)
    assert open_record(blob, verify, START).work >= 6


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        (BLOB + bytes(RECORD_MAX), "record.oversized"),
        (b"", "record.malformed"),
        (b"\xc1", "record.malformed"),
        (BLOB[:-1], "record.malformed"),
        (BLOB + b"\0", "record.malformed"),
        (envelope(kind="lottery"), "record.malformed"),
        (envelope(key=KEYS.node[:31]), "record.malformed"),
        (envelope(signature=bytes(63)), "record.malformed"),
        (envelope(body=b"nonsense"), "record.malformed"),
        (envelope(stamp=-1), "record.out-of-range"),
        (envelope(signature=bytes(64)), "record.signature"),
        (envelope(key=OTHER.node), "record.out-of-range"),
        (seal("offer", OTHER.node, body(offer=offer_of(OTHER)), KEYS.sign), "record.signature"),
        (seal("offer", KEYS.node, body(offer=offer_of(OTHER)), KEYS.sign), "record.out-of-range"),
        (seal("offer", KEYS.node, body(offer=offer_of(KEYS, cpu=-1)), KEYS.sign), "record.out-of-range"),
        (seal("offer", KEYS.node, body(direct=("1.2.3.4:5",) * 9), KEYS.sign), "record.out-of-range"),
        (seal("offer", KEYS.node, body(relay="x" * 256), KEYS.sign), "record.out-of-range"),
        (seal("offer", KEYS.node, body(expires=START), KEYS.sign), "record.expired"),
        (seal("offer", KEYS.node, body(expires=Instant(START + HOUR)), KEYS.sign), "record.horizon"),
        (zone(b""), "record.out-of-range"),
        (zone(bytes(ZONE_MAX + 1)), "record.out-of-range"),
        (zone(lasts=0), "record.expired"),
        (zone(lasts=ZONE_LIFETIME + CLOCK_SLACK + 1), "record.horizon"),
        (
            seal("zone", OTHER.node, ZoneBody(START, Instant(START + HOUR), b"x"), KEYS.sign),
            "record.signature",
        ),
        (
            seal("node", KEYS.node, ZoneBody(START, Instant(START + HOUR), b"x"), KEYS.sign),
            "record.malformed",
        ),
        (
            seal("offer", KEYS.node, body(seq=Instant(START + CLOCK_SLACK + 1)), KEYS.sign),
            "record.horizon",
        ),
    ],
)
def test_every_lie_has_its_code(blob: bytes, code: str) -> None:
    assert refusal(blob) == code


def test_a_signature_for_another_kind_does_not_count() -> None:
    blob = seal("node", KEYS.node, NodeBody(START, Instant(START + MINUTE), "", ()), KEYS.sign)
    parts = msgspec.msgpack.decode(blob)
    parts[3] = KEYS.sign(b"dockage/1\0offer\0" + parts[2])
    assert refusal(msgspec.msgpack.encode(parts)) == "record.signature"


def test_a_record_holds_until_the_very_moment_it_expires() -> None:
    assert open_record(BLOB, verify, Instant(START + LIFETIME - 1)).key == KEYS.node
    assert refusal(BLOB, Instant(START + LIFETIME)) == "record.expired"


def test_clocks_may_differ_by_the_slack_and_no_more() -> None:
    assert open_record(BLOB, verify, Instant(START - CLOCK_SLACK)).key == KEYS.node
    assert refusal(BLOB, Instant(START - CLOCK_SLACK - 1)) == "record.horizon"


def test_a_record_under_a_foreign_topic_is_misplaced() -> None:
    record = open_record(BLOB, verify, START)
    check_place(record, TOPIC)
    with pytest.raises(PeerError) as caught:
        check_place(record, node_topic(KEYS.node))
    assert caught.value.code == "record.misplaced"


def test_our_own_oversized_record_is_our_users_to_mend() -> None:
    with pytest.raises(UsageError) as caught:
        seal("offer", KEYS.node, body(direct=("x" * RECORD_MAX,)), KEYS.sign)
    assert caught.value.code == "record.oversized"


@given(st.binary(max_size=400))
def test_garbage_is_refused_and_never_crashes(blob: bytes) -> None:
    refusal(blob)


@given(st.integers(0, len(BLOB) - 1), st.integers(1, 255))
def test_no_flipped_bit_goes_unnoticed(at: int, flip: int) -> None:
    """Only the stamp is outside the signature: anybody may restamp, and gains nothing but another work."""
    broken = bytearray(BLOB)
    broken[at] ^= flip
    try:
        record = open_record(bytes(broken), verify, START)
    except PeerError:
        return
    assert record.body == open_record(BLOB, verify, START).body


def test_the_vectors_of_the_spec_hold() -> None:
    vectors = json.loads(VECTORS.read_text())
    assert vectors["records"]
    for vector in vectors["records"]:
        keys = MemoryKeys(vector["key_number"])
        assert keys.seed.hex() == vector["seed"]
        blob, now = bytes.fromhex(vector["record"]), Instant(vector["now"])
        record = open_record(blob, verify, now)
        assert record.topic.hex() == vector["topic"]
        assert record.work == vector["work"]
        assert seal(record.kind, keys.node, record.body, keys.sign, vector["sealed_with_work"]) == blob
    for vector in vectors["refused"]:
        assert refusal(bytes.fromhex(vector["record"]), Instant(vector["now"])) == vector["code"]


def test_a_lifetime_is_long_enough_to_be_refreshed_at_half() -> None:
    assert Duration(LIFETIME // 2) > 2 * CLOCK_SLACK > SECOND
