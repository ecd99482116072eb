"""A TCP or unix connection as a Stream, straight on its transport: asyncio's reader and writer cost more than the rest
of a short request through a proxy.

One task reads and one task writes at a time. Made by ``loop.create_connection(Connection, ...)`` and its like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dockage.domain.errors import Unavailable

from .quick import Sink, Take

READ_AHEAD = 64 << 10
"""Bytes that are kept unread before the other end has to wait."""


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._ended = self._lost = self._held = False
        """*ended*: nothing more comes; *held*: the transport reads no further for now."""
        self._error: Exception | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._taker: Take | None = None
        """Gets what comes at once."""
        self.sink: Sink | None = None

    # -- Stream ----------------------------------------------------------------------------------------
    async def read(self, limit: int) -> bytes:
        if not self._data:
            await self.more()
        data = self._data
        return self.take(len(data) if len(data) <= limit else limit)

    async def write(self, data: bytes) -> None:
        self.put(data)
        if self._writable is not None:
            await self.drained()

    async def finish(self) -> None:
        self._check()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def abort(self) -> None:
        """What is written already still goes out."""
        self.transport.close()

    # -- in pieces, for who knows more -----------------------------------------------------------------
    def put(self, data: bytes) -> None:
        """Write without waiting; see ``is_full``. Raises Unavailable."""
        self._check()
        self.transport.write(data)

    def offer(self, data: bytes) -> bool:
        if self._writable is not None or not self.is_quiet:
            return False
        self.transport.write(data)
        return True

    @property
    def is_full(self) -> bool:
        """The other end takes less than we write: wait until it is ``drained``."""
        return self._writable is not None

    async def drained(self) -> None:
        if self._writable is not None:
            await asyncio.shield(self._writable)
        self._check()

    async def pour(self, take: Take) -> bool:
        """What is here already first."""
        while self._data:
            if not take(self.take(len(self._data))):
                return True
        while not self._ended:
            self._check()
            self._taker = take
            try:
                await self._moved()
            finally:
                full, self._taker = self._taker is None, None
            if full:
                return True
        return False

    async def more(self) -> bool:
        """Wait for bytes beyond those that are here; whether any came before the end. Raises Unavailable."""
        before = len(self._data)
        if self._ended:
            return False
        self._check()
        await self._moved()
        if len(self._data) == before and not self._ended:
            self._check()
        return len(self._data) > before

    async def _moved(self) -> None:
        """Something came, the taker has enough or failed, or it is over."""
        if self._held:
            self._held = False
            self.transport.resume_reading()
        self._readable = self._loop.create_future()
        try:
            await self._readable
        finally:
            self._readable = None

    def take(self, size: int) -> bytes:
        """*size* bytes of those that are here."""
        data = self._data
        if size >= len(data):
            self._data = b""
        else:
            data, self._data = data[:size], data[size:]
        if self._held and len(self._data) <= READ_AHEAD // 2:
            self._held = False
            self.transport.resume_reading()
        return data

    def cut(self) -> None:
        """Now, whatever is under way."""
        self.transport.abort()

    @property
    def is_quiet(self) -> bool:
        """Open both ways, as far as anybody can tell, and nothing unread."""
        return not (self._ended or self._lost or self._data or self.transport.is_closing())

    def _check(self) -> None:
        if self._lost:
            raise Unavailable("socket.closed", str(self._error or "the connection is closed"))

    # -- asyncio.Protocol ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._taker is not None:
            if not self._taker(data):
                self._taker = None
                self._wake()
            return
        sink = self.sink
        if sink is not None and not self._data:
            if sink(data):
                return
            self.sink = None
        self._data = self._data + data if self._data else data
        if len(self._data) > READ_AHEAD and not self._held:
            self._held = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._tell_end()
        return True  # we may still answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost, self._error = True, exc
        self._ended = self._ended or exc is None
        self._tell_end()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = self._writable or self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def _tell_end(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink(b"")
        self._wake()

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)


class Accepted(Connection):
    """One that a server takes: *begin* is told of it. Made by ``loop.create_server`` and its like."""

    def __init__(self, begin: Callable[[Connection], None]) -> None:
        super().__init__()
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin(self)


async def connect_unix(path: Path, limit: float) -> Connection:
    """Raises OSError, and TimeoutError after *limit* seconds."""
    async with asyncio.timeout(limit):
        _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, str(path))
    return connection
