"""What a market node answers others: contacts, pages of records, and what it agrees to hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.ports import Clock, Stream
from dockage.protocol.allowance import Allowance
from dockage.protocol.dht_messages import (
    PAGE_BYTES,
    REQUEST_MAX,
    TAG,
    Answer,
    Find,
    Get,
    Listing,
    Put,
    Request,
    Taken,
    decode_request,
    encode,
)
from dockage.protocol.kademlia import RoutingTable
from dockage.protocol.record_store import RecordStore
from dockage.wire.frames import read_frame, write_frame

from .asker import ticks
from .limits import Limits


class Server:
    """Holds no more than its store, its allowance and ``limits.served`` requests at a time."""

    def __init__(
        self,
        store: RecordStore,
        table: RoutingTable,
        clock: Clock,
        welcome: Callable[[NodeKey, Request], None],
        limits: Limits,
    ) -> None:
        self._store, self._table, self._clock, self._limits = store, table, clock, limits
        self._welcome = welcome
        self._allowance = Allowance(limits.rate, limits.burst)
        self._busy = 0
        self.refused: Counter[str] = Counter()

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
            self.refused[error.code] += 1
        except TimeoutError:
            self.refused["dht.slow"] += 1
        finally:
            stream.abort()

    async def _exchange(self, peer: NodeKey, stream: Stream) -> None:
        request = decode_request(await read_frame(stream, REQUEST_MAX))
        cost = 1 + (len(request.records) if isinstance(request, Put) else 0)
        if not self._allowance.take(peer, cost, ticks()):
            raise PeerError("dht.flood", "more requests than one peer is answered")
        self._welcome(peer, request)
        await write_frame(stream, encode(self._answer(request)))
        await stream.finish()

    def _answer(self, request: Request) -> Answer:
        match request:
            case Find(target=target):
                return Listing(tuple(self._table.closest(target)))
            case Get(target=target, topic=topic, after=after, known=known):
                tags = frozenset(known[at : at + TAG] for at in range(0, len(known), TAG))
                page = self._store.page(topic, after, tags, self._clock.now(), PAGE_BYTES)
                contacts = () if after else tuple(self._table.closest(target))
                return Listing(contacts, page.records, page.more, page.last)
            case Put(topic=topic, records=records):
                return Taken(tuple(self._take(topic, blob) for blob in records))

    def _take(self, topic: bytes, blob: bytes) -> bool:
        try:
            return self._store.put(topic, blob, self._clock.now())
        except PeerError as error:
            self.refused[error.code] += 1
            return False
