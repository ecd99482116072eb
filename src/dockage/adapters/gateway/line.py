"""Which replica is asked next, and the line of those who wait for one: nobody serves, all are full, or all fell out a
moment ago.

A place in the line has no timer: it hangs at its client's door, whose deadlines one sweep looks at, and which gives the
place up when the client leaves.
"""

from __future__ import annotations

import asyncio
import math
from random import Random

from dockage.domain.errors import Unavailable

from .door import Door
from .live import Backend, Way

HOLD_SEC = 30.0
"""How long somebody waits while none serves (scaled to zero, being moved), or while all have too much to do."""
AGAIN_SEC = 10.0
"""After the last replica fell out, what may be asked again waits for one that is up: a standby is there within five."""
LINE_MAX = 1024
"""Of one deployment."""


class Search:
    """One request's, or connection's."""

    __slots__ = ("is_second", "tried")

    def __init__(self) -> None:
        self.tried: set[Backend] = set()
        self.is_second = False
        """All were tried, and those that are up by now are asked again; never a third time."""


class Place:
    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._turn = asyncio.get_running_loop().create_future()
        try:
            await self._turn
        finally:
            self._turn = None

    def abort(self) -> None:
        """No longer: it looks whether it is its turn, and whether its client is still there."""
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    @property
    def is_waiting(self) -> bool:
        return self._turn is not None and not self._turn.done()


async def find(way: Way, search: Search, door: Door, rand: Random) -> Backend | None:
    """None: there is none, and none is to be expected. Raises Unavailable: the client left."""
    backend = None if way.live.paused else way.choose(search.tried, rand)
    return backend or await _wait(way, search, door, rand)


async def _wait(way: Way, search: Search, door: Door, rand: Random) -> Backend | None:
    seconds, live = _patience(way, search), way.live
    if seconds <= 0 or len(live.line) >= LINE_MAX:
        return None
    door.is_late = False
    door.within(seconds)
    door.upstream = place = Place()
    live.line[place] = None
    try:
        while not (live.paused or door.is_late):
            if door.is_left:
                raise Unavailable("http.left", "the client is gone")
            if (backend := _choose(way, search, rand)) is not None:
                return backend
            with way.wants():
                await place.wait()
        return None
    finally:
        door.upstream, door.deadline = None, math.inf
        del live.line[place]
        live.call_next()


def _patience(way: Way, search: Search) -> float:
    serving = way.serving
    if way.live.paused:
        return 0.0
    if not serving or any(x not in search.tried for x in serving):
        return HOLD_SEC
    if search.is_second:
        return 0.0
    if not all(x.down for x in serving):
        return AGAIN_SEC
    now = asyncio.get_running_loop().time()
    return max(x.down_since for x in serving) + AGAIN_SEC - now


def _choose(way: Way, search: Search, rand: Random) -> Backend | None:
    backend = way.choose(search.tried, rand)
    if backend is None and not search.is_second:
        up = {x for x in way.serving if not x.down}
        if up and search.tried >= up:
            search.is_second, search.tried = True, search.tried - up
            backend = way.choose(search.tried, rand)
    return backend
