"""The relay's TCP side: who may come in at all, before a byte of HTTP is read.

aiohttp bounds what one connection may send; how many there are, and how often they come, is bounded here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from dockage.wire.limits import RelayLimits
from dockage.wire.sources import Rates, source_of


class Door(web.Server):
    def __init__(self, handler: Any, limits: RelayLimits, refused: Callable[[str], None]) -> None:
        # Also a connection that sends half a request is closed after the keep-alive time.
        super().__init__(handler, access_log=None, keepalive_timeout=limits.handshake_sec, lingering_time=0)
        self._limits, self._refused = limits, refused
        self._rates = Rates(limits.source_rate, limits.source_burst, limits.sources)
        self._inside: dict[RequestHandler, str] = {}
        self._from: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._inside)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        source = source_of((transport.get_extra_info("peername") or ("",))[0])
        if why := self._objection(source):
            self._refused(why)
            # Later, as aiohttp starts on a connection after this, and does not expect to find it gone.
            asyncio.get_running_loop().call_later(0, transport.abort)
            return
        self._inside[handler] = source
        self._from[source] += 1

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        source = self._inside.pop(handler, None)
        if source is None:
            return
        self._from[source] -= 1
        if not self._from[source]:
            del self._from[source]

    def _objection(self, source: str) -> str:
        if not self._rates.spend(source, asyncio.get_running_loop().time()):
            return "source-rate"
        if self._from[source] >= self._limits.visitors_per_source:
            return "source-crowded"
        return "crowded" if len(self._inside) >= self._limits.visitors else ""
