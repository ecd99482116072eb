"""DNS over UDP and TCP, without a word about what is answered (RFC 1035 §4.2, 7766).

An address can be forged in UDP, so nobody's network may be flooded by our answers: beyond its pace an asker's network
gets a word to come over TCP, where an address cannot be forged, for each second question, and nothing for the others.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast

from dockage.domain.errors import Unavailable
from dockage.protocol.dns import read_query, write_truncated
from dockage.wire.bucket import Bucket

Later = Coroutine[Any, Any, bytes]
Respond = Callable[[bytes, bool], bytes | Later | None]
"""The answer to a message, at once if it can be; the second argument: it came over TCP. None: it deserves none."""


class Limits(NamedTuple):
    per_second: float = 200
    """Answers over UDP to one network (/24, /56)."""
    burst: float = 1000
    networks: int = 16_384
    """Of which the pace is remembered; the one that was silent for longest is forgotten."""
    waiting: int = 256
    """Questions whose answer is being fetched; more are dropped, and asked again by their resolver."""
    connections: int = 128
    connections_each: int = 8
    """From one network."""
    idle_sec: float = 10.0
    """Until a connection says its next question whole."""
    questions: int = 128
    """On one connection."""


class DnsServer:
    def __init__(self, respond: Respond, limits: Limits | None = None) -> None:
        self._respond, self._limits = respond, limits or Limits()
        self._pace = OrderedDict[str, Bucket]()
        self._connected = dict[str, int]()
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting = 0
        self._slip = 0

    async def serve(self, host: str, port: int, ready: Callable[[int], None] = lambda port: None) -> None:
        """Until cancelled. *ready* is told the port. Raises Unavailable("dns.bind")."""
        loop = asyncio.get_running_loop()
        try:
            server = await asyncio.start_server(self._accept, host, port)
            port = server.sockets[0].getsockname()[1]
            udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), (host, port))
        except OSError as error:
            raise Unavailable(
                "dns.bind",
                f"no name server at {host}:{port}: {error.strerror or error}. Is another one running there?",
            ) from None
        ready(port)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await loop.create_future()
        finally:
            udp.close()
            server.close()

    # -- UDP -------------------------------------------------------------------------------------------
    def datagram(self, message: bytes, peer: tuple[str, int], send: Callable[[bytes], None]) -> None:
        if not self._may(network(peer[0])):
            self._slip ^= 1
            query = read_query(message) if self._slip else None
            if query is not None:
                send(write_truncated(query))
            return
        answer = self._respond(message, False)
        if isinstance(answer, bytes):
            send(answer)
        elif answer is not None and self._waiting < self._limits.waiting:
            self._spawn(self._later(answer, send))
        elif answer is not None:
            answer.close()

    async def _later(self, answer: Later, send: Callable[[bytes], None]) -> None:
        self._waiting += 1
        try:
            send(await answer)
        finally:
            self._waiting -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work)

    def _may(self, network: str) -> bool:
        now = asyncio.get_running_loop().time()
        bucket = self._pace.pop(network, None) or Bucket(self._limits.per_second, self._limits.burst, now)
        self._pace[network] = bucket
        while len(self._pace) > self._limits.networks:
            self._pace.popitem(last=False)
        return bucket.spend(now)

    # -- TCP -------------------------------------------------------------------------------------------
    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._connection(reader, writer))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername")
        if address is None:  # it was gone before it was accepted
            writer.transport.abort()
            return
        peer = network(address[0])
        mine = self._connected.get(peer, 0)
        if sum(self._connected.values()) >= self._limits.connections or mine >= self._limits.connections_each:
            writer.transport.abort()
            return
        self._connected[peer] = mine + 1
        try:
            await self._conversation(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connected[peer] -= 1
            if not self._connected[peer]:
                del self._connected[peer]
            writer.close()

    async def _conversation(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._limits.questions):
            async with asyncio.timeout(self._limits.idle_sec):
                size = struct.unpack(">H", await reader.readexactly(2))[0]
                message = await reader.readexactly(size)
            answer = self._respond(message, True)
            if answer is None:
                return
            if not isinstance(answer, bytes):
                answer = await answer
            async with asyncio.timeout(self._limits.idle_sec):
                writer.write(struct.pack(">H", len(answer)) + answer)
                await writer.drain()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # its class says so from Python 3.12 on

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        def send(answer: bytes) -> None:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(answer, addr)

        self._server.datagram(data, addr, send)


def network(address: str) -> str:
    """What one asker may have for itself: a /24, or a /56."""
    if ":" not in address:
        return address.rpartition(".")[0]
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:7].hex()
