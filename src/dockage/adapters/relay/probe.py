"""Asks a relay whether it is there, as its clients do: ``GET /ping``. One connection a relay is kept open for it."""

from __future__ import annotations

import asyncio

import aiohttp

from dockage.domain.errors import Unavailable
from dockage.domain.units import SECOND, Duration

PROBE_SEC = 1.0


class RelayProbe:
    def __init__(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PROBE_SEC)
        connector = aiohttp.TCPConnector(limit=16, limit_per_host=1, keepalive_timeout=5.0)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def __call__(self, url: str) -> Duration:
        """How long the answer took. Raises Unavailable("relay.silent") after a second at most."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._session.get(url + "ping", allow_redirects=False) as answer:
                good = answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            good = False
        if not good:
            raise Unavailable("relay.silent", f"the relay {url} does not answer")
        return Duration(round((loop.time() - began) * SECOND))

    async def close(self) -> None:
        await self._session.close()
