"""One iroh bidirectional stream as the Stream port.

Two rules of QUIC decide its shape. A send half that is merely dropped counts as *finished*: the peer would take
half an answer for a whole one, so ``abort`` resets it. And a reset after ``finish`` may lose the tail, so there
``abort`` only stops reading. A call of the binding costs a tenth of a small request: what comes is taken whole, and
handed out as it is asked for, so a header and what follows it are one call.
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

    __slots__ = (
        "__weakref__",
        "_aborted",
        "_at",
        "_ended",
        "_finished",
        "_here",
        "_recv",
        "_room",
        "_send",
        "_waiting",
    )

    def __init__(self, stream: Any) -> None:
        self._send, self._recv = stream.send(), stream.recv()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._finished = self._ended = self._aborted = False
        self._room = SMALL
        self._here, self._at = b"", 0
        """Taken from the binding, and handed out up to ``_at``."""

    async def read(self, limit: int) -> bytes:
        if self._at == len(self._here) and not self._ended:
            self._here, self._at = await self._more(), 0
        start, self._at = self._at, min(self._at + limit, len(self._here))
        return self._here[start : self._at]

    async def _more(self) -> bytes:
        room = self._room
        piece: bytes = await self._call(self._recv.read(room))
        self._ended = not piece
        if len(piece) == room:
            self._room = min(PIECE, 4 * room)
        else:
            self._room = max(SMALL, min(room, 4 * len(piece)))
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
            loop.call_soon(_stop, self._recv)

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


def _start(call: Coroutine[Any, Any, Any]) -> Any:
    """Run *call* up to its first wait; what it returned, or None. The binding polls once right there, which is all
    that reset and stop need: nobody has to wait for them, so ``abort`` can be an ordinary function."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value
    except IrohError:
        return b""  # broken: there is nothing to stop
    call.close()
    return None


def _stop(recv: Any) -> None:
    """Most often all is read and the end is there, unread: then the peer need not be told, in a packet that it
    acknowledges, that we want no more."""
    if _start(recv.read(1)) != b"":
        _start(recv.stop(_ABORTED))
