"""The index role: a node that keeps every offer of its regions, and answers which of them fit.

Counterpart: ``indexes.py``. It learns from the board, which it reads every half minute, and from providers that tell it
themselves; it tells the board that it is there. What it answers are the providers' own signed records.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant, after
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Directory, PeerLink, Stream
from dockage.protocol import streams
from dockage.protocol.allowance import Allowance
from dockage.protocol.index_messages import (
    REQUEST_MAX,
    Announce,
    Answer,
    Ask,
    Request,
    Taken,
    decode_request,
    encode,
)
from dockage.protocol.order_book import OrderBook, page
from dockage.protocol.records import LIFETIME, IndexBody, indexes_topic, offers_topics, seal
from dockage.wire.frames import read_frame, write_frame

log = structlog.get_logger("dockage.index")

CRAWL_SEC = 30.0
PUBLISH_SEC = LIFETIME // 2 / 1e9
EXCHANGE_SEC = 5.0
"""For one request and its answer."""
SERVED_MAX = 64
"""Requests at once."""
MANY = 4096
"""Offers whose ranking would hold up everybody else for 5 ms and more: it is done in a thread."""
RATE, BURST = 10, 60
"""Requests a second of one peer; an announcement counts one for each record."""


class Indexer:
    def __init__(
        self,
        directory: Directory,
        link: PeerLink,
        keys: Keys,
        clock: Clock,
        regions: Sequence[str],
        work: int,
    ) -> None:
        self._directory, self._link, self._keys, self._clock = directory, link, keys, clock
        self._regions, self._work = tuple(regions), work
        self._allowance, self._busy = Allowance(RATE, BURST), 0
        self.book = OrderBook(keys.verify, regions)
        self.refused: Counter[str] = Counter()
        """What peers sent that was not taken, by code."""

    # -- learning --------------------------------------------------------------------------------------
    async def crawl(self) -> None:
        """Read the whole board once; a shard that does not answer now is read the next time."""
        now = self._clock.now()
        self.book.expire(now)
        for region in self._regions:
            for topic in offers_topics(region):
                try:
                    blobs = await self._directory.search(topic)
                except Unavailable:
                    continue
                for number, blob in enumerate(blobs):
                    self._take(blob, now)
                    if number % 100 == 99:
                        await asyncio.sleep(0)  # others want their turn: a hundred signatures take some 10 ms

    def _take(self, blob: bytes, now: Instant) -> bool:
        try:
            return self.book.put(blob, now)
        except PeerError as error:
            self.refused[error.code] += 1
            return False

    async def publish(self) -> None:
        """Tell the board that here is an index."""
        now, address = self._clock.now(), self._link.address()
        for region in self._regions:
            body = IndexBody(now, after(now, LIFETIME), region, address.relay, address.direct[:8])
            blob = await asyncio.to_thread(seal, "index", self._keys.node, body, self._keys.sign, self._work)
            try:
                await self._directory.publish(indexes_topic(region), blob)
            except DockageError as error:
                log.warning("index.unpublished", code=error.code, why=error.message)

    # -- answering -------------------------------------------------------------------------------------
    async def serve(self, peer: NodeKey, _header: streams.Index, stream: Stream) -> None:
        """One request on *stream*. What is wrong with it is counted, and ends the stream and nothing else."""
        try:
            if self._busy >= SERVED_MAX:
                raise PeerError("index.busy", "too many requests at once")
            self._busy += 1
            try:
                async with asyncio.timeout(EXCHANGE_SEC):
                    await self._exchange(peer, stream)
            finally:
                self._busy -= 1
        except PeerError as error:
            self.refused[error.code] += 1
        except TimeoutError:
            self.refused["index.slow"] += 1
        finally:
            stream.abort()

    async def _exchange(self, peer: NodeKey, stream: Stream) -> None:
        request = decode_request(await read_frame(stream, REQUEST_MAX))
        cost = len(request.records) if isinstance(request, Announce) else 1
        now = Instant(int(asyncio.get_running_loop().time() * SECOND))
        if not self._allowance.take(peer, cost, now):
            raise PeerError("index.flood", "more requests than one peer is answered")
        await write_frame(stream, encode(await self._answer(request)))
        await stream.finish()

    async def _answer(self, request: Request) -> Answer:
        now = self._clock.now()
        match request:
            case Ask(query=query):
                held = self.book.held(query, now)
                if len(held) < MANY:
                    return page(held, query)
                return await asyncio.to_thread(page, held, query)
            case Announce(records=records):
                return Taken(tuple(self._take(blob, now) for blob in records))
