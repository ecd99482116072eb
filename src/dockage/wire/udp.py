"""A published UDP port: one socket, and a stream for each address that speaks to it. On the tenant's machine, or at a
gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from dockage.domain.errors import DockageError
from dockage.ports.peers import Stream

from .datagrams import Address, Flow, UdpSocket
from .tasks import spawn

log = structlog.get_logger("dockage.udp")

FLOWS_MAX = 512
"""Of one port: each is a stream to the provider. What comes from further addresses is dropped until one is idle."""
TUNNEL_WAIT = 15.0


class UdpListener:
    """Its flows are tasks of *tasks*."""

    def __init__(
        self, host: str, port: int, tasks: asyncio.TaskGroup, open_stream: Callable[[], Awaitable[Stream]]
    ) -> None:
        """Raises OSError, as binding does."""
        self._tasks, self._open_stream = tasks, open_stream
        self._flows: dict[Address, Flow] = {}
        self._running: set[asyncio.Task[None]] = set()
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        self._socket = UdpSocket(sock, self._take)

    @property
    def port(self) -> int:
        return int(self._socket.sock.getsockname()[1])

    def close(self) -> None:
        """Ends its flows too: there is nobody left to answer."""
        self._socket.close()
        for task in self._running:
            task.cancel()

    def _take(self, data: bytes, address: Address) -> None:
        flow = self._flows.get(address) or self._begin(address)
        if flow is not None:
            flow.offer(data)

    def _begin(self, address: Address) -> Flow | None:
        if len(self._flows) >= FLOWS_MAX:
            return None
        flow = Flow(lambda data: self._socket.send(data, address))
        if (task := spawn(self._tasks, self._serve(flow, address))) is None:
            return None
        self._flows[address] = flow
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return flow

    async def _serve(self, flow: Flow, address: Address) -> None:
        try:
            async with asyncio.timeout(TUNNEL_WAIT):
                stream = await self._open_stream()
            await flow.run(stream)
        except (DockageError, TimeoutError) as error:
            log.info("tunnel.failed", protocol="udp", why=str(error))
        except Exception:
            log.exception("tunnel.crashed", protocol="udp")
        finally:
            del self._flows[address]
