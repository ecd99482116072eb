"""Published ports: ``-p 8080:80`` listens on the tenant's own machine, and each connection or flow is a tunnel.

The counterpart at the provider counts the same payload bytes. A listener lives while its container runs; what is
busy is refused in the engine's words before the container starts.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Mapping
from contextlib import suppress

import structlog

from dockage.domain.errors import DockageError
from dockage.ports.peers import Stream
from dockage.ports.renting import Leases
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import Container, Publish
from dockage.wire.connection import Accepted, Connection
from dockage.wire.splice import splice
from dockage.wire.tasks import spawn
from dockage.wire.udp import UdpListener

log = structlog.get_logger("dockage.front")

CONNECTIONS_MAX = 2048
"""Of all published ports together; more are closed at once."""
TUNNEL_WAIT = 15.0
BACKLOG = 256


Bound = Mapping[str, tuple[tuple[str, int], ...]]


class TcpListener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Connections that are open end with their container."""
        self._server.close()


Listener = TcpListener | UdpListener


class Published:
    """Its connections are tasks of *tasks*; ``close_all`` before that group ends."""

    def __init__(self, leases: Leases, tasks: asyncio.TaskGroup, bind_host: str) -> None:
        self._leases, self._tasks, self._host = leases, tasks, bind_host
        self._open: dict[str, list[tuple[Publish, Listener]]] = {}
        self._where: dict[str, Container] = {}
        self._connections = 0
        self._opening = asyncio.Lock()
        """Opening takes several turns of the loop: a start and the event that tells of it would open a port twice."""

    def bound(self, id_: str) -> Bound:
        """Container port to where it is listened to now."""
        found: dict[str, tuple[tuple[str, int], ...]] = {}
        for publish, listener in self._open.get(id_, ()):
            pair = (publish.host_ip or self._host, listener.port)
            found[publish.end] = (*found.get(publish.end, ()), pair)
        return found

    def is_open(self, id_: str) -> bool:
        return id_ in self._open

    async def open(self, container: Container) -> tuple[int, ...]:
        """Listen to all of its ports; returns the host ports in their order, none if they were closed meanwhile.
        Idempotent. Raises ApiError(500)."""
        async with self._opening:
            self._where[container.id] = container
            if container.id not in self._open and container.ports:
                await self._open_all(container)
        return tuple(listener.port for _, listener in self._open.get(container.id, ()))

    async def _open_all(self, container: Container) -> None:
        opened: list[tuple[Publish, Listener]] = []
        try:
            for number, publish in enumerate(container.ports):
                before = container.bound[number] if number < len(container.bound) else 0
                opened.append((publish, await self._listen(container, publish, before)))
        except BaseException:
            _close(opened)
            raise
        if container.id in self._where:
            self._open[container.id] = opened
        else:
            _close(opened)

    def close(self, id_: str) -> None:
        """Stop listening."""
        _close(self._open.pop(id_, ()))
        self._where.pop(id_, None)

    def close_all(self) -> None:
        for id_ in list(self._where):
            self.close(id_)

    async def _listen(self, container: Container, publish: Publish, before: int) -> Listener:
        """Of a range, the port of the last run or else the lowest free one."""
        wanted = list(range(publish.first, publish.last + 1)) if publish.first else [0]
        first = [before] if before and (before in wanted or wanted == [0]) else []
        host = publish.host_ip or self._host
        failure: OSError | None = None
        for port in dict.fromkeys([*first, *wanted]):
            try:
                if publish.protocol == "udp":
                    return self._listen_udp(container.id, publish.container_port, host, port)
                return await self._listen_tcp(container.id, publish.container_port, host, port)
            except OSError as error:
                failure = error
        raise _busy(container, f"{publish.protocol}4 {host}:{wanted[0]}", failure)

    async def _listen_tcp(self, id_: str, inner: int, host: str, port: int) -> TcpListener:
        server = await asyncio.get_running_loop().create_server(
            lambda: Accepted(lambda client: self._accept(id_, inner, client)),
            host,
            port,
            backlog=BACKLOG,
            start_serving=False,
        )
        try:
            await server.start_serving()
        except asyncio.CancelledError:
            server.close()  # bound already, and nobody else knows of it
            raise
        return TcpListener(server)

    def _listen_udp(self, id_: str, inner: int, host: str, port: int) -> UdpListener:
        async def open_stream() -> Stream:
            container = self._where[id_]  # it listens while it is known
            return await self._leases.datagrams(container.lease, container.remote, inner)

        return UdpListener(host, port, self._tasks, open_stream)

    def _accept(self, id_: str, port: int, client: Connection) -> None:
        if self._connections >= CONNECTIONS_MAX:
            return client.cut()
        self._connections += 1
        if not spawn(self._tasks, self._serve(id_, port, client)):
            client.cut()

    async def _serve(self, id_: str, port: int, client: Connection) -> None:
        try:
            container = self._where.get(id_)
            if container is None:
                return
            async with asyncio.timeout(TUNNEL_WAIT):
                tunnel = await self._leases.tunnel(container.lease, container.remote, port)
            with suppress(ConnectionError):
                await splice(client, tunnel)
        except (DockageError, TimeoutError) as error:
            log.info("tunnel.failed", container=id_[:12], port=port, why=str(error))
        except Exception:
            log.exception("tunnel.crashed", container=id_[:12], port=port)
        finally:
            self._connections -= 1
            client.abort()


def _close(opened: Iterable[tuple[Publish, Listener]]) -> None:
    for _, listener in opened:
        listener.close()


def _busy(container: Container, where: str, error: OSError | None) -> ApiError:
    why = "address already in use"
    if error is not None and error.errno == errno.EACCES:
        why = "permission denied"
    elif error is not None and error.errno != errno.EADDRINUSE:
        why = error.strerror or str(error)
    return ApiError(
        500,
        f"driver failed programming external connectivity on endpoint {container.name} ({container.id}): "
        f"Error starting userland proxy: listen {where}: bind: {why}",
    )
