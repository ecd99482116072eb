"""The messages of spec 04: its vectors, whatever bytes a peer may send, and the limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.protocol import messages as say
from dockage.testing import strategies as draws
from dockage.testing.keys import verify

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "docs/spec/vectors/messages.json").read_text())
SPEC = (ROOT / "docs/spec/04-messages.md").read_text()
KINDS = [kind.__struct_config__.tag for kind in get_args(say.AnyMessage)]


def with_hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list):
        return [with_hex(each) for each in value]
    if isinstance(value, dict):
        return {key: with_hex(each) for key, each in value.items()}
    return value


def refusal(frame: bytes) -> str:
    with pytest.raises(PeerError) as caught:
        say.decode_envelope(frame)
    return caught.value.code


def outcome(frame: bytes) -> str:
    """A code of refusal, or "" for a message. Anything else that is raised is a bug."""
    try:
        say.decode_envelope(frame)
    except PeerError as error:
        return error.code
    return ""


OUTCOMES = ("", "message.malformed", "message.out-of-range")


# -- vectors -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda v: v["kind"])
def test_good_vectors(vector: dict[str, Any]) -> None:
    message, envelope = say.decode_envelope(bytes.fromhex(vector["frame"]))
    assert envelope.body.hex() == vector["body"]
    assert envelope.signature.hex() == vector["signature"]
    assert say.encode_body(message).hex() == vector["body"]
    assert say.encode_envelope(envelope.body, envelope.signature).hex() == vector["frame"]
    assert with_hex(msgspec.msgpack.decode(envelope.body)) == vector["fields"]
    assert vector["fields"][0] == vector["kind"]


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda v: v["kind"])
def test_what_must_be_signed_is_signed_and_nothing_else(vector: dict[str, Any]) -> None:
    message, envelope = say.decode_envelope(bytes.fromhex(vector["frame"]))
    signed = bytes.fromhex(VECTORS["signing_context"]) + envelope.body
    good = verify(bytes.fromhex(VECTORS["provider"]), signed, envelope.signature)  # type: ignore[arg-type]
    assert good is say.must_be_signed(message)


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda v: v["why"])
def test_bad_vectors(vector: dict[str, str]) -> None:
    assert refusal(bytes.fromhex(vector["frame"])) == vector["code"]


def test_every_kind_has_a_vector_and_a_place_in_the_spec() -> None:
    assert sorted(v["kind"] for v in VECTORS["good"]) == sorted(KINDS)
    for kind in KINDS:
        assert f"`{kind}`" in SPEC


# -- anything ----------------------------------------------------------------------------------------
@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_a_peers_error(frame: bytes) -> None:
    assert outcome(frame) in OUTCOMES


@given(st.binary(max_size=200), st.binary(max_size=70))
def test_any_body_is_a_message_or_a_peers_error(body: bytes, signature: bytes) -> None:
    assert outcome(say.encode_envelope(body, signature)) in OUTCOMES


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.binary(max_size=40),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(st.sampled_from(KINDS), st.lists(values, max_size=12))
def test_any_fields_behind_a_real_kind(kind: str, fields: list[Any]) -> None:
    assert outcome(say.encode_envelope(msgspec.msgpack.encode([kind, *fields]))) in OUTCOMES


@settings(max_examples=300)
@given(st.sampled_from(VECTORS["good"]), st.data())
def test_a_flipped_byte_is_another_message_or_a_peers_error(
    vector: dict[str, Any], data: st.DataObject
) -> None:
    frame = bytearray.fromhex(vector["frame"])
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    assert outcome(bytes(frame)) in OUTCOMES


@settings(max_examples=300)
@given(draws.messages)
def test_whatever_we_say_we_understand(message: say.AnyMessage) -> None:
    """What is drawn may be out of range; what is in range comes back equal."""
    frame = say.encode_envelope(say.encode_body(message), b"s" * 64)
    if not outcome(frame):
        again, envelope = say.decode_envelope(frame)
        assert again == message
        assert envelope.body == say.encode_body(message)
    assert outcome(frame) in ("", "message.out-of-range")


# -- limits ------------------------------------------------------------------------------------------
def test_an_oversized_frame_is_refused_unread() -> None:
    assert refusal(bytes(say.MESSAGE_MAX + 1)) == "message.oversized"
    assert refusal(bytes(say.MESSAGE_MAX)) == "message.malformed"


def test_deep_nesting_does_not_break_the_decoder() -> None:
    deep = b"\x91" * (say.MESSAGE_MAX - 100)
    assert refusal(deep) == "message.malformed"
    assert refusal(say.encode_envelope(deep)) == "message.malformed"


def test_a_length_that_promises_gigabytes_is_refused() -> None:
    for huge in (
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ):
        assert refusal(huge) == "message.malformed"
        assert refusal(say.encode_envelope(b"\x92\xa9ask-lease" + huge)) == "message.malformed"


def test_the_largest_honest_message_fits_with_room_to_spare() -> None:
    frames = [bytes.fromhex(v["frame"]) for v in VECTORS["good"]]
    assert max(len(frame) for frame in frames) < say.MESSAGE_MAX // 16
