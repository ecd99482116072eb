"""``GET /events``: one list of events for all clients, whichever lease they happened at.

As in the engine, the newest 256 are kept for ``since``; a subscriber that does not keep up is cut off.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

KEPT = 256
QUEUE_MAX = 2048
SUBSCRIBERS_MAX = 256

Event = dict[str, Any]


class EventHub:
    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=KEPT)
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, event: Event) -> None:
        self._past.append(event)
        for queue in list(self._queues):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._queues.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    def since(self, moment_ns: int) -> list[Event]:
        return [event for event in self._past if event["timeNano"] >= moment_ns]

    @contextmanager
    def subscribed(self) -> Iterator[AsyncIterator[Event]]:
        """Everything that is published from now on; ends if the reader falls 2048 events behind."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(QUEUE_MAX)
        if len(self._queues) < SUBSCRIBERS_MAX:
            self._queues.add(queue)
        else:
            queue.put_nowait(None)
        try:
            yield _read(queue)
        finally:
            self._queues.discard(queue)


async def _read(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await queue.get()) is not None:
        yield event
