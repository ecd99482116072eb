"""The relay's frames: what the source says, byte for byte, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.protocol import relaying

A, B = NodeKey(b"a" * 32), NodeKey(b"b" * 32)
AUTH = b"\x01" + A + b"\x40" + b"s" * 64


def test_a_datagram_reaches_the_other_with_its_senders_key_in_place_of_its_own() -> None:
    sent = relaying.decode(b"\x04" + B + b"\x02" + b"hello")
    assert isinstance(sent, relaying.Datagrams)
    assert sent.to == B
    assert sent.passed_on(A) == b"\x06" + A + b"\x02" + b"hello"


def test_a_batch_keeps_its_segment_size() -> None:
    sent = relaying.decode(b"\x05" + B + b"\x00" + b"\x00\x03" + b"onetwo")
    assert isinstance(sent, relaying.Datagrams)
    assert sent.passed_on(A) == b"\x07" + A + b"\x00" + b"\x00\x03" + b"onetwo"


def test_the_answer_to_a_challenge_is_key_length_signature() -> None:
    assert relaying.decode_auth(AUTH) == (A, b"s" * 64)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x01" + A + b"\x40" + b"s" * 63,
        b"\x02" + A + b"\x40" + b"s" * 64,
        b"\x01" + A + b"\x41" + b"s" * 64,
    ],
)
def test_no_other_answer_is_taken(frame: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        relaying.decode_auth(frame)
    assert caught.value.code == "relay.auth"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x04" + B,  # no ECN byte
        b"\x05" + B + b"\x00\x00",  # half a segment size
        b"\x06" + B + b"\x00",  # what only a relay says
        b"\x08" + B,
        b"\x09" + bytes(7),
        b"\x0a" + bytes(9),
        b"\x44" + bytes(40),  # a longer varint
        b"\x04" + B + bytes(relaying.DATAGRAMS_MAX),
    ],
)
def test_a_client_that_says_anything_else_breaks_the_protocol(frame: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        relaying.decode(frame)
    assert caught.value.code == "relay.frame"


@given(st.binary(max_size=80))
def test_any_bytes_are_a_frame_or_a_breach(data: bytes) -> None:
    try:
        said = relaying.decode(data)
    except PeerError:
        return
    if isinstance(said, relaying.Datagrams):
        assert len(said.passed_on(A)) == len(data)
    else:
        assert len(said.payload) == 8
