"""Bodies of requests and answers, passed on as they come; their ends are found, never guessed."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

from dockage.domain.errors import Unavailable
from dockage.protocol.http1 import Chunks, Framing
from dockage.wire.frames import PIECE

from .door import SLOW_SEC, Door
from .pages import Refused
from .upstream import Upstream

BODY_KEPT = 64 << 10
"""A body up to this is read before it is sent, so that it can be sent again."""


async def whole(door: Door, framing: Framing) -> bytes | None:
    """A request's body. None: it is to be passed on as it comes. Raises Unavailable."""
    if framing.length == 0:
        return b""
    if framing.chunked or framing.length > BODY_KEPT:
        return None
    door.within(SLOW_SEC)
    pieces, left = [], framing.length
    while left:
        pieces.append(piece := await door.read(left))
        left -= len(piece)
        if not piece:
            raise Unavailable("http.cut", "the client ended in the middle of a request")
    return b"".join(pieces)


async def incoming(door: Door, framing: Framing) -> AsyncIterator[bytes]:
    """The pieces of a request's body, as they come. Raises Unavailable, Refused, PeerError."""
    left, chunks = framing.length, Chunks()
    while left > 0 or (framing.chunked and not chunks.done):
        door.piece_within(SLOW_SEC)
        try:
            piece = await door.read(min(PIECE, left) if left > 0 else PIECE)
        finally:
            door.piece_deadline = math.inf
        if not piece:
            raise Unavailable("http.cut", "the client ended in the middle of a request")
        if framing.chunked:
            if chunks.feed(piece) < len(piece):
                raise Refused(400)  # requests in a row behind an open one are not for us
        else:
            left -= len(piece)
        yield piece


async def rest_of(upstream: Upstream, framing: Framing, rest: bytes) -> bytes:
    """A short answer whole, so that it can be asked for elsewhere if its replica dies in the middle; of a long one, or
    one whose length nobody said, what is here. Raises Unavailable."""
    while len(rest) < framing.length <= BODY_KEPT:
        piece = await upstream.read(PIECE)
        if not piece:
            raise Unavailable("http.cut", "the replica ended in the middle of an answer")
        rest += piece
    return rest


async def pass_on(upstream: Upstream, door: Door, framing: Framing, rest: bytes) -> bool:
    """An answer's body, of which *rest* is here already; whether the replica sent nothing beyond it. Raises
    Unavailable, PeerError("http.framing")."""
    left, chunks = framing.length, Chunks()
    piece = rest or await upstream.read(PIECE)
    while piece:
        size = chunks.feed(piece) if framing.chunked else min(left, len(piece)) if left >= 0 else len(piece)
        await door.write(piece if size == len(piece) else piece[:size])
        left -= size if left >= 0 else 0
        if chunks.done or left == 0:
            return size == len(piece)
        piece = await upstream.read(PIECE)
    if not framing.until_close:
        raise Unavailable("http.cut", "the replica ended in the middle of an answer")
    return False
