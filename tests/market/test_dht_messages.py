"""The gate: what does not decode, or is too large, or out of range, is refused with its code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish
from dockage.domain.query import AVOID_MAX, MOST_MAX, NET_MAX, Query, Rank
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, SECOND, Instant, Msat
from dockage.protocol.allowance import Allowance
from dockage.protocol.dht_messages import (
    ANSWER_MAX,
    KNOWN_MAX,
    PAGE_BYTES,
    PUT_MAX,
    REQUEST_MAX,
    TAG,
    Answer,
    Best,
    Find,
    Get,
    Listing,
    Pick,
    Put,
    Request,
    Taken,
    decode_answer,
    decode_request,
    encode,
)
from dockage.protocol.kademlia import SALTS, Contact, K, Space, places
from dockage.protocol.records import RECORD_MAX
from dockage.testing.clock import START

VECTORS = Path(__file__).parents[2] / "docs/spec/vectors/dht.json"
ID = bytes(range(32))
ME = Contact(NodeKey(ID), "127.0.0.1:4711", "http://198.51.100.7:3340")
WISH = Wish(NodeKey(ID), Resources(1000, GIB, GIB))
LARGEST_QUERY = Query(
    WISH,
    True,
    MOST_MAX,
    Rank(99, Msat((1 << 62) - 1), NodeKey(ID)),
    (NodeKey(ID),) * AVOID_MAX,
    ("x" * NET_MAX,) * AVOID_MAX,
    1,
)
LARGEST_CONTACT = Contact(NodeKey(ID), "[" + "1:" * 7 + "1]:65535", "http://" + "x" * 248)


@pytest.mark.parametrize(
    "request_",
    [
        Find(None, ID),
        Find(ME, ID),
        Get(ME, ID, ID, b"", b""),
        Get(LARGEST_CONTACT, ID, ID, ID, bytes(KNOWN_MAX * TAG)),
        Pick(ME, (ID,), ID, Query(WISH)),
        Pick(LARGEST_CONTACT, (ID,) * SALTS, ID, LARGEST_QUERY),
        Put(LARGEST_CONTACT, ID, (bytes(RECORD_MAX),) * PUT_MAX),
    ],
)
def test_requests_survive_and_fit(request_: Request) -> None:
    frame = encode(request_)
    assert len(frame) <= REQUEST_MAX
    assert decode_request(frame) == request_


@pytest.mark.parametrize(
    "answer",
    [
        Listing(()),
        Listing((LARGEST_CONTACT,) * K, (bytes(RECORD_MAX),) * (PAGE_BYTES // RECORD_MAX), True, ID),
        Best((LARGEST_CONTACT,) * K * SALTS, (bytes(RECORD_MAX),) * (PAGE_BYTES // RECORD_MAX), True, 1, 2),
        Taken((True, False)),
    ],
)
def test_answers_survive_and_fit(answer: Answer) -> None:
    frame = encode(answer)
    assert len(frame) <= ANSWER_MAX
    assert decode_answer(frame) == answer


BAD_ME = Contact(NodeKey(ID), "example.org:80")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (bytes(REQUEST_MAX + 1), "dht.oversized"),
        (b"", "dht.malformed"),
        (b"\xc1garbage", "dht.malformed"),
        (encode(["burn", None, ID]), "dht.malformed"),
        (encode(["find", None, ID, "more"]), "dht.malformed"),
        (encode(Listing(())), "dht.malformed"),
        (encode(Find(None, ID[:31])), "dht.out-of-range"),
        (encode(Find(BAD_ME, ID)), "dht.out-of-range"),
        (encode(Get(None, ID, ID, b"x", b"")), "dht.out-of-range"),
        (encode(Get(None, ID, ID, b"", b"1234567")), "dht.out-of-range"),
        (encode(Get(None, ID, ID, b"", bytes(TAG * (KNOWN_MAX + 1)))), "dht.out-of-range"),
        (encode(Pick(None, (), ID, Query(WISH))), "dht.out-of-range"),
        (encode(Pick(None, (ID,) * (SALTS + 1), ID, Query(WISH))), "dht.out-of-range"),
        (encode(Pick(None, (ID,), ID[:31], Query(WISH))), "dht.out-of-range"),
        (encode(Pick(None, (ID,), ID, Query(WISH, most=MOST_MAX + 1))), "dht.out-of-range"),
        (encode(Put(None, ID, ())), "dht.out-of-range"),
        (encode(Put(None, ID, (b"",) * (PUT_MAX + 1))), "dht.out-of-range"),
    ],
)
def test_bad_requests_are_refused(frame: bytes, code: str) -> None:
    with pytest.raises(PeerError) as caught:
        decode_request(frame)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (bytes(ANSWER_MAX + 1), "dht.oversized"),
        (encode(Find(None, ID)), "dht.malformed"),
        (encode(Listing((ME,) * (K + 1))), "dht.out-of-range"),
        (encode(Listing((BAD_ME,))), "dht.out-of-range"),
        (encode(Listing((), (bytes(RECORD_MAX + 1),))), "dht.out-of-range"),
        (encode(Listing((), (), True, b"x")), "dht.out-of-range"),
        (encode(Best((ME,) * (K * SALTS + 1), (), False, 0, 0)), "dht.out-of-range"),
        (encode(Best((), (b"",) * (MOST_MAX + 1), False, 0, 0)), "dht.out-of-range"),
        (encode(Best((), (), False, 2, 1)), "dht.out-of-range"),
        (encode(Taken((True,) * (PUT_MAX + 1))), "dht.out-of-range"),
    ],
)
def test_bad_answers_are_refused(frame: bytes, code: str) -> None:
    with pytest.raises(PeerError) as caught:
        decode_answer(frame)
    assert caught.value.code == code


@given(st.binary(max_size=300))
def test_garbage_never_crashes_the_gate(frame: bytes) -> None:
    for decode in (decode_request, decode_answer):
        with pytest.raises(PeerError):
            decode(frame)


def test_an_allowance_refills_with_time_and_no_further_than_its_burst() -> None:
    allowance, peer = Allowance(rate=2, burst=3), NodeKey(ID)
    assert [allowance.take(peer, 1, START) for _ in range(4)] == [True, True, True, False]
    assert allowance.take(peer, 2, Instant(START + SECOND))
    assert not allowance.take(peer, 4, Instant(START + 100 * SECOND))
    assert allowance.take(peer, 3, Instant(START + 100 * SECOND))


def test_one_peer_does_not_eat_anothers_allowance() -> None:
    allowance = Allowance(rate=1, burst=1)
    assert allowance.take(NodeKey(b"a"), 1, START)
    assert not allowance.take(NodeKey(b"a"), 1, START)
    assert allowance.take(NodeKey(b"b"), 1, START)


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    allowance, peer = Allowance(rate=1, burst=1), NodeKey(ID)
    assert allowance.take(peer, 1, Instant(START + SECOND))
    assert not allowance.take(peer, 1, START)


def test_allowances_of_many_peers_are_bounded() -> None:
    allowance = Allowance(rate=1, burst=1, peers_max=10)
    for number in range(100):
        allowance.take(NodeKey(number.to_bytes(32, "big")), 1, START)
    assert len(allowance._left) == 10


def test_the_vectors_of_the_spec_hold() -> None:
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors["ids"]:
        made = Contact(NodeKey(bytes.fromhex(vector["key"])), vector["address"])
        assert Space(vector["bound"]).id(made).hex() == vector["id"]
    for vector in vectors["places"]:
        found = places(bytes.fromhex(vector["topic"]), Instant(vector["now"]))
        assert [place.hex() for place in found] == vector["places"]
    for vector in vectors["requests"]:
        assert encode(decode_request(bytes.fromhex(vector["frame"]))).hex() == vector["frame"]
    for vector in vectors["answers"]:
        assert encode(decode_answer(bytes.fromhex(vector["frame"]))).hex() == vector["frame"]
