"""Where a gateway listens: for its face, for the public, and on each port that a deployment rents."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import structlog

from dockage.domain.deployment import Document
from dockage.domain.errors import Unavailable, UsageError
from dockage.wire.udp import UdpListener

from .door import Door, sweep
from .raw import Raw
from .served import Served
from .upstream import Upstreams
from .web import Web

log = structlog.get_logger("dockage.gateway")

CONNECTIONS_MAX = 8192
PER_CLIENT_MAX = 512
"""Of one address, the face's aside."""
BACKLOG = 1024

Serve = Callable[[Door], Coroutine[Any, Any, None]]


class Places(NamedTuple):
    """Where to listen; "" = nowhere."""

    face: Path | None = None
    """A unix socket for our own face, whose ``X-Forwarded-*`` are believed."""
    http: str = ""
    """``ip:port`` for plain HTTP of the public."""
    tls: str = ""
    """``ip:port`` for TLS of the public: passed on by name, to replicas or to the face."""
    face_tls: Path | None = None
    """The unix socket where the face takes the TLS connections that it is to end, each with a PROXY line before it."""
    ports_at: str = "0.0.0.0"
    """The address of rented ports."""


class Listeners:
    def __init__(self, places: Places) -> None:
        self._places = places
        self._tasks: asyncio.TaskGroup | None = None
        self._following = asyncio.Lock()
        self.open: set[Door] = set()
        self._clients: Counter[str] = Counter()
        self._rented: dict[tuple[str, int], asyncio.Server | UdpListener] = {}
        self.warnings: tuple[str, ...] = ()
        self.bound: dict[str, int] = {}
        """The ports of ``http`` and ``tls``, once open."""

    def attach(self, served: Served, upstreams: Upstreams, rand: Random) -> None:
        self._served = served
        self._web = Web(served, upstreams, rand)
        self._raw = Raw(served, upstreams, rand, self._places.face_tls)

    async def run(self) -> None:
        """Until cancelled. Raises Unavailable("gateway.bind")."""
        servers: list[asyncio.Server] = []
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(sweep(self.open))
            try:
                servers = await self._listen()
                await self.follow()
                await asyncio.Event().wait()
            finally:
                self._tasks = None
                for server in [*servers, *self._rented.values()]:
                    server.close()
                self._rented.clear()
                if self._places.face is not None:
                    self._places.face.unlink(missing_ok=True)

    async def reserve(self, document: Document) -> None:
        """Listen on its ports already. Raises UsageError("site.port")."""
        places = {(site.mode, site.public_port) for site in document.sites if site.public_port}
        async with self._following:
            await self._open_all(places - self._rented.keys())

    async def follow(self) -> None:
        """Listen on the ports that are rented now, and on no other. Raises UsageError("site.port")."""
        async with self._following:
            wanted = self._served.ports.keys()
            for place in self._rented.keys() - wanted:
                self._rented.pop(place).close()
            await self._open_all(wanted - self._rented.keys())

    async def _open_all(self, places: Collection[tuple[str, int]]) -> None:
        if self._tasks is None:
            return  # when we begin to run, all is opened
        for place in places:
            try:
                self._rented[place] = await self._rent(*place)
            except OSError as error:
                raise UsageError("site.port", f"port {place[1]} cannot be had here: {error}") from None

    async def _listen(self) -> list[asyncio.Server]:
        places, servers = self._places, []
        try:
            if places.face is not None:
                servers.append(await self._face(places.face))
            for name, at, serve in (
                ("http", places.http, self._public),
                ("tls", places.tls, self._raw.serve_tls),
            ):
                if at:
                    host, _, port = at.rpartition(":")
                    server = await self._server(host.strip("[]"), int(port), serve)
                    self.bound[name] = server.sockets[0].getsockname()[1]
                    servers.append(server)
        except OSError as error:
            raise Unavailable("gateway.bind", f"the gateway cannot listen: {error}") from error
        return servers

    async def _face(self, path: Path) -> asyncio.Server:
        return await asyncio.get_running_loop().create_unix_server(
            lambda: self._door(self._trusted), sock=_bound(path), backlog=BACKLOG
        )

    async def _server(self, host: str, port: int, serve: Serve) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            lambda: self._door(serve), host, port, backlog=BACKLOG, reuse_address=True
        )

    async def _rent(self, mode: str, port: int) -> asyncio.Server | UdpListener:
        async def serve(door: Door) -> None:
            await self._raw.serve_port(port, door)

        if mode == "tcp":
            return await self._server(self._places.ports_at, port, serve)
        assert self._tasks is not None
        return UdpListener(self._places.ports_at, port, self._tasks, lambda: self._raw.open_flow(port))

    async def _trusted(self, door: Door) -> None:
        await self._web.serve(door, trusted=True)

    async def _public(self, door: Door) -> None:
        await self._web.serve(door, trusted=False)

    # -- connections -----------------------------------------------------------------------------------
    def _door(self, serve: Serve) -> Door:
        def begin(door: Door) -> None:
            client = door.client
            full = len(self.open) >= CONNECTIONS_MAX or (client and self._clients[client] >= PER_CLIENT_MAX)
            if self._tasks is None or full:
                door.cut()
                return
            self._tasks.create_task(self._counted(door, serve(door)))

        return Door(begin, self.open.discard)

    async def _counted(self, door: Door, work: Coroutine[Any, Any, None]) -> None:
        self.open.add(door)
        self._clients[door.client] += 1
        try:
            await work
        except Exception:
            log.exception("gateway.connection")  # one connection's, never the gateway's
        finally:
            door.abort()
            self._clients[door.client] -= 1
            if not self._clients[door.client]:
                del self._clients[door.client]


def _bound(path: Path) -> socket.socket:
    """For our own user and group: whoever can connect there may say who a client is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o117))
        sock.bind(str(path))
    return sock
