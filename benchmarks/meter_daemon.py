"""The provider's daemon of ``meter.py``: real machine, meter loop, mind, driver and journal in one process, which can
be killed at any time. No peers: leases are opened over its standard input, and cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import msgspec
import structlog
import uvloop

from dockage.adapters.engine.gate import EngineGate
from dockage.adapters.host import DockerHost
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.daemon.driver import Driver
from dockage.daemon.metering import MeterLoop
from dockage.daemon.rows import changed
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, SECOND, Instant, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import records
from dockage.node.policy import ProviderPolicy
from dockage.protocol.messages import OpenLease
from dockage.wire.frames import read_exactly
from dockage.wire.splice import SocketStream

LIMITS = Resources(2000, 256 * MIB, 256 * MIB)
TENANT = NodeKey(bytes(32))
POLICY = ProviderPolicy(
    tariff=Tariff(),
    capacity=Resources(10**6, 1024 * GIB, 1024 * GIB),
    leases_per_tenant=1000,
    remembered_per_tenant=1000,
)


class Clock:
    """The machine's, and can be set."""

    offset = 0

    def now(self) -> Instant:
        return Instant(SystemClock().now() + self.offset)


class Daemon:
    def __init__(self, engine: Path, home: Path) -> None:
        self.host = DockerHost(engine, home, secrets.token_hex(8))
        self.clock, self.journal = Clock(), SqliteJournal(home / "state.db")
        self.host.gate = self.gate = EngineGate(engine, self.host)
        leases = [records.decode_sold_lease(r.value) for r in self.journal.load() if r.kind == records.SOLD]
        mind = selling.restore(POLICY, leases, [])
        self.driver = Driver(mind, selling.step, changed, self.journal, self.perform, self.clock)

    def perform(self, effect: want.AnyEffect) -> None:
        if isinstance(effect, want.Prepare):
            self.tasks.create_task(self._prepare(effect.lease, effect.limits))

    async def _prepare(self, lease: LeaseId, limits: Resources) -> None:
        await self.host.prepare(lease, limits)
        await self.driver.tell(told.HostPrepared(lease))

    async def live(self) -> None:
        await self.host.start()
        for lease in self.driver.state.leases.values():
            await self.host.prepare(lease.id, lease.limits)
        async with asyncio.TaskGroup() as self.tasks:
            loop = MeterLoop(self.driver, self.host, self.clock, SystemRandom())
            running = [self.tasks.create_task(each.run()) for each in (self.driver, loop)]
            async for words in asked():
                print(json.dumps(await getattr(self, words[0])(*words[1:])), flush=True)
            for task in running:
                task.cancel()
        for lease_id in await self.host.present():
            await self.host.teardown(lease_id)
        await self.gate.close()
        await self.host.close()
        self.journal.close()

    # -- what can be asked -----------------------------------------------------------------------------
    async def ready(self) -> int:
        return len(self.driver.state.leases)

    async def open(self, name: str) -> str:
        lease, now = LeaseId(bytes.fromhex(name)), self.clock.now()
        quote = Quote(lease, TENANT, LIMITS, POLICY.tariff, "", 0, Sat(0), Instant(now + 60 * SECOND))
        await self.driver.tell(told.Received(TENANT, OpenLease(quote, bytes(64))))
        while self.driver.state.leases[lease].state.value != "running":
            await self.driver.moved()
        return name

    async def enclose(self, lease: str, container: str) -> None:
        await self.host.enclose(LeaseId(bytes.fromhex(lease)), container)

    async def usage(self, name: str) -> Any:
        lease = LeaseId(bytes.fromhex(name))
        await self.driver.tell(told.MeterRead(lease, await self.host.read(lease)))
        return msgspec.to_builtins(self.driver.state.leases[lease].meter.usage)

    async def step(self, seconds: str) -> None:
        self.clock.offset += int(seconds) * SECOND

    async def fresh(self) -> None:
        """The firewall's counters are read anew, however short ago that was."""
        self.host._firewall.look_again()

    async def carry(self, lease: str, container: str, size: str) -> None:
        """Through the tunnel to the container's echo and back."""
        near, far = [SocketStream(*await asyncio.open_connection(sock=end)) for end in socket.socketpair()]
        async with asyncio.TaskGroup() as tasks:
            id_ = LeaseId(bytes.fromhex(lease))
            tasks.create_task(self.host.serve_tunnel(id_, container, 7, far))
            tasks.create_task(_fill(near, int(size)))
            await read_exactly(near, int(size))
        near.abort()


async def _fill(stream: SocketStream, size: int) -> None:
    await stream.write(bytes(size))
    await stream.finish()


async def asked() -> AsyncIterator[list[str]]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.split()


def play(options: dict[str, Any]) -> None:
    level = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=level)
    uvloop.run(Daemon(Path(options["engine"]), Path(options["home"])).live())
