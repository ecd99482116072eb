"""What all clients' connections share: which deployment is meant, and the ways to its replicas."""

from __future__ import annotations

import asyncio
from random import Random

from dockage.domain.errors import Unavailable

from .door import Door
from .line import Search, find
from .live import Backend, Way
from .pages import Refused
from .served import Served
from .upstream import Silent, Unreached, Upstream, Upstreams
from .visit import Visit


class Web:
    def __init__(self, served: Served, upstreams: Upstreams, rand: Random) -> None:
        self._served, self._upstreams, self._rand = served, upstreams, rand
        self.now, self.keep = asyncio.get_running_loop().time, upstreams.keep

    async def serve(self, door: Door, *, trusted: bool, scheme: str = "http") -> None:
        """One connection to its end. *trusted*: it is our face's, which says who the client is."""
        visit = Visit(self, door, scheme, trusted=trusted)
        try:
            while await visit.once():
                pass
        except Unavailable:
            pass  # the client is gone, or too slow
        finally:
            visit.end()
            door.abort()

    def find(self, host: str) -> Way:
        way = self._served.find(host)
        if way is None or way.site.mode != "terminate":
            raise Refused(404)
        if way.live.paused:
            raise Refused(503)
        return way

    def ready(self, host: str, now: float) -> tuple[Way, Upstream] | None:
        """Who is asked for *host* now, if that needs no waiting and no doubt."""
        way = self._served.find(host)
        if way is None or way.site.mode != "terminate" or way.live.paused:
            return None
        backend = way.choose((), self._rand)
        if backend is None or backend.misses:
            return None
        upstream = self._upstreams.ready(way, backend, now)
        return None if upstream is None else (way, upstream)

    async def choose(self, way: Way, search: Search, door: Door) -> Backend | None:
        return await find(way, search, door, self._rand)

    async def open(self, way: Way, backend: Backend, *, kept: bool) -> Upstream:
        asked_at = self.now()
        try:
            return await self._upstreams.open(way, backend, kept=kept)
        except Unavailable as error:
            way.live.missed(backend, asked_at, self.now(), is_reached=not isinstance(error, Unreached))
            raise Silent from error
