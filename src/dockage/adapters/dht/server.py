"""Streams on which others ask us: read, answered by the core, written, each within its time."""

from __future__ import annotations

import asyncio

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.ports.machine import Clock
from dockage.ports.peers import Stream
from dockage.protocol.dht_messages import REQUEST_MAX, decode_request, encode
from dockage.protocol.dht_node import DhtNode
from dockage.wire.frames import read_frame, write_frame

from .asker import Seen, ticks
from .limits import Limits


class Server:
    """Answers no more than ``limits.served`` requests at a time."""

    def __init__(self, node: DhtNode, clock: Clock, seen: Seen, limits: Limits) -> None:
        self._node, self._clock, self._seen, self._limits = node, clock, seen, limits
        self._busy = 0

    async def serve(self, peer: NodeKey, stream: Stream) -> None:
        try:
            if self._busy >= self._limits.served:
                raise PeerError("dht.busy", "too many requests at once")
            self._busy += 1
            try:
                async with asyncio.timeout(self._limits.question_sec):
                    await self._exchange(peer, stream)
            finally:
                self._busy -= 1
        except PeerError as error:
            self._node.refused[error.code] += 1
        except TimeoutError:
            self._node.refused["dht.slow"] += 1
        finally:
            stream.abort()

    async def _exchange(self, peer: NodeKey, stream: Stream) -> None:
        request = decode_request(await read_frame(stream, REQUEST_MAX))
        answer = self._node.serve(peer, request, self._seen(peer), self._clock.now(), ticks())
        await write_frame(stream, encode(answer))
        await stream.finish()
