"""Published ports: ``-p 8080:80`` listens on the tenant's own machine, and each connection is a tunnel.

The counterpart at the provider counts the same payload bytes. A listener lives while its container runs; what is
busy is refused in the engine's words before the container starts.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

import structlog

from dockage.domain.errors import DockageError
from dockage.ports import Leases
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import Container, Publish
from dockage.wire.frames import PIECE
from dockage.wire.splice import SocketStream, splice

log = structlog.get_logger("dockage.front")

CONNECTIONS_MAX = 2048
"""Of all published ports together; more are closed at once."""
TUNNEL_WAIT = 15.0
BACKLOG = 256


def spawn(tasks: asyncio.TaskGroup, job: Coroutine[Any, Any, None]) -> bool:
    """False, and nothing runs, if the group is ending: a connection may be accepted just then."""
    try:
        tasks.create_task(job)
    except RuntimeError:
        job.close()
        return False
    return True


Bound = Mapping[int, tuple[tuple[str, int], ...]]


class Published:
    """Its connections are tasks of *tasks*; ``close_all`` before that group ends."""

    def __init__(self, leases: Leases, tasks: asyncio.TaskGroup, bind_host: str) -> None:
        self._leases, self._tasks, self._host = leases, tasks, bind_host
        self._open: dict[str, list[tuple[Publish, asyncio.Server]]] = {}
        self._where: dict[str, Container] = {}
        self._connections = 0

    def bound(self, id_: str) -> Bound:
        """Container port to where it is listened to now."""
        found: dict[int, tuple[tuple[str, int], ...]] = {}
        for publish, server in self._open.get(id_, ()):
            address = server.sockets[0].getsockname()
            pair = (publish.host_ip or self._host, int(address[1]))
            found[publish.container_port] = (*found.get(publish.container_port, ()), pair)
        return found

    def is_open(self, id_: str) -> bool:
        return id_ in self._open

    async def open(self, container: Container) -> tuple[int, ...]:
        """Listen to all of its ports; returns the host ports in their order. Idempotent. Raises ApiError(500)."""
        self._where[container.id] = container
        if container.id not in self._open and container.ports:
            opened: list[tuple[Publish, asyncio.Server]] = []
            try:
                for number, publish in enumerate(container.ports):
                    before = container.bound[number] if number < len(container.bound) else 0
                    opened.append((publish, await self._listen(container, publish, before)))
            except BaseException:
                for _, server in opened:
                    server.close()
                raise
            self._open[container.id] = opened
        return tuple(
            int(server.sockets[0].getsockname()[1]) for _, server in self._open.get(container.id, ())
        )

    def close(self, id_: str) -> None:
        """Stop listening; connections that are open end with their container."""
        for _, server in self._open.pop(id_, ()):
            server.close()
        self._where.pop(id_, None)

    def close_all(self) -> None:
        for id_ in list(self._open):
            self.close(id_)

    async def _listen(self, container: Container, publish: Publish, before: int) -> asyncio.Server:
        """Of a range, the port of the last run or else the lowest free one."""
        wanted = list(range(publish.first, publish.last + 1)) if publish.first else [0]
        first = [before] if before and (before in wanted or wanted == [0]) else []
        host = publish.host_ip or self._host
        failure: OSError | None = None
        for port in dict.fromkeys([*first, *wanted]):
            try:
                return await asyncio.start_server(
                    lambda reader, writer: self._accept(container.id, publish.container_port, reader, writer),
                    host,
                    port,
                    limit=PIECE,
                    backlog=BACKLOG,
                )
            except OSError as error:
                failure = error
        raise _busy(container, host, wanted[0], failure)

    def _accept(
        self, id_: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._connections >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._connections += 1
        if not spawn(self._tasks, self._serve(id_, port, SocketStream(reader, writer))):
            writer.transport.abort()

    async def _serve(self, id_: str, port: int, client: SocketStream) -> None:
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


def _busy(container: Container, host: str, port: int, error: OSError | None) -> ApiError:
    why = "address already in use"
    if error is not None and error.errno == errno.EACCES:
        why = "permission denied"
    elif error is not None and error.errno != errno.EADDRINUSE:
        why = error.strerror or str(error)
    return ApiError(
        500,
        f"driver failed programming external connectivity on endpoint {container.name} ({container.id}): "
        f"Error starting userland proxy: listen tcp4 {host}:{port}: bind: {why}",
    )
