"""TCP and UDP into a container of the lease, and the meter of it: payload bytes, counted at both ends of the tunnel.

Only containers that carry the lease's label can be reached; the other end is the peer that rents the lease.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LEASE_LABEL
from dockage.ports.peers import Stream
from dockage.wire.connection import Connection
from dockage.wire.datagrams import Flow, UdpSocket
from dockage.wire.engine import EngineClient
from dockage.wire.splice import splice

REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
CONNECT_MAX = 5.0
REMEMBER = 1.0
"""Seconds an address is used again: asking the engine costs it 5 ms, a gateway opens hundreds a second."""
REMEMBERED_MAX = 1024


class Count:
    """Totals since this process began. Delivered bytes, not attempted ones."""

    def __init__(self) -> None:
        self.into = 0
        self.out = 0

    def add_into(self, size: int) -> None:
        self.into += size

    def add_out(self, size: int) -> None:
        self.out += size


class Tunnels:
    def __init__(self, client: EngineClient, now: Callable[[], float]) -> None:
        self._client, self._now = client, now
        self._addresses: dict[tuple[LeaseId, str], tuple[float, str]] = {}
        self._asking: WeakValueDictionary[tuple[LeaseId, str], asyncio.Lock] = WeakValueDictionary()

    async def serve(self, lease: LeaseId, container: str, port: int, stream: Stream, count: Count) -> None:
        """Raises UsageError("tunnel.*") or Unavailable("tunnel.closed") before any byte was taken."""
        address = await self._address(lease, container, port)
        try:
            async with asyncio.timeout(CONNECT_MAX):
                loop = asyncio.get_running_loop()
                _, inside = await loop.create_connection(Connection, address, port)
        except (OSError, TimeoutError) as error:
            self._addresses.pop((lease, container), None)
            why = f"nothing answers on port {port} of {container[:40]} ({error or 'silence'})"
            raise Unavailable("tunnel.closed", why) from error
        await splice(stream, inside, to_right=count.add_into, to_left=count.add_out)

    async def serve_datagrams(
        self, lease: LeaseId, container: str, port: int, stream: Stream, count: Count
    ) -> None:
        """The same for one flow of UDP; a port where nobody listens is silence, as everywhere."""
        address = await self._address(lease, container, port)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((address, port))
        end = UdpSocket(sock, lambda data, _: flow.offer(data))
        flow = Flow(end.send)
        try:
            await flow.run(stream, sent=count.add_out, received=count.add_into)
        finally:
            end.close()

    def forget(self, lease: LeaseId) -> None:
        self._addresses = {key: value for key, value in self._addresses.items() if key[0] != lease}

    async def _address(self, lease: LeaseId, container: str, port: int) -> str:
        if not 0 < port < 65536:
            raise UsageError("tunnel.port", f"there is no port {port}")
        key = (lease, container)
        if address := self._remembered(key):
            return address
        async with self._asking.setdefault(
            key, asyncio.Lock()
        ):  # while it starts many knock: one asks for all
            return self._remembered(key) or self._remember(key, await self._ask(lease, container))

    def _remembered(self, key: tuple[LeaseId, str]) -> str:
        until, address = self._addresses.get(key, (0.0, ""))
        return address if self._now() < until else ""

    def _remember(self, key: tuple[LeaseId, str], address: str) -> str:
        if len(self._addresses) >= REMEMBERED_MAX:
            self._addresses.clear()
        self._addresses[key] = (self._now() + REMEMBER, address)
        return address

    async def _ask(self, lease: LeaseId, container: str) -> str:
        unknown = UsageError("tunnel.container", f"the lease has no container {container[:40]!r}")
        if not REFERENCE.fullmatch(container):
            raise unknown
        answer = await self._client.call("GET", f"/containers/{container}/json")
        if not answer.ok:
            raise unknown
        found = answer.json()
        # the same answer as for one that is not there: who else rents here is nobody's business
        if (found["Config"].get("Labels") or {}).get(LEASE_LABEL) != lease.hex():
            raise unknown
        return _ip(found) or _raise(
            Unavailable("tunnel.closed", f"container {container[:40]} is not running")
        )


def _ip(found: dict[str, Any]) -> str:
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return next((str(each["IPAddress"]) for each in networks.values() if each.get("IPAddress")), "")


def _raise(error: Exception) -> str:
    raise error
