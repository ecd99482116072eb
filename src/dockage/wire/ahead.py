"""Fewer, larger steps on a stream: over the peer link each read and each write costs a tenth of a small request.

``Headed`` is for whoever opens a stream: what it is for travels with the first thing said on it. ``Ahead`` is for
whoever takes it: the first read takes all that is there, so a header and a request behind it are one step.
"""

from __future__ import annotations

from dockage.ports.peers import Stream

from .frames import PIECE
from .quick import Around, Take


class Headed(Around):
    """*head* goes out before anything else, with the first write or before the first read."""

    def __init__(self, stream: Stream, head: bytes) -> None:
        super().__init__(stream)
        self._head = head

    async def read(self, limit: int) -> bytes:
        if self._head:
            await self.write(b"")
        return await self._stream.read(limit)

    async def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head or data:
            await self._stream.write(head + data if head else data)

    def put(self, data: bytes) -> None:
        head, self._head = self._head, b""
        self._stream.put(head + data if head else data)

    async def pour(self, take: Take) -> bool:
        if self._head:
            await self.write(b"")
        return await self._stream.pour(take)

    async def finish(self) -> None:
        if self._head:
            await self.write(b"")
        await self._stream.finish()


class Ahead(Around):
    """Reads what there is, hands out what is asked for."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._rest = b""

    async def read(self, limit: int) -> bytes:
        if self._rest:
            piece, self._rest = self._rest[:limit], self._rest[limit:]
            return piece
        piece = await self._stream.read(PIECE)
        if len(piece) > limit:
            piece, self._rest = piece[:limit], piece[limit:]
        return piece

    async def pour(self, take: Take) -> bool:
        rest, self._rest = self._rest, b""
        if rest and not take(rest):
            return True
        return await self._stream.pour(take)
