"""Linking two machines of one user by a code that one shows and the other is told. Spec: docs/spec/11-link.md.

Both run SPAKE2 over the code's password, inside a connection that proved each one's key, and show each other by a
MAC that they came to the same key. Whoever does not know the code has one guess in 2**32 and no second one.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey

from .adverts import ADDRESSES_MAX, is_dialable
from .reading import decoded

CONTEXT = b"dockage/1/link\0"
FRAME_MAX = 2048
NAME_MAX = 32
RELAY_MAX = 255
SECRET_BYTES = 4

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"
"""Of a proquint (Wilkerson 2009): 16 bits as five letters that can be read out on the telephone."""


class Code(NamedTuple):
    password: str
    """``742-lusab-gutih``: the number finds the machine on the local network, the words are the secret."""
    key: NodeKey | None = None
    """Whose machine, in the long form; the short one is looked for on the local network."""
    relay: str = ""
    direct: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        return self.password.partition("-")[0]


def new_code(number: int, secret: bytes) -> str:
    """*number* of three digits, *secret* of 4 random bytes."""
    words = [_proquint(int.from_bytes(secret[i : i + 2], "big")) for i in range(0, SECRET_BYTES, 2)]
    return "-".join([f"{number:03}", *words])


def _proquint(value: int) -> str:
    shifts = ((12, _CONSONANTS), (10, _VOWELS), (6, _CONSONANTS), (4, _VOWELS), (0, _CONSONANTS))
    return "".join(letters[value >> shift & len(letters) - 1] for shift, letters in shifts)


def long_form(password: str, key: NodeKey, relay: str, direct: Sequence[str]) -> str:
    """For a camera or a clipboard: works wherever one of the addresses does."""
    ways = [*direct[:ADDRESSES_MAX], *([relay] if relay else [])]
    return "@".join([password, key.hex(), ",".join(ways)])


def read_code(text: str) -> Code:
    """Raises UsageError("link.code")."""
    password, *rest = text.strip().split("@", 2)
    password = "-".join(password.lower().replace("-", " ").split())
    number, *words = password.split("-")
    if not (len(number) == 3 and number.isascii() and number.isdecimal() and _are_proquints(words)):
        raise _no_code(text)
    if not rest:
        return Code(password)
    try:
        key = NodeKey(bytes.fromhex(rest[0]))
    except ValueError:
        raise _no_code(text) from None
    ways = rest[1].split(",") if len(rest) == 2 else []
    relay = next((way for way in ways if _is_relay(way)), "")
    direct = tuple(filter(is_dialable, ways[:ADDRESSES_MAX]))
    if len(key) != 32 or not (relay or direct):
        raise _no_code(text)
    return Code(password, key, relay, direct)


def _are_proquints(words: list[str]) -> bool:
    shape = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
    return len(words) == SECRET_BYTES // 2 and all(
        len(word) == 5 and all(x in letters for x, letters in zip(word, shape, strict=True)) for word in words
    )


def _is_relay(text: str) -> bool:
    return text.startswith(("http://", "https://")) and len(text) <= RELAY_MAX and text.isprintable()


def _no_code(text: str) -> UsageError:
    return UsageError(
        "link.code",
        f"{text[:80]!r} is not a code: 742-lusab-gutih is, as `dockage link` shows it on the other machine",
    )


# -- what the two tell each other ------------------------------------------------------------------------
class Card(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who we are and where."""

    name: str
    relay: str
    direct: tuple[str, ...]


class Shown(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="card"):
    card: bytes
    """An encoded ``Card``."""
    mac: bytes
    """That the sender came to the same key, and wrote this card."""


class Wrong(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="wrong"):
    """The codes are not the same. This was the only try."""


AnyFrame: TypeAlias = Shown | Wrong
_frames: msgspec.msgpack.Decoder[AnyFrame] = msgspec.msgpack.Decoder(AnyFrame)
_cards = msgspec.msgpack.Decoder(Card)
_encode = msgspec.msgpack.Encoder().encode


def parties(host: NodeKey, guest: NodeKey) -> tuple[bytes, bytes]:
    """The identities of SPAKE2: who shows the code, and who was told. A man in the middle has other keys."""
    return CONTEXT + b"host" + host, CONTEXT + b"guest" + guest


def show(card: Card, secret: bytes, role: bytes) -> bytes:
    """A frame; *role* is ``b"host"`` or ``b"guest"``."""
    body = _encode(card)
    return _encode(Shown(body, _mac(secret, role, body)))


def wrong() -> bytes:
    return _encode(Wrong())


def open_shown(frame: bytes, secret: bytes, role: bytes) -> Card | None:
    """The card that the other, in *role*, shows; None if it does not know the code. Raises
    PeerError("link.malformed")."""
    said = decoded("link.malformed", "not a frame of a pairing", _frames, frame)
    if isinstance(said, Wrong) or not hmac.compare_digest(_mac(secret, role, said.card), said.mac):
        return None
    card = decoded("link.malformed", "not a frame of a pairing", _cards, said.card)
    sane = (
        0 < len(card.name) <= NAME_MAX
        and card.name.isprintable()
        and (not card.relay or _is_relay(card.relay))
        and len(card.direct) <= ADDRESSES_MAX
        and all(map(is_dialable, card.direct))
    )
    if not sane:
        raise PeerError("link.malformed", "a card with an impossible name or address")
    return card


def _mac(secret: bytes, role: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, CONTEXT + role + b"\0" + body, "sha256")
