"""Datagrams over a Stream, one flow a stream: a frame each, both ways, until nobody has said anything for a while.

What comes from the network never waits and never piles up: when the stream is slower, the oldest goes, as a
router's queue would do it. Spec: docs/spec/01-frames.md.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.ports.peers import Stream

from .frames import next_frame, write_frame
from .relay import only
from .splice import Count, ignore

DATAGRAM_MAX = 65_535
"""No UDP datagram is longer; a frame that says it is breaks the protocol."""
HEAD = 4
"""Bytes of a frame's length, which count as traffic too: both ends see the same."""
QUEUE_MAX = 64
"""Datagrams that wait for the stream, at most 4 MiB; a home router's queue is of that order."""
IDLE = 60.0
"""Seconds without a datagram after which a flow ends. Linux forgets a UDP flow after 30 to 120 s."""
BURST = 32
"""Datagrams taken from a socket in one go, so that a flood does not keep everybody else waiting."""

Deliver = Callable[[bytes], None]
Address = tuple[Any, ...]
"""As the socket module names a peer of this family."""


class Flow:
    """The conversation of one address with one port of a container."""

    def __init__(self, deliver: Deliver, idle: float = IDLE) -> None:
        """*deliver* hands a datagram to the network and must not wait."""
        self._deliver, self._idle = deliver, idle
        self._queue: deque[bytes] = deque(maxlen=QUEUE_MAX)
        self._came = asyncio.Event()

    def offer(self, datagram: bytes) -> None:
        """From the network, to be sent when the stream can take it."""
        self._queue.append(datagram)
        self._came.set()

    async def run(self, stream: Stream, *, sent: Count = ignore, received: Count = ignore) -> None:
        """Until the flow is idle or either end is gone; owns and closes *stream*. Raises PeerError for an
        oversized frame."""
        limit = asyncio.timeout(self._idle)
        try:
            async with limit, asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(stream, limit, sent))
                await self._receive(stream, limit, received)
                raise Unavailable("stream.ended", "the other end of the flow is gone")
        except TimeoutError:
            pass  # idle
        except BaseExceptionGroup as group:
            if not isinstance(error := only(group), Unavailable):
                raise error from None
        finally:
            stream.abort()

    async def _send(self, stream: Stream, limit: asyncio.Timeout, count: Count) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._queue:
                datagram = self._queue.popleft()
                self._renew(limit)
                await write_frame(stream, datagram)
                count(len(datagram) + HEAD)

    async def _receive(self, stream: Stream, limit: asyncio.Timeout, count: Count) -> None:
        while (datagram := await next_frame(stream, DATAGRAM_MAX)) is not None:
            self._renew(limit)
            count(len(datagram) + HEAD)
            self._deliver(datagram)

    def _renew(self, limit: asyncio.Timeout) -> None:
        if not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + self._idle)


class UdpSocket:
    """A bound or connected UDP socket on the loop. Nothing is queued here: what the kernel cannot take is lost, as
    datagrams are."""

    def __init__(self, sock: socket.socket, take: Callable[[bytes, Address], None]) -> None:
        self.sock, self._take = sock, take
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def _read(self) -> None:
        for _ in range(BURST):
            try:
                data, address = self.sock.recvfrom(DATAGRAM_MAX)
            except OSError:
                return  # no more, or an ICMP error about an earlier one
            self._take(data, address)

    def send(self, data: bytes, address: Address | None = None) -> None:
        try:
            if address is None:
                self.sock.send(data)
            else:
                self.sock.sendto(data, address)
        except OSError:
            pass  # the kernel's queue is full, or nobody is there

    def close(self) -> None:
        self._loop.remove_reader(self.sock)
        self.sock.close()
