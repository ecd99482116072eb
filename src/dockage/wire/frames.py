"""Length-limited frames over a Stream: 4 bytes big-endian length, then that many bytes.

The limit is the caller's, so that each conversation states the largest thing it will hold in memory.
Spec: docs/spec/01-frames.md.
"""

from __future__ import annotations

from dockage.domain.errors import PeerError
from dockage.ports.peers import Stream

PIECE = 1 << 18
"""Reads are asked for in pieces of 256 KiB: larger ones measured slower over iroh (network.md §6.5)."""


async def read_exactly(stream: Stream, size: int) -> bytes:
    """Raises PeerError("frame.truncated") if the peer finished before *size* bytes."""
    buffer = bytearray()
    while len(buffer) < size:
        piece = await stream.read(min(PIECE, size - len(buffer)))
        if not piece:
            raise PeerError("frame.truncated", f"the peer ended a frame after {len(buffer)} of {size} bytes")
        buffer += piece
    return bytes(buffer)


async def read_frame(stream: Stream, limit: int) -> bytes:
    """Raises PeerError("frame.oversized") before reading a byte of a frame longer than *limit*."""
    body = await next_frame(stream, limit)
    if body is None:
        raise PeerError("frame.truncated", "the peer ended the stream where a frame was due")
    return body


async def next_frame(stream: Stream, limit: int) -> bytes | None:
    """Like ``read_frame``; None at an orderly end between two frames."""
    first = await stream.read(4)
    if not first:
        return None
    size = int.from_bytes(first + await read_exactly(stream, 4 - len(first)), "big")
    if size > limit:
        raise PeerError("frame.oversized", f"the peer announced {size} bytes; the limit is {limit}")
    return await read_exactly(stream, size)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


async def write_frame(stream: Stream, *bodies: bytes) -> None:
    """Several in one write: over a link each write costs more than what is in it."""
    await stream.write(b"".join(map(frame, bodies)))
