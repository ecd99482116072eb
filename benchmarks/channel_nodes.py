"""The two processes of ``channel.py``: a provider with very many leases, and the tenants that hold them.

Wired like every node (``daemon/wiring.py``) on the real link, journal, keys and bitcoind. The containers alone
are made up: a reading reads the files of a real cgroup, as a real one does, and adds the usage of a busy core.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import structlog
import uvloop

from dockage.adapters.bitcoind.chain import BitcoindChain
from dockage.adapters.bitcoind.rpc import Rpc, RpcAddress
from dockage.adapters.bitcoind.wallet import BitcoindWallet
from dockage.adapters.host.cgroup import Layout, detect
from dockage.adapters.keys.files import FileKeys
from dockage.adapters.link.link import IrohLink
from dockage.adapters.pairing import SpakeSide
from dockage.adapters.prices.fixed import Fixed
from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.daemon import logs
from dockage.daemon.config import Bitcoin, ChannelLimits, Config
from dockage.daemon.config import Node as NodeConfig
from dockage.daemon.ground import Ground
from dockage.daemon.node import Node
from dockage.daemon.peers import Reception
from dockage.daemon.rail import Rail
from dockage.daemon.wiring import wire
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.pricing import Tariff
from dockage.domain.query import Excerpt, Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB
from dockage.domain.usage import Reading
from dockage.node.policy import ProviderPolicy
from dockage.node.records import EARNING
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.peers import Address
from dockage.testing.directory import MemoryDirectory
from dockage.testing.evidence import MemoryEvidence
from dockage.testing.host import FakeContainer, FakeHost
from dockage.testing.keys import verify

EACH = Resources(100, 16 * MIB, 16 * MIB)
TARIFF = Tariff(cpu_hour=36_000_000)
"""One sat a second and lease for a tenth of a core: each statement brings a payment."""
BUSY = FakeContainer(cpu_milli=100, memory_bytes=16 * MIB)
SLICE = "dockage-bench"
AT_ONCE = 4
"""Tenants that open a lease at one moment: a rush of all of them is what a busy machine answers too late."""
BUSY_CODES = ("provider.no-answer", "peer.slow", "market.unreachable", "account.unpaid", "lease.slow")
OPEN_SEC = 900
"""For all leases to be there."""


class CgroupHost(FakeHost):
    """Reads the files of one real cgroup a lease, besides what it makes up."""

    def __init__(self, clock: Clock, capacity: Resources, layout: Layout) -> None:
        super().__init__(clock, capacity)
        self._layout, self._gauges = layout, dict[LeaseId, Any]()

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        await super().prepare(lease, limits)
        if lease not in self._gauges:
            self.start(lease, "busy", BUSY)
            self._layout.make(_group(lease), limits)
            self._gauges[lease] = self._layout.gauge(_group(lease))

    async def read(self, lease: LeaseId) -> Reading:
        self._gauges[lease].read()
        return await super().read(lease)

    async def remove_groups(self) -> None:
        for lease, gauge in self._gauges.items():
            gauge.close()
            await self._layout.remove(_group(lease))
        await self._layout.remove(SLICE)


def _group(lease: LeaseId) -> str:
    return f"{SLICE}/{lease.hex()}"


class CountingJournal:
    """Counts what is written, by kind of row."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self.rows = journal, Counter[str]()
        self.load, self.close = journal.load, journal.close

    def write(self, rows: list[Row]) -> None:
        self.rows.update(row.kind for row in rows)
        self._journal.write(rows)


# -- the provider ---------------------------------------------------------------------------------------
def play_provider(told: dict[str, Any]) -> None:
    quiet()
    uvloop.run(_provide(told))


async def _provide(told: dict[str, Any]) -> None:
    host = CgroupHost(SystemClock(), Resources(10**6, 1024 * GIB, 1024 * GIB), detect())
    policy = ProviderPolicy(
        tariff=TARIFF, capacity=Resources(10**6, 1024 * GIB, 1024 * GIB), region="earth", network="regtest"
    )
    profile = cProfile.Profile(time.thread_time)  # of this thread: what else the machine does is no matter
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        stack.push_async_callback(host.remove_groups)
        node, loops, link, journal = await _node(stack, Path(told["folder"]) / "provider", told, policy, host)
        running = [tasks.create_task(_forever(loop)) for loop in loops]
        say({"key": node.keys.node.hex(), "address": link.address().direct})
        async for question in asked():
            if question == "profile":
                profile.enable()
            elif question == "profiled":
                profile.disable()
                profile.dump_stats(told["profile"])
            say(_figures(node, journal))
        for task in running:
            task.cancel()


def _figures(node: Node, journal: CountingJournal) -> dict[str, Any]:
    assert node.provider is not None
    state = node.provider.state
    return {
        "leases": sum(not lease.is_over for lease in state.leases.values()),
        "running": sum(lease.state is LeaseState.RUNNING for lease in state.leases.values()),
        "stated_least": min((lease.seq for lease in state.leases.values()), default=0),
        "statements": sum(lease.seq for lease in state.leases.values()),
        "paid_sat": sum(channel.paid for channel in state.channels.values()),
        "payments": journal.rows[EARNING],
        "rss_kb": next(
            line.split()[1]
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ),
    }


