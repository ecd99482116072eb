"""A connection of the public, and how long it may take over what it does.

No wait of a door has a timer of its own: the door says until when, and one sweep looks at all doors twice a second. A
timer set and dropped for each request cost a tenth of the request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from dockage.protocol.forwarding import HEAD_MAX
from dockage.wire.connection import Connection
from dockage.wire.quick import Sink

HEAD_SEC = 10.0
"""For a head that has begun."""
IDLE_SEC = 75.0
"""Between two requests, as nginx has it."""
SLOW_SEC = 60.0
"""For a client to take, or to send, the next piece."""
ANSWER_SEC = 120.0
"""For the head of an answer. A replica that fell out is noticed long before."""
SWEEP = 0.5

HEAD_END = b"\r\n\r\n"


class HeadTooLong(Exception):
    pass


class Under(Protocol):
    """What is under way for a client."""

    def abort(self) -> None: ...


class Door(Connection):
    """When the client leaves, what is asked for it ends, as nginx does it: an endless answer would run on unseen."""

    def __init__(self, begin: Callable[[Door], None], over: Callable[[Door], None]) -> None:
        super().__init__()
        self._begin, self._over = begin, over
        self.client = ""
        """Its address."""
        self.upstream: Under | None = None
        """What is asked for the client now, or its place in a line."""
        self.deadline = self.piece_deadline = math.inf
        """The second one: for the next piece of a body that goes up, while the first is for the answer."""
        self.is_late = False
        """What was asked did not come before the deadline."""
        self.quick: Sink | None = None
        """What comes between two requests goes here first."""

    @property
    def is_left(self) -> bool:
        """The client hung up, or says no more."""
        return self._ended or self._lost

    async def head(self) -> bytes:
        """Up to the empty line; b"" when the client is done, or ``quick`` left something to do. Raises HeadTooLong,
        Unavailable."""
        if not self._data:
            self.within(IDLE_SEC)
            self.sink = self.quick
            try:
                if not await self.more() or self.upstream is not None:
                    return b""
            finally:
                self.sink = None
        searched = 0
        while (end := self._data.find(HEAD_END, searched) + 4) < 4:
            if len(self._data) > HEAD_MAX:
                raise HeadTooLong
            if not searched:
                self.within(HEAD_SEC)  # for all of it
            searched = max(1, len(self._data) - 3)
            if not await self.more():
                return b""
        self.deadline = math.inf
        return self.take(end)

    async def drained(self) -> None:
        if self.is_full:
            self.within(SLOW_SEC)
            await super().drained()
            self.deadline = math.inf

    def abort(self) -> None:
        """Within a limit, as all that we wait for."""
        self.within(SLOW_SEC)
        super().abort()

    def within(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds

    def piece_within(self, seconds: float) -> None:
        self.piece_deadline = self._loop.time() + seconds

    def expire(self, now: float) -> None:
        slow = self.piece_deadline <= now
        self.deadline, self.is_late = math.inf, True
        if slow or self.upstream is None or self.is_full or self.transport.is_closing():
            self.cut()
        else:
            self.upstream.abort()

    def call(self) -> None:
        """Who waits for a head looks up."""
        self._wake()

    # -- asyncio.Protocol ------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        self._begin(self)

    def eof_received(self) -> bool:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)
        self._over(self)

    def _leave(self) -> None:
        if self.upstream is not None:
            self.upstream.abort()


async def sweep(doors: set[Door]) -> None:
    """Until cancelled."""
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(SWEEP)
        late = now()
        for door in [door for door in doors if door.deadline <= late or door.piece_deadline <= late]:
            door.expire(late)
