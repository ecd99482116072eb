"""What all clients' connections share: which deployment is meant, which replica is next, and waiting for one."""

from __future__ import annotations

import asyncio
from random import Random

from dockage.domain.deployment import Site
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId

from .door import Door
from .live import Backend, Live, Served
from .pages import Refused
from .upstream import Silent, Upstream, Upstreams
from .visit import Visit

HOLD_SEC = 30.0
"""How long a request waits for a replica while none serves: scaled to zero, or being moved."""
WAITERS_MAX = 256
"""Of one deployment."""


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
        except (TimeoutError, Unavailable):
            pass  # the client is gone, or too slow
        finally:
            door.abort()

    def find(self, host: str) -> tuple[Live, Site]:
        found = self._served.find(host)
        if found is None or found[1].mode != "terminate":
            raise Refused(404)
        if found[0].paused:
            raise Refused(503)
        return found

    async def choose(self, live: Live, site: Site, tried: set[LeaseId]) -> Backend | None:
        backend = live.choose(site, tried, self._rand)
        if backend is None and not tried and not live.serves(site):
            backend = await self._held(live, site)
        return backend

    async def _held(self, live: Live, site: Site) -> Backend | None:
        """Nobody serves: the tenant is told, and the client waits."""
        if live.waiters >= WAITERS_MAX:
            return None
        live.waiters += 1
        if live.waiters == 1:
            live.move()
        try:
            async with asyncio.timeout(HOLD_SEC):
                while not (live.serves(site) or live.paused):
                    await live.changed.wait()
        except TimeoutError:
            return None
        finally:
            live.waiters -= 1
        return live.choose(site, (), self._rand)

    async def open(self, live: Live, site: Site, backend: Backend, *, kept: bool) -> Upstream:
        try:
            return await self._upstreams.open(backend, site, live.count, kept=kept)
        except Unavailable as error:
            live.missed(backend)
            raise Silent from error

    def answered(self, live: Live, backend: Backend) -> None:
        live.answered(backend, self.now())

    def keep(self, backend: Backend, upstream: Upstream) -> None:
        self._upstreams.keep(backend, upstream)
