"""Whether another gateway is there: it takes a connection where the public's come in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

PORTS = (443, 80)
WAIT_SEC = 1.0


async def is_up(address: str, ports: Sequence[int] = PORTS, seconds: float = WAIT_SEC) -> bool:
    async def connects(port: int) -> bool:
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    return any(await asyncio.gather(*(connects(port) for port in ports)))
