"""Streams whose bytes go on in the turn of the loop in which they come: no task wakes for a piece.

A waking, a future and the turns between them cost a tunnel more than the rest of a small request. A ``Quick`` stream
can take a piece without waiting (``put``) and hand out what comes by a call (``pour``); waiting is for what is full.
Any other stream is one by ``quick``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from dockage.ports.peers import Stream

from .frames import PIECE

Take = Callable[[bytes], bool]
"""Gets a piece; False = no more before ``pour`` is called again. Never raises: nobody is there to catch it."""


@runtime_checkable
class Quick(Stream, Protocol):
    def put(self, data: bytes) -> None:
        """Write without waiting. Raises Unavailable. While it ``is_full``, wait until it is ``drained``."""

    @property
    def is_full(self) -> bool: ...

    async def drained(self) -> None:
        """What was put is taken over by the transport. Raises Unavailable."""

    async def pour(self, take: Take) -> bool:
        """Hand out what comes until *take* wants no more (True) or all has come (False). Raises Unavailable."""


Sink = Callable[[bytes], bool]
"""Is offered what comes, before it is kept for a reader, and b"" once when nothing more comes. False: it is not taken,
and nothing more is offered."""


class Pushing(Protocol):
    """A Stream on which a short question can be asked and answered without a task that waits for it."""

    sink: Sink | None

    @property
    def is_quiet(self) -> bool:
        """Open both ways, as far as anybody can tell, and nothing unread."""

    def offer(self, data: bytes) -> bool:
        """Write *data*, if all of it is taken at once and nothing came that was not asked for."""


def quick(stream: Stream) -> Quick:
    return stream if isinstance(stream, Quick) else Patient(stream)


class Around:
    """A Quick stream around another one: passes on all that who extends it leaves as it is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = quick(stream)

    async def read(self, limit: int) -> bytes:
        return await self._stream.read(limit)

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    def put(self, data: bytes) -> None:
        self._stream.put(data)

    @property
    def is_full(self) -> bool:
        return self._stream.is_full

    async def drained(self) -> None:
        await self._stream.drained()

    async def pour(self, take: Take) -> bool:
        return await self._stream.pour(take)

    async def finish(self) -> None:
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()


class Patient:
    """A stream that has only waiting reads and writes: full after each piece."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._late = stream, b""
        self.read, self.write, self.finish, self.abort = (
            stream.read,
            stream.write,
            stream.finish,
            stream.abort,
        )

    def put(self, data: bytes) -> None:
        self._late += data

    @property
    def is_full(self) -> bool:
        return bool(self._late)

    async def drained(self) -> None:
        late, self._late = self._late, b""
        await self._stream.write(late)

    async def pour(self, take: Take) -> bool:
        while piece := await self._stream.read(PIECE):
            if not take(piece):
                return True
        return False
