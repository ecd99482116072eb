"""What one machine of a user tells another: what it sells to it, and where it found the market. Spec: 11-link.md.

Counterpart: ``daemon/own.py``. The record in it is sealed like one on the board, so it is checked like one.
"""

from __future__ import annotations

import msgspec

from dockage.domain.errors import PeerError

from .adverts import ADDRESSES_MAX, is_dialable
from .reading import decoded
from .records import RECORD_MAX

NODES_MAX = 16
TOLD_MAX = 16 * 1024


class MarketNode(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: bytes
    direct: tuple[str, ...]


class Told(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    linked: bool
    """False: whoever asks is no machine of this one's user, and the rest is empty."""
    record: bytes = b""
    """Our offer, sealed; of a node that sells nothing, where it is."""
    market: tuple[MarketNode, ...] = ()
    """Nodes of the market that answered, 16 at most."""


_decoder = msgspec.msgpack.Decoder(Told)


def encode(told: Told) -> bytes:
    return msgspec.msgpack.encode(told)


def decode(data: bytes) -> Told:
    """Raises PeerError("own.malformed")."""
    told = decoded("own.malformed", "not what a linked machine says", _decoder, data)
    sane = (
        len(told.record) <= RECORD_MAX
        and len(told.market) <= NODES_MAX
        and all(len(x.key) == 32 and len(x.direct) <= ADDRESSES_MAX for x in told.market)
        and all(is_dialable(address) for x in told.market for address in x.direct)
    )
    if not sane:
        raise PeerError("own.malformed", "a linked machine said something impossible")
    return told
