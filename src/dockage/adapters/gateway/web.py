"""What all clients' connections share: which deployment is meant, and the ways to its replicas."""

from __future__ import annotations

import asyncio
from random import Random
from typing import NamedTuple

from dockage.domain.deployment import Site
from dockage.domain.errors import Unavailable

from .door import Door
from .line import Search, find
from .live import Backend, Live, Served
from .pages import Refused
from .upstream import Silent, Unreached, Upstream, Upstreams
from .visit import Visit


class Ready(NamedTuple):
    live: Live
    site: Site
    backend: Backend
    upstream: Upstream


class Web:
    def __init__(self, served: Served, upstreams: Upstreams, rand: Random) -> None:
        self._served, self._upstreams, self._rand = served, upstreams, rand
        self.now = asyncio.get_running_loop().time

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

    def find(self, host: str) -> tuple[Live, Site]:
        found = self._served.find(host)
        if found is None or found[1].mode != "terminate":
            raise Refused(404)
        if found[0].paused:
            raise Refused(503)
        return found

    def ready(self, host: str) -> Ready | None:
        """Who is asked for *host* now, if that needs no waiting and no doubt."""
        found = self._served.find(host)
        if found is None or found[1].mode != "terminate" or found[0].paused:
            return None
        live, site = found
        backend = live.choose(site, (), self._rand)
        if backend is None or backend.down:
            return None
        upstream = self._upstreams.ready(backend, site, live.count)
        return None if upstream is None else Ready(live, site, backend, upstream)

    async def choose(self, live: Live, site: Site, search: Search, door: Door) -> Backend | None:
        return await find(live, site, search, door, self._rand)

    async def open(self, live: Live, site: Site, backend: Backend, *, kept: bool) -> Upstream:
        asked_at = self.now()
        try:
            return await self._upstreams.open(backend, site, live.count, kept=kept)
        except Unavailable as error:
            live.missed(backend, asked_at, self.now(), is_reached=not isinstance(error, Unreached))
            raise Silent from error

    def answered(self, live: Live, backend: Backend) -> None:
        live.answered(backend, self.now())

    def keep(self, backend: Backend, upstream: Upstream) -> None:
        self._upstreams.keep(backend, upstream)
