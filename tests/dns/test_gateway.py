"""The name server as a gateway runs it: put together from its settings, asked over UDP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message

from dockage.daemon import config as settings
from dockage.daemon import gateway
from dockage.domain.deployment import Document
from dockage.domain.identity import LeaseId
from dockage.protocol.documents import ReplicaSign, Signs
from dockage.testing.clock import ManualClock
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import verify

from .test_authority import DOCUMENT, LEASE, NAME, ZONE
from .test_server import LOCAL, addresses


class Relay:
    """As much of a gateway as names need."""

    def __init__(self) -> None:
        self.published: dict[LeaseId, Document] = {}

    def documents(self) -> Mapping[LeaseId, Document]:
        return self.published

    def signs(self, lease: LeaseId) -> Signs | None:
        return Signs(3, (), (ReplicaSign(LEASE, 1, 0),), False)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


async def answered(port: int) -> list[str]:
    query = dns.message.make_query(NAME, "A")
    try:
        return addresses(await dns.asyncquery.udp(query, LOCAL, port=port, timeout=0.3))
    except dns.exception.Timeout:
        return []


async def test_a_published_deployment_has_a_name(tmp_path: Path) -> None:
    relay, clock, port = Relay(), ManualClock(), free_port()
    wanted = settings.Gateway(True, ZONE, ("203.0.113.5",), face=False, dns=f"{LOCAL}:{port}")
    market = MemoryDirectory(verify, clock)
    loops = gateway.name_server(tmp_path, wanted, relay, market, clock)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop()) for loop in loops]  # type: ignore[arg-type]
        relay.published[LEASE] = DOCUMENT
        async with asyncio.timeout(20):
            while await answered(port) != ["203.0.113.5"]:  # noqa: ASYNC110 - as a resolver asks again
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()


def test_without_a_place_to_listen_there_is_no_name_server(tmp_path: Path) -> None:
    clock = ManualClock()
    market = MemoryDirectory(verify, clock)
    none = gateway.name_server(tmp_path, settings.Gateway(True, ZONE), Relay(), market, clock)  # type: ignore[arg-type]
    assert none == []
