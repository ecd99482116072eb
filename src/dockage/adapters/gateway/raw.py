"""Bytes as they are: TLS that is passed on by the name the client asks for, and rented TCP ports.

The gateway never has the key of what it passes on. Until a replica took the connection the next one is tried.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

from dockage.domain.errors import Unavailable
from dockage.ports.peers import Stream
from dockage.protocol.clienthello import HELLO_MAX, NoHello, server_name
from dockage.wire.connection import Connection
from dockage.wire.splice import splice

from .door import Door
from .line import Search, find
from .live import Backend, Way
from .served import Served
from .upstream import Unreached, Upstreams

HELLO_SEC = 5.0
DIAL_SEC = 2.0
ALERT = bytes.fromhex("15030300020270")
"""TLS: fatal, unrecognized_name (RFC 6066 §3)."""


class Raw:
    def __init__(self, served: Served, upstreams: Upstreams, rand: Random, face: Path | None) -> None:
        self._served, self._upstreams, self._rand, self._face = served, upstreams, rand, face
        self._now = asyncio.get_running_loop().time

    async def serve_tls(self, door: Door) -> None:
        door.within(HELLO_SEC)
        with suppress(NoHello, TimeoutError, OSError, Unavailable):
            host, first = await _hello(door)
            way = self._served.find(host)
            if way is not None and way.site.mode == "pass":
                await self._tunnel(way, first, door)
            elif way is not None and self._face is not None:
                await _to_face(self._face, first, door)
            else:
                door.put(ALERT)

    async def serve_port(self, port: int, door: Door) -> None:
        way = self._served.ports.get(("tcp", port))
        if way is not None:
            await self._tunnel(way, b"", door)

    async def open_flow(self, port: int) -> Stream:
        """For the datagrams of one address. Raises Unavailable."""
        way = self._served.ports.get(("udp", port))
        tried: set[Backend] = set()
        while way is not None and not way.live.paused:
            backend = way.choose(tried, self._rand)
            if backend is None:
                break
            tried.add(backend)
            asked_at = self._now()
            try:
                flow = await self._upstreams.open(way, backend, kept=False)
                await flow.write(b"")
            except Unavailable as error:
                way.live.missed(backend, asked_at, self._now(), is_reached=not isinstance(error, Unreached))
                continue
            way.entered(backend, self._now())
            return Flow(flow, partial(way.left, backend))
        raise Unavailable("gateway.no-replica", f"nobody serves UDP port {port}")

    async def _tunnel(self, way: Way, first: bytes, door: Door) -> None:
        search = Search()
        while (backend := await find(way, search, door, self._rand)) is not None:
            search.tried.add(backend)
            asked_at = self._now()
            way.entered(backend, asked_at)
            try:
                upstream = await self._upstreams.open(way, backend, kept=False)
                await upstream.write(first)
            except Unavailable as error:
                way.live.missed(backend, asked_at, self._now(), is_reached=not isinstance(error, Unreached))
                continue
            else:
                await splice(door, upstream)
                return
            finally:
                way.left(backend)


class Flow:
    """A Stream that says once when it is over."""

    def __init__(self, stream: Stream, over: Callable[[], None]) -> None:
        self._stream, self._over = stream, [over]
        self.read, self.write, self.finish = stream.read, stream.write, stream.finish

    def abort(self) -> None:
        self._stream.abort()
        if self._over:
            self._over.pop()()


async def _to_face(face: Path, first: bytes, door: Door) -> None:
    """With a PROXY line, so that the face knows who the client is."""
    async with asyncio.timeout(DIAL_SEC):
        _, inner = await asyncio.get_running_loop().create_unix_connection(Connection, str(face))
    here = door.transport.get_extra_info
    inner.put(proxy_line(here("peername"), here("sockname")) + first)
    await splice(door, inner)


async def _hello(door: Door) -> tuple[str, bytes]:
    """(the name asked for, the bytes so far). Raises NoHello, Unavailable."""
    data = b""
    while (host := server_name(data)) is None:
        piece = await door.read(HELLO_MAX)
        data += piece
        if not piece or len(data) > HELLO_MAX + 1024:
            raise NoHello("no whole hello")
    door.deadline = math.inf
    return host, data


def proxy_line(client: object, here: object) -> bytes:
    """PROXY protocol, version 1."""
    with suppress(TypeError, IndexError, ValueError):
        (source, source_port), (to, to_port) = client[:2], here[:2]  # type: ignore[index]
        family = "TCP6" if ":" in source else "TCP4"
        return f"PROXY {family} {source} {to} {source_port} {to_port}\r\n".encode()
    return b"PROXY UNKNOWN\r\n"