# -- the tenants ------------------------------------------------------------------------------------------
def play_tenants(told: dict[str, Any]) -> None:
    quiet()
    uvloop.run(_rent(told))


async def _rent(told: dict[str, Any]) -> None:
    provider = NodeKey(bytes.fromhex(told["provider"]["key"]))
    at = Address("", tuple(told["provider"]["address"]))
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        homes = [Path(told["folder"]) / f"tenant{n}" for n in range(told["tenants"])]
        nodes = [await _node(stack, home, told) for home in homes]
        for _, _, link, _ in nodes:
            link.learn(provider, at)
        running = [tasks.create_task(_forever(loop)) for _, loops, _, _ in nodes for loop in loops]
        say([await node.rail.wallet.receive() for node, *_ in nodes if node.rail])
        questions = asked()
        await anext(questions)
        gate = asyncio.Semaphore(AT_ONCE)
        renting = [tasks.create_task(_hold(node, told["each"], gate)) for node, *_ in nodes]
        while not all(task.done() for task in renting):
            say("waiting")
            await asyncio.sleep(1)
        say("renting")
        async for _ in questions:
            pass
        for task in running:
            task.cancel()


async def _hold(node: Node, each: int, gate: asyncio.Semaphore) -> None:
    async with asyncio.timeout(OPEN_SEC):
        for n in range(each):
            async with gate:
                await _obtain(node, f"app{n}")


async def _obtain(node: Node, name: str) -> None:
    """As a user does: who is told that the machine is busy asks again."""
    while True:
        try:
            await node.renting.obtain(name, EACH, {"dockage.channel-sat": "5000000"}, lambda _: None)
            return
        except DockageError as error:
            if error.code not in BUSY_CODES:
                raise
            print(f"{name}: {error.code}; asked again", file=sys.stderr, flush=True)
            await asyncio.sleep(2)


# -- both ---------------------------------------------------------------------------------------------------
async def _node(
    stack: AsyncExitStack,
    home: Path,
    told: dict[str, Any],
    policy: ProviderPolicy | None = None,
    host: FakeHost | None = None,
) -> tuple[Node, list[Callable[[], Awaitable[None]]], IrohLink, CountingJournal]:
    home.mkdir()  # noqa: ASYNC240 - before anything runs
    clock, keys, entered = SystemClock(), FileKeys(home / "identity.key"), asyncio.Event()
    entered.set()
    journal = CountingJournal(SqliteJournal(home / "state.db"))
    link = await IrohLink.create(keys.seed, "127.0.0.1:0")
    address = RpcAddress(told["rpc"]["url"], told["rpc"]["user"], told["rpc"]["password"], None)
    rpc, wallet, curve = Rpc(address, network="regtest"), home.name, Secp()
    stack.push_async_callback(rpc.close)
    stack.push_async_callback(link.close)
    chain = BitcoindChain(rpc, wallet, 100_000)
    rail = Rail(curve, ChannelKeys(keys.seed, curve), chain, BitcoindWallet(rpc, wallet))
    config = Config(
        node=NodeConfig(stamp_bits=0),
        bitcoin=Bitcoin(network="regtest", poll_sec=1.0),
        channel=ChannelLimits(hours=1),
    )
    board = Board(clock, Path(told["folder"]))
    reception = Reception(keys, asyncio.get_running_loop().time)
    ground = Ground(
        home=home,
        config=config,
        keys=keys,
        clock=clock,
        journal=journal,
        evidence=MemoryEvidence(),
        rows=[],
        link=link,
        reception=reception,
        directory=board,
        entered=entered,
        rail=rail,
        host=host,
        prices=Fixed(),
        prober=None,
        rand=SystemRandom(),
        architecture="x86_64",
        new_pake=SpakeSide,
    )
    node, loops = wire(ground, policy)
    return node, loops, link, journal


class Board(MemoryDirectory):
    """The market: for each topic one file with its newest record."""

    def __init__(self, clock: Clock, folder: Path) -> None:
        super().__init__(verify, clock)
        self._folder = folder

    async def publish(self, topic: bytes, record: bytes) -> int:
        part = self._folder / f"{topic.hex()}.{os.getpid()}"
        part.write_bytes(record)
        os.replace(part, self._folder / topic.hex())
        return 1

    async def search(self, topic: bytes) -> list[bytes]:
        path = self._folder / topic.hex()
        return [path.read_bytes()] if path.exists() else []

    async def select(self, topic: bytes, query: Query) -> Excerpt:
        for record in await self.search(topic):
            await super().publish(topic, record)
        return await super().select(topic, query)


async def asked() -> Any:
    """Lines from who started us, until there is nobody any more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def quiet() -> None:
    """What we print is read by who started us."""
    logs.configure()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def say(what: Any) -> None:
    print(what if isinstance(what, str) else json.dumps(what), flush=True)


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    with suppress(asyncio.CancelledError):
        await loop()
