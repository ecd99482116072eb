"""Many streams in one: the frames of a bundle. Spec: docs/spec/01-frames.md.

A stream of a bundle has a number that its opener counted up, ends each direction on its own like a stream of the link,
and may have at most ``WINDOW`` bytes that its reader did not take: who reads slowly holds up nobody else.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, NoReturn

from dockage.domain.errors import PeerError

WINDOW = 1 << 19
"""Bytes of one direction that may wait for the reader. Some precedents: HTTP/2 begins with 64 KiB, yamux with 256."""
PAYLOAD_MAX = 1 << 16
"""Of one frame, so that a long answer cannot keep a short one waiting."""
STREAMS_MAX = 256
"""Open at once in one bundle; beyond it the newcomer is reset. Whoever has more opens another bundle."""
_HEAD = struct.Struct(">BII")


class Kind(IntEnum):
    DATA = 0
    """*number* bytes follow. ``DATA`` or ``FINISH`` with the number after the newest one opens that stream."""
    FINISH = 1
    """No more data from this side."""
    RESET = 2
    """This side neither reads nor writes any more."""
    CREDIT = 3
    """The reader took *number* bytes: so many more may come."""


class Frame(NamedTuple):
    kind: int
    stream: int
    number: int
    data: bytes


def encode(kind: Kind, stream: int, number: int = 0) -> bytes:
    return _HEAD.pack(kind, stream, number)


def data_frame(stream: int, data: bytes) -> bytes:
    return _HEAD.pack(Kind.DATA, stream, len(data)) + data


class Frames:
    """Bytes as they come in, whole frames out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Frame]:
        """Raises PeerError("bundle.malformed"); then nothing more can be understood."""
        piece = self._rest + piece if self._rest else piece
        found, at, size = list[Frame](), 0, len(piece)
        while size - at >= _HEAD.size:
            kind, stream, number = _HEAD.unpack_from(piece, at)
            length = _length(kind, number) if stream else _refuse(kind, number)
            if size - at < _HEAD.size + length:
                break
            at += _HEAD.size
            found.append(Frame(kind, stream, number, piece[at : at + length]))
            at += length
        self._rest = piece[at:]
        return found


def _length(kind: int, number: int) -> int:
    """Of what follows the head."""
    if kind == Kind.DATA and 0 < number <= PAYLOAD_MAX:
        return number
    if (kind == Kind.CREDIT and 0 < number <= WINDOW) or (kind in (Kind.FINISH, Kind.RESET) and not number):
        return 0
    return _refuse(kind, number)


def _refuse(kind: int, number: int) -> NoReturn:
    raise PeerError("bundle.malformed", f"not a frame of a bundle: kind {kind}, number {number}")
