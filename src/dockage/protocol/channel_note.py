"""A channel as one line of text, from which, with the wallet's words, its refund can be made: spec 05, "Backup".

    dockage-channel:1:<base64url of checksum(4) and msgpack [id, peer, terms, txid, vout, opened height, confirmations]>

It holds no secret. The tenant's key follows from the words and the id; everything else is in the line.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.reason import Reason

from .bitcoin.channel import check_outpoint, check_terms
from .bitcoin.hashes import tagged_hash

PREFIX = "dockage-channel:1:"
NOTE_MAX = 1024
"""Characters; a note has about 500."""


RESTORED = Reason(
    "channel.restored",
    "brought back from its note: the provider's close returns the rest, or after the expiry our refund everything",
)


class _Note(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    id: bytes
    peer: bytes
    terms: Terms
    txid: str
    vout: int
    opened_height: int
    needed: int


_decoder = msgspec.msgpack.Decoder(_Note)


def encode_note(channel: Channel) -> str:
    note = _Note(
        channel.id,
        channel.peer,
        channel.terms,
        channel.txid,
        channel.vout,
        channel.opened_height,
        channel.needed,
    )
    body = msgspec.msgpack.encode(note)
    return PREFIX + urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")


def decode_note(line: str) -> Channel:
    """The channel as its tenant holds it who lost everything else: nothing is paid on it any more, what was paid is
    not known, and the rest is waited for. Raises UsageError("wallet.channel-note")."""
    text = line.strip()
    if not text.startswith(PREFIX) or len(text) > NOTE_MAX:
        raise _bad(text)
    try:
        data = text.removeprefix(PREFIX)
        raw = urlsafe_b64decode(data + "=" * (-len(data) % 4))
        note = _decoder.decode(raw[4:])
        check_terms(note.terms)
        check_outpoint((note.txid, note.vout))
    except (ValueError, msgspec.DecodeError, PeerError):
        raise _bad(text) from None
    if _checksum(raw[4:]) != raw[:4] or len(note.id) != 16 or len(note.peer) != 32 or note.opened_height < 0:
        raise _bad(text)
    return Channel(
        ChannelId(note.id),
        NodeKey(note.peer),
        note.terms,
        ChannelState.CLOSING,
        note.txid,
        note.vout,
        opened_height=note.opened_height,
        needed=note.needed,
        reason=RESTORED,
    )


def _checksum(body: bytes) -> bytes:
    return tagged_hash("dockage/channel-note", body)[:4]


def _bad(text: str) -> UsageError:
    return UsageError(
        "wallet.channel-note",
        f"{text[:40]!r} is not the note of a channel, or it was cut: copy the line again, whole",
    )
