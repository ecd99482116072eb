"""Asks a relay whether it is there, as its clients do: ``GET /ping``. One connection a relay is kept open for it."""

from __future__ import annotations

import asyncio

import aiohttp

from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Duration

PROBE_SEC = 1.0
PAYMENT_REQUIRED = 402
WHY_MAX = 100
"""Bytes of its reason that are read."""


class RelayProbe:
    def __init__(self, node: NodeKey) -> None:
        """*node* asks: a relay that is paid says whether it would pass anything on for it."""
        self._ping = f"ping?key={node.hex()}"
        timeout = aiohttp.ClientTimeout(total=PROBE_SEC)
        connector = aiohttp.TCPConnector(limit=16, limit_per_host=1, keepalive_timeout=5.0)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def __call__(self, url: str) -> Duration:
        """How long the answer took. Raises Unavailable("relay.silent" | "relay.unpaid") after a second at most."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._session.get(url + self._ping, allow_redirects=False) as answer:
                status, why = answer.status, await answer.content.read(WHY_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            status, why = 0, b""
        if status == PAYMENT_REQUIRED:
            said = "".join(x for x in why.decode("ascii", "replace") if x.isprintable())
            raise Unavailable(
                "relay.unpaid", f"the relay {url} is paid, and passes nothing on for us: {said}"
            )
        if status != 200:
            raise Unavailable("relay.silent", f"the relay {url} does not answer")
        return Duration(round((loop.time() - began) * SECOND))

    async def close(self) -> None:
        await self._session.close()
