"""One iroh bidirectional stream as the Stream port.

Two rules of QUIC decide its shape. A send half that is merely dropped counts as *finished*: the peer would take
half an answer for a whole one, so ``abort`` resets it. And a reset after ``finish`` may lose the tail, so there
``abort`` only stops reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from iroh.iroh_ffi import IrohError

from dockage.domain.errors import Unavailable
from dockage.wire.frames import PIECE

_ABORTED = 1
"""Our QUIC application error code on reset and stop; the peer learns nothing from it but that we went."""
SMALL = 1 << 14
"""What a read asks for at first: the binding fills as many bytes with zeros beforehand, so that asking for 256 KiB
would cost more than an HTTP request that comes. A stream that fills what was asked for is asked for more."""


class IrohStream:
    """A cancelled read or write may have lost bytes: such a stream is good for ``abort`` only."""

    __slots__ = ("__weakref__", "_aborted", "_ended", "_finished", "_recv", "_room", "_send", "_waiting")

    def __init__(self, stream: Any) -> None:
        self._send, self._recv = stream.send(), stream.recv()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._finished = self._ended = self._aborted = False
        self._room = SMALL

    async def read(self, limit: int) -> bytes:
        if self._ended:
            return b""
        room = min(limit, self._room)
        piece: bytes = await self._call(self._recv.read(room))
        self._ended = not piece
        self._room = (
            min(PIECE, 4 * room) if len(piece) == room else max(SMALL, min(self._room, 4 * len(piece)))
        )
        return piece

    async def write(self, data: bytes) -> None:
        if self._finished:
            raise Unavailable("stream.broken", "this stream was already finished by us")
        for start in range(0, len(data), PIECE):
            await self._call(self._send.write_all(data[start : start + PIECE] if len(data) > PIECE else data))

    async def finish(self) -> None:
        if not self._finished:
            await self._call(self._send.finish())
            self._finished = True

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        for future in tuple(self._waiting):
            future.cancel()  # a pending call holds the half's lock: it must let go before reset gets it
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # no loop any more: the endpoint is gone, and the stream with it
        if not self._finished:
            loop.call_soon(_start, self._send.reset(_ABORTED))
        if not self._ended:
            loop.call_soon(_start, self._recv.stop(_ABORTED))

    async def _call(self, call: Coroutine[Any, Any, Any]) -> Any:
        if self._aborted:
            call.close()
            raise Unavailable("stream.broken", "this stream was aborted by us")
        try:
            return await _Interruptible(call, self._waiting)
        except IrohError as error:
            raise Unavailable("stream.broken", f"the stream to the peer broke: {error.message()}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._aborted and not (task and task.cancelling()):
                raise Unavailable("stream.broken", "this stream was aborted by us") from None
            raise


class _Interruptible:
    """Awaits a binding's coroutine, keeping the future it hangs on where ``abort`` can cancel it."""

    __slots__ = ("_call", "_waiting")

    def __init__(self, call: Coroutine[Any, Any, Any], waiting: set[asyncio.Future[Any]]) -> None:
        self._call, self._waiting = call, waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        call = self._call.__await__()
        try:
            future = next(call)
            while True:
                self._waiting.add(future)
                try:
                    result = yield future
                except BaseException as error:
                    self._waiting.discard(future)
                    future = call.throw(error)
                else:
                    self._waiting.discard(future)
                    future = call.send(result)
        except StopIteration as done:
            return done.value


def _start(call: Coroutine[Any, Any, Any]) -> None:
    """Run *call* up to its first wait. The binding polls once right there, which is all that reset and stop
    need: nobody has to wait for them, so ``abort`` can be an ordinary function."""
    try:
        call.send(None)
    except (StopIteration, IrohError):
        return
    call.close()
