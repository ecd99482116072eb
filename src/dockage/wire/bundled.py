"""One stream of a bundle: what was said and not read yet, and how much more each side allows the other.

Counterpart: ``bundle.py``, which carries the frames of all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol.bundles import PAYLOAD_MAX, WINDOW, Frame, Kind, data_frame, encode

from .quick import Sink, Take

if TYPE_CHECKING:
    from .bundle import Bundle


class Bundled:
    __slots__ = ("__weakref__", "_aborted", "_bundle", "_credit", "_ended", "_finished", "_late", "_moved", "_number",
                 "_owed", "_parts", "_refused", "_taker", "_unread", "sink")  # fmt: skip

    def __init__(self, bundle: Bundle, number: int) -> None:
        self._bundle, self._number = bundle, number
        self._parts: list[bytes] = []
        self._unread = self._owed = 0
        self._credit = WINDOW
        self._aborted = self._finished = self._ended = self._refused = False
        """By us: aborted, finished. By the other side: its data ended; it takes none of ours."""
        self._moved: list[asyncio.Future[None]] = []
        self._late = b""
        """Of what was put: what the other side does not allow yet."""
        self._taker: Take | None = None
        """Gets what comes at once."""
        self.sink: Sink | None = None

    async def read(self, limit: int) -> bytes:
        while not self._parts:
            self._check()
            if self._ended:
                return b""
            await self._until_moved()
        self._check()
        piece = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = [piece[limit:]] if len(piece) > limit else []
        piece = piece[:limit]
        self._pay(len(piece))
        return piece

    async def pour(self, take: Take) -> bool:
        if self._parts and not take(await self.read(self._unread)):
            return True
        while not self._ended:
            self._check()
            self._taker = take
            try:
                await self._until_moved()
            finally:
                full, self._taker = self._taker is None, None
            if full:
                return True
        self._check()
        return False

    def _check(self) -> None:
        if self._aborted:
            raise broken("this stream was aborted by us")
        if self._refused and not self._ended:
            raise broken("the peer broke the stream off")

    def _pay(self, size: int) -> None:
        self._release(size)
        self._owe(size)

    def _owe(self, size: int) -> None:
        """Allow the other side as much again, in large steps: each is a frame of its own."""
        self._owed += size
        if self._owed >= WINDOW // 4 and not self._ended:
            self._bundle.say(encode(Kind.CREDIT, self._number, self._owed))
            self._owed = 0

    async def write(self, data: bytes) -> None:
        self.put(data)
        if self.is_full:
            await self.drained()

    def put(self, data: bytes) -> None:
        self._check_taken()
        self._say(self._late + data if self._late else data)

    @property
    def is_quiet(self) -> bool:
        over = self._finished or self._ended or self._aborted or self._refused or self._bundle.over
        return not (over or self._parts)

    def offer(self, data: bytes) -> bool:
        if not self.is_quiet or self.is_full or len(data) > min(self._credit, PAYLOAD_MAX):
            return False
        self._say(data)
        return True

    def _check_taken(self) -> None:
        if self._finished or self._aborted or self._refused:
            raise broken("nobody takes what is written to this stream")

    def _say(self, data: bytes) -> None:
        """As much as the other side allows and the bundle has room for."""
        at = 0
        while at < len(data) and self._credit and not self._bundle.is_full:
            size = min(len(data) - at, self._credit, PAYLOAD_MAX)
            self._number = self._number or self._bundle.numbered(self)
            self._bundle.say(data_frame(self._number, data[at : at + size]))
            self._credit -= size
            at += size
        self._late = data[at:]

    @property
    def is_full(self) -> bool:
        return bool(self._late) or self._bundle.is_full

    async def drained(self) -> None:
        while self._late:
            self._check_taken()
            if self._credit:
                await self._bundle.room()
                self._say(self._late)
            else:
                await self._until_moved()
        await self._bundle.room()

    async def finish(self) -> None:
        if self._aborted or self._refused:
            raise broken("nobody takes what is written to this stream")
        if not self._finished:
            if self._late:
                await self.drained()
            self._finished = True
            self._number = self._number or self._bundle.numbered(self)
            self._bundle.say(encode(Kind.FINISH, self._number))
            self._leave()

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._parts.clear()
        self._late = b""
        self._release(self._unread)
        if self._number and not (self._refused or (self._finished and self._ended)):
            self._bundle.say(encode(Kind.RESET, self._number))
        self._bundle.ended(self._number, self)
        self._wake()

    def _release(self, size: int) -> None:
        self._unread -= size
        self._bundle.budget.left += size

    def _leave(self) -> None:
        if self._finished and self._ended:
            self._bundle.ended(self._number, self)

    async def _until_moved(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._moved.append(future)
        await future

    def _wake(self) -> None:
        """Somebody waits for what moved; of a sink it is always an end."""
        sink, self.sink = self.sink, None
        if sink is not None:
            sink(b"")
        for future in self._moved:
            if not future.done():
                future.set_result(None)
        self._moved.clear()

    # -- from the bundle -------------------------------------------------------------------------------
    def take(self, frame: Frame) -> None:
        """Raises PeerError("bundle.overrun") for more than was allowed."""
        if frame.kind == Kind.DATA:
            if self._unread + frame.number + self._owed > WINDOW or self._ended:
                raise PeerError("bundle.overrun", "the peer sent more than it was allowed to")
            self._take_in(frame.data)
        elif frame.kind == Kind.CREDIT:
            self._credit += frame.number
            if self._credit > WINDOW:
                raise PeerError("bundle.overrun", "the peer allows more than a whole window")
            if self.sink is not None:
                return  # nobody waits for room
        elif frame.kind == Kind.FINISH:
            self._ended = True
            self._leave()
        else:
            self.break_()
            self._bundle.ended(self._number, self)
        if self._moved or (self.sink is not None and frame.kind != Kind.DATA):
            self._wake()

    def _take_in(self, data: bytes) -> None:
        if self._taker is None:
            return self._hold(data)
        if not self._taker(data):
            self._taker = None
            self._wake()
        self._owe(len(data))

    def _hold(self, data: bytes) -> None:
        if len(data) > self._bundle.budget.left:
            self.abort()  # not a breach: others fill the room
            return
        self._release(-len(data))
        sink = self.sink
        if sink is not None and not self._parts:
            if sink(data):
                self._pay(len(data))
                return
            self.sink = None
        self._parts.append(data)

    def break_(self) -> None:
        """Nothing will come and nothing be taken; what came to its end before can still be read."""
        self._refused = True
        self._wake()


def broken(why: str) -> Unavailable:
    return Unavailable("stream.broken", why)
