"""What comes and goes on a Stream of HTTP/1.1 messages, piece by piece: endless bodies, and the hijack.

Counterpart: ``http.py``, whose server and client say what is to come. A body is never held in memory whole, unless the
caller asked for it with a limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockage.domain.errors import PeerError, Unavailable
from dockage.ports.peers import Stream
from dockage.protocol.http1 import Chunks, Framing

from .frames import PIECE
from .heads import HEAD_LIMIT, may_begin

BODY_LIMIT = 4 << 20
"""The largest body that is read whole: a container's JSON is 3 kB, an image list of a busy engine 1 MiB."""
DRAIN_LIMIT = 1 << 20
"""Of a body that nobody wants, so much is read to keep the connection; a longer one costs it."""


class Upgraded:
    """The raw Stream after a 101: what the other side already sent comes first."""

    def __init__(self, stream: Stream, first: bytes, ended: bool) -> None:
        self._stream, self._first, self._ended = stream, first, ended

    async def read(self, limit: int) -> bytes:
        if self._first:
            piece, self._first = self._first[:limit], self._first[limit:]
            return piece
        return b"" if self._ended else await self._stream.read(limit)

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def finish(self) -> None:
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()


class Incoming:
    """What comes on a Stream: heads, the bodies behind them, and what is behind those."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._data = b""
        self._ended = False
        self._left = 0
        """Bytes of the body; -1 = its end is told otherwise."""
        self._chunks: Chunks | None = None
        self._content = list[bytes]()
        """Of chunks."""

    async def head(self) -> bytes:
        """Up to the empty line; b"" at an orderly end before it. Raises PeerError("http.malformed") or
        Unavailable("http.cut")."""
        searched = 0
        while (end := self._data.find(b"\r\n\r\n", searched) + 4) < 4:
            if len(self._data) > HEAD_LIMIT or (self._data and not may_begin(self._data)):
                raise PeerError("http.malformed", "a head that is too long, or none")
            if self._ended:
                if self._data:
                    raise _cut()
                return b""
            searched = max(0, len(self._data) - 3)
            await self._fill()
        if end > HEAD_LIMIT:
            raise PeerError("http.malformed", f"a head of {end} bytes; the limit is {HEAD_LIMIT}")
        head, self._data = self._data[:end], self._data[end:]
        return head

    async def _fill(self) -> None:
        data = await self.stream.read(PIECE)
        self._ended = not data
        self._data = self._data + data if self._data else data

    # -- a body ----------------------------------------------------------------------------------------
    def expect(self, framing: Framing) -> None:
        """A body so framed comes next."""
        self._left = framing.length
        self._chunks = Chunks(self._content) if framing.chunked else None

    @property
    def is_clean(self) -> bool:
        """The body came to its end, and nothing behind it."""
        return self.is_over and not self._data

    @property
    def is_over(self) -> bool:
        """The body came to its end."""
        return self._left == 0 if self._chunks is None else self._chunks.done

    async def body(self) -> AsyncIterator[bytes]:
        """Its pieces as they come. Raises PeerError("http.framing") or Unavailable("http.cut")."""
        while not self.is_over:
            if not self._data:
                await self._fill()
            if not self._data:
                if self._chunks is not None or self._left >= 0:
                    raise _cut()
                self._left = 0
            elif piece := self._piece():
                yield piece

    def _piece(self) -> bytes:
        data, self._data = self._data, b""
        if self._chunks is not None:
            self._data = data[self._chunks.feed(data) :]
            piece = b"".join(self._content)
            self._content.clear()
            return piece
        if 0 <= self._left < len(data):
            data, self._data = data[: self._left], data[self._left :]
        self._left -= len(data) if self._left > 0 else 0
        return data

    async def drained(self) -> bool:
        """Whether the rest of the body was little enough to be read away."""
        taken = 0
        async for piece in self.body():
            taken += len(piece)
            if taken > DRAIN_LIMIT:
                return False
        return True

    # -- behind it -------------------------------------------------------------------------------------
    async def gone(self) -> None:
        """Returns once the other side closed or broke. What it sent meanwhile is kept (at most HEAD_LIMIT:
        nobody pipelines more behind a running answer)."""
        while not self._ended and len(self._data) <= HEAD_LIMIT:
            try:
                await self._fill()
            except (PeerError, Unavailable):
                return

    def upgraded(self) -> Upgraded:
        first, self._data = self._data, b""
        return Upgraded(self.stream, first, self._ended)


CHUNKED, ENDLESS = -1, -2
"""Lengths that are none: its end is told by a last chunk, or by the end of the connection."""


class Outgoing:
    """A body on its way out: what was promised of it in the head is kept."""

    def __init__(self, length: int, *, silent: bool = False) -> None:
        """*silent*: nothing of it is sent."""
        self._left, self._silent = length, silent

    def piece(self, data: bytes) -> bytes:
        if self._silent or not data:  # an empty chunk would end a chunked body
            return b""
        if self._left == CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if 0 <= self._left < len(data):
            raise PeerError("http.order", "more of a body than its head said")
        self._left -= len(data) if self._left > 0 else 0
        return data

    def end(self) -> bytes:
        if self._silent:
            return b""
        if self._left > 0:
            raise PeerError("http.order", "less of a body than its head said")
        return b"0\r\n\r\n" if self._left == CHUNKED else b""


async def read_whole(pieces: AsyncIterator[bytes], limit: int = BODY_LIMIT) -> bytes:
    """Raises PeerError("http.oversized") as soon as the body passes *limit* bytes."""
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        if len(buffer) > limit:
            raise PeerError(
                "http.oversized", f"a body of more than {limit} bytes where at most that is allowed"
            )
    return bytes(buffer)


def _cut() -> Unavailable:
    return Unavailable("http.cut", "the connection ended in the middle of a message")
