"""One client of the relay: its queue, its rate, and whether it is still there."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque

from aiohttp import web

from dockage.domain.identity import NodeKey
from dockage.protocol import relaying
from dockage.wire.bucket import Bucket
from dockage.wire.limits import RelayLimits


class Client:
    def __init__(
        self, key: NodeKey, source: str, socket: web.WebSocketResponse, limits: RelayLimits, now: float
    ) -> None:
        self.key, self.source, self._socket, self._limits = key, source, socket, limits
        self.bucket = Bucket(limits.rate, limits.rate, now)
        self.heard = now
        self.was_throttled = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._more = asyncio.Event()

    def offer(self, frame: bytes) -> bool:
        """False if it is dropped: its reader is too slow."""
        limits = self._limits
        if len(self._queue) >= limits.queue_frames or self._queued + len(frame) > limits.queue_bytes:
            return False
        self._queue.append(frame)
        self._queued += len(frame)
        self._more.set()
        return True

    def tell(self, code: int) -> None:
        """A status, if the client knows such."""
        if self._socket.ws_protocol == relaying.VERSIONS[0]:
            self.offer(relaying.status(code))

    async def deliver(self) -> None:
        """Until cancelled. Raises TimeoutError if the client does not read, ConnectionError if it is gone."""
        while True:
            while self._queue:
                frame = self._queue.popleft()
                self._queued -= len(frame)
                async with asyncio.timeout(self._limits.write_sec):
                    await self._socket.send_bytes(frame)
            self._more.clear()
            await self._more.wait()

    async def watch(self) -> None:
        """Ping it, and end with TimeoutError once it was silent for too long."""
        loop = asyncio.get_running_loop()
        while loop.time() - self.heard < self._limits.silence_sec:
            await asyncio.sleep(self._limits.ping_sec)
            self.offer(relaying.ping(secrets.token_bytes(8)))
        raise TimeoutError

    async def close(self) -> None:
        await self._socket.close()
