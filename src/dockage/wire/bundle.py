"""Many streams in one stream of the link: each is a ``Stream``, and costs the link nothing to open or to end.

Over the peer link each read and each write costs as much as a small HTTP request; here all that the streams of a bundle
say in one turn of the loop leaves in one write, and one read brings what came for all of them. The rule: a stream
(``bundled.py``) never waits for another one's reader (``protocol.bundles.WINDOW``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.ports.peers import Stream
from dockage.protocol.bundles import STREAMS_MAX, Frame, Frames, Kind, encode

from .bundled import Bundled, broken
from .frames import PIECE
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
            raise broken("the bundle of streams to the peer has ended")
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
                raise broken("the peer ended the bundle")
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


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A breach beside the breaks that it caused is a breach."""
    breaches = group.subgroup(PeerError)
    return only(breaches) if breaches is not None else only(group)
