"""Many streams in one stream of the link: each is a ``Stream``, and costs the link nothing to open or to end.

Over the peer link each read and each write costs as much as a small HTTP request; here all that the streams of a bundle
say in one turn of the loop leaves in one write, and one read brings what came for all of them. The rule: a stream
never waits for another one's reader (``protocol.bundles.WINDOW``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.ports.peers import Stream
from dockage.protocol.bundles import PAYLOAD_MAX, STREAMS_MAX, WINDOW, Frame, Frames, Kind, data_frame, encode

from .frames import PIECE
from .quick import Sink, Take
from .relay import only

log = structlog.get_logger("dockage.bundle")

OUT_MAX, OUT_FRAMES = 1 << 20, 8_192
"""Bytes and frames that wait for the link; writers wait while there are more."""
UNTAKEN = 2 * OUT_FRAMES
"""Frames that wait because the other side reads nothing, and goes on opening streams that we have to answer."""
NUMBERS = 1 << 32
IDLE = 30.0
"""Seconds without a stream after which who opens them ends the bundle: it keeps a connection busy."""
Accept = Callable[[Stream], Awaitable[None]]
"""Serves one stream that the other side opened; owns it. A PeerError costs the bundle."""


class Budget:
    """Bytes that bundles may hold for their readers, all together. One stream's window is small; thousands are not."""

    def __init__(self, size: int) -> None:
        self.left = size


class Bundle:
    """One side of it. Only one side opens streams: the one that has no *accept*."""

    def __init__(self, stream: Stream, budget: Budget, accept: Accept | None = None) -> None:
        self._stream, self._accept, self.budget = stream, accept, budget
        self._streams: dict[int, Bundled] = {}
        self._silent: set[Bundled] = set()
        """Opened by us, and nothing was said on them: they have no number yet."""
        self._newest = self._serving = 0
        self._out: list[bytes] = []
        self._waiting = 0
        self._due, self._room = asyncio.Event(), asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._limit = asyncio.timeout(None)
        self.over = False

    @property
    def carried(self) -> int:
        """Streams that are open."""
        return len(self._streams) + len(self._silent)

    def open(self) -> Stream:
        """Raises Unavailable("stream.broken") once it is over."""
        if self.over or self._newest + len(self._silent) + 1 >= NUMBERS:
            raise _broken("the bundle of streams to the peer has ended")
        stream = Bundled(self, 0)
        self._silent.add(stream)
        self._mind_idleness()
        return stream

    async def run(self) -> None:
        """Until either side ends it, the link breaks, or (where streams are opened) it was idle for ``IDLE``; all its
        streams are broken then. Raises PeerError for a breach of the other side, in its frames or in a stream that
        *accept* served."""
        try:
            async with self._limit, asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._send())
                self._mind_idleness()
                await self._receive()
                raise _broken("the peer ended the bundle")
        except TimeoutError:
            pass  # idle
        except BaseExceptionGroup as group:
            error = _gravest(group)
            if not isinstance(error, Unavailable):
                raise error from None
        finally:
            self._end()

    def _mind_idleness(self) -> None:
        if self._accept is None and self._tasks is not None and not self._limit.expired():
            self._limit.reschedule(None if self.carried else asyncio.get_running_loop().time() + IDLE)

    def _end(self) -> None:
        self.over, self._tasks = True, None
        self._room.set()
        for stream in (*self._streams.values(), *self._silent):
            stream.break_()
        self._streams.clear()
        self._silent.clear()
        self._stream.abort()

    # -- out -------------------------------------------------------------------------------------------
    def numbered(self, stream: Bundled) -> int:
        """Counted up in the order in which something is said."""
        self._newest += 1
        self._silent.discard(stream)
        self._streams[self._newest] = stream
        return self._newest

    def say(self, frame: bytes) -> None:
        if self.over:
            return
        self._out.append(frame)
        self._waiting += len(frame)
        self._due.set()

    @property
    def is_full(self) -> bool:
        """Much is waiting to leave."""
        return (self._waiting > OUT_MAX or len(self._out) > OUT_FRAMES) and not self.over

    async def room(self) -> None:
        """Returns when little is."""
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    async def _send(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            data = b"".join(self._out)
            self._out.clear()
            await self._stream.write(data)
            self._waiting -= len(data)
            self._room.set()

    # -- in --------------------------------------------------------------------------------------------
    async def _receive(self) -> None:
        frames = Frames()
        while piece := await self._stream.read(PIECE):
            for frame in frames.feed(piece):
                stream = self._streams.get(frame.stream) or self._new(frame)
                if stream is not None:
                    stream.take(frame)

    def _new(self, frame: Frame) -> Bundled | None:
        """None for what still comes for a stream that has ended here."""
        if frame.stream <= self._newest:
            return None
        if (
            self._accept is None
            or frame.kind not in (Kind.DATA, Kind.FINISH)
            or frame.stream != self._newest + 1
        ):
            raise PeerError("bundle.number", f"the peer speaks of stream {frame.stream}, which is not there")
        if len(self._out) > UNTAKEN:
            raise PeerError("bundle.untaken", "the peer opens streams and takes no answers")
        self._newest += 1
        if self._serving >= STREAMS_MAX or self._tasks is None:
            self.say(encode(Kind.RESET, frame.stream))
            return None
        self._serving += 1
        stream = self._streams[frame.stream] = Bundled(self, frame.stream)
        self._tasks.create_task(self._serve(stream, self._accept))
        return stream

    async def _serve(self, stream: Bundled, accept: Accept) -> None:
        try:
            await accept(stream)
        except PeerError:
            raise
        except DockageError as error:
            log.debug("bundle.call-failed", code=error.code, why=error.message)
        except Exception:
            log.exception("bundle.handler-crashed")  # a bug: it ends this stream, not the daemon
        finally:
            self._serving -= 1
            stream.abort()

    def ended(self, number: int, stream: Bundled) -> None:
        self._silent.discard(stream)
        self._streams.pop(number, None)
        self._mind_idleness()


class Bundled:
    """One stream of a bundle."""

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
            raise _broken("this stream was aborted by us")
        if self._refused and not self._ended:
            raise _broken("the peer broke the stream off")

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

    def offer(self, data: bytes) -> bool:
        if (
            self._finished
            or self._ended
            or self._aborted
            or self._refused
            or self._parts
            or self._bundle.over
        ):
            return False
        if self.is_full or len(data) > min(self._credit, PAYLOAD_MAX):
            return False
        self._say(data)
        return True

    def _check_taken(self) -> None:
        if self._finished or self._aborted or self._refused:
            raise _broken("nobody takes what is written to this stream")

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
            raise _broken("nobody takes what is written to this stream")
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


def _broken(why: str) -> Unavailable:
    return Unavailable("stream.broken", why)


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A breach beside the breaks that it caused is a breach."""
    breaches = group.subgroup(PeerError)
    return only(breaches) if breaches is not None else only(group)
