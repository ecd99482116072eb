"""A channel's note: what was written is read back, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.channel import Channel, ChannelState, Terms, with_setup
from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Sat
from dockage.protocol.channel_note import NOTE_MAX, PREFIX, decode_note, encode_note

TERMS = Terms(b"\2" + b"T" * 32, b"\3" + b"P" * 32, 900_000, Sat(50_000), b"\x51\x20" + b"C" * 32)
CHANNEL = Channel(
    ChannelId(bytes(range(16))),
    NodeKey(b"N" * 32),
    with_setup(TERMS, b"\x51\x20" + b"S" * 32, Sat(330)),
    ChannelState.OPEN,
    "ab" * 32,
    2,
    opened_height=898_000,
    needed=3,
    paid=Sat(1_000),
)
NOTE = encode_note(CHANNEL)


def test_a_note_says_all_that_a_refund_needs_and_no_secret() -> None:
    back = decode_note(f"  {NOTE}\n")
    same = ("id", "peer", "terms", "txid", "vout", "opened_height", "needed")
    assert all(getattr(back, name) == getattr(CHANNEL, name) for name in same)
    assert back.state is ChannelState.CLOSING  # nothing is paid on it any more
    assert back.reason is not None
    assert encode_note(back) == NOTE
    assert len(NOTE) < NOTE_MAX


@given(st.integers(len(PREFIX), len(NOTE) - 1), st.characters(codec="ascii", categories=["L", "N"]))
def test_a_character_that_changed_is_noticed(at: int, character: str) -> None:
    changed = NOTE[:at] + character + NOTE[at + 1 :]
    # The last character has bits that are not used.
    if changed == NOTE or at == len(NOTE) - 1:
        return
    with pytest.raises(UsageError) as caught:
        decode_note(changed)
    assert caught.value.code == "wallet.channel-note"


@given(st.one_of(st.text(max_size=200), st.text(max_size=2000).map(lambda text: PREFIX + text)))
def test_whatever_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_note(text)
    assert caught.value.code == "wallet.channel-note"
