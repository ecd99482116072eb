"""Copy bytes both ways between two streams, keeping half-close, counting payload as it is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dockage.domain.errors import Unavailable
from dockage.ports.peers import Stream

from .quick import Quick, quick

Count = Callable[[int], None]


def ignore(_: int) -> None:
    """For a direction that nobody bills."""


async def splice(left: Stream, right: Stream, *, to_right: Count = ignore, to_left: Count = ignore) -> None:
    """Run until both directions ended; a broken side takes the other down with it."""
    here, there = quick(left), quick(right)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(here, there, to_right))
            tasks.create_task(_pump(there, here, to_left))
    except* Unavailable:
        pass  # a cut connection is an ordinary end of a tunnel
    finally:
        left.abort()
        right.abort()


async def _pump(source: Quick, sink: Quick, count: Count) -> None:
    """Both ends count what was delivered, not what was attempted: what fills the sink counts once that has drained."""
    held, broken = 0, list[Unavailable]()

    def take(piece: bytes) -> bool:
        nonlocal held
        try:
            sink.put(piece)
        except Unavailable as error:
            broken.append(error)
        if broken or sink.is_full:
            held = len(piece)
            return False
        count(len(piece))
        return True

    while await source.pour(take):
        if broken:
            raise broken[0]
        await sink.drained()
        count(held)
    await sink.finish()


class SocketStream:
    """A Stream over an asyncio reader and writer: TCP to a container, or a local client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int) -> bytes:
        try:
            return await self._reader.read(limit)
        except OSError as error:
            raise Unavailable("socket.closed", str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Unavailable("socket.closed", str(error)) from error

    async def finish(self) -> None:
        try:
            if self._writer.can_write_eof():
                self._writer.write_eof()
        except (OSError, RuntimeError) as error:
            raise Unavailable("socket.closed", str(error)) from error

    def abort(self) -> None:
        self._writer.close()
