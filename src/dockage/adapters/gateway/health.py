"""Active checks: each replica that has said nothing for a second is asked for something small, once a second; where
nobody asks for anything, every five.

A replica that answers, whatever it answers, is up. One miss takes it out of rotation; the controller reads the misses
and decides what becomes of it.
"""

from __future__ import annotations

import asyncio

import structlog

from dockage.domain.deployment import Site
from dockage.domain.errors import Unavailable

from .live import Backend, Live, Way
from .served import Served
from .upstream import Unreached, Upstream, Upstreams

log = structlog.get_logger("dockage.gateway")

EVERY = 1.0
CALM_EVERY, CALM_AFTER = 5.0, 60.0
"""A deployment that nobody has asked anything for a minute is looked at less often: a thousand quiet ones must not keep
the gateway busy. A replica that missed is not calm."""
LOOK = 0.25
"""Between two looks at who is due: a first miss is followed by a second check at once."""
WITHIN = 1.0
"""Seconds for the first byte of an answer."""
TCP_QUIET = 0.5
"""A port that is not HTTP need not say anything: not being cut for so long is an answer."""
AT_ONCE = 256


class Health:
    def __init__(self, served: Served, upstreams: Upstreams) -> None:
        self._served, self._upstreams = served, upstreams
        self._now = asyncio.get_running_loop().time
        self._running: set[Backend] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(LOOK)
                self._served.expire()
                for live in self._served.all():
                    for backend in live.backends.values():
                        if self._is_due(live, backend):
                            self._running.add(backend)
                            backend.checked_at = self._now()
                            tasks.create_task(self._check(live, backend))

    def _is_due(self, live: Live, backend: Backend) -> bool:
        now = self._now()
        calm = not backend.misses and now - live.asked_at > CALM_AFTER
        every = CALM_EVERY if calm else EVERY
        return (
            not live.paused
            and backend.replica.state == "serving"
            and now - backend.answered_at >= every
            and (backend.misses == 1 or now - backend.checked_at >= every)
            and len(self._running) < AT_ONCE
            and backend not in self._running
        )

    async def _check(self, live: Live, backend: Backend) -> None:
        asked_at = self._now()
        try:
            for way in live.ways.values():
                if backend.place(way.site):
                    await self._ask(way, backend)
                    break  # one way in stands for the replica
        except (Unavailable, TimeoutError) as error:
            if not backend.gone:
                live.missed(backend, asked_at, self._now(), is_reached=not isinstance(error, Unreached))
        except Exception:
            log.exception("gateway.check")  # one replica's, never the gateway's
        finally:
            self._running.discard(backend)

    async def _ask(self, way: Way, backend: Backend) -> None:
        live, site = way.live, way.site
        if site.mode == "udp":
            (await self._upstreams.dial(backend)).abort()  # only its provider can be asked
            live.answered(backend, self._now())
            return
        upstream = await self._opened(way, backend)
        try:
            async with asyncio.timeout(WITHIN):
                await (self._head(upstream, site) if site.mode == "terminate" else self._touch(upstream))
        finally:
            upstream.abort()
        live.answered(backend, self._now())

    async def _opened(self, way: Way, backend: Backend) -> Upstream:
        try:
            async with asyncio.timeout(WITHIN):
                return await self._upstreams.open(way, backend, kept=False)
        except TimeoutError:
            raise Unreached("peer.unreachable", "its provider takes no connection in time") from None

    async def _head(self, upstream: Upstream, site: Site) -> None:
        host = site.hosts[0] if site.hosts else site.service  # its own domains may all lack their records
        await upstream.write(
            f"HEAD / HTTP/1.1\r\nhost: {host}\r\nuser-agent: dockage-health\r\nconnection: close\r\n\r\n".encode()
        )
        if not await upstream.read(4096):
            raise Unavailable("tunnel.closed", "the replica closed without an answer")

    async def _touch(self, upstream: Upstream) -> None:
        await upstream.write(b"")
        try:
            async with asyncio.timeout(TCP_QUIET):
                if not await upstream.read(1):
                    raise Unavailable("tunnel.closed", "the replica closed at once")
        except TimeoutError:
            pass
