"""Whole nodes in one process, wired as the real ones are, on a fake machine, chain, network and board."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

from dockage.adapters.pairing import SpakeSide
from dockage.adapters.prices.fixed import Fixed
from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.daemon.config import Bitcoin, ChannelLimits, Config
from dockage.daemon.config import Node as NodeConfig
from dockage.daemon.ground import Ground
from dockage.daemon.node import Node
from dockage.daemon.peers import Reception
from dockage.daemon.rail import Rail
from dockage.daemon.wiring import wire
from dockage.domain.channel import BURIED, ChannelState
from dockage.domain.identity import LeaseId
from dockage.domain.pricing import Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, SECOND, Duration, Sat
from dockage.node import events as told
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.records import HISTORY
from dockage.ports.hosting import PricePolicy
from dockage.ports.machine import Clock, Journal
from dockage.testing.chain import FakeChain, FakeWallet
from dockage.testing.directory import MemoryDirectory
from dockage.testing.evidence import MemoryEvidence
from dockage.testing.host import FakeContainer, FakeHost
from dockage.testing.journal import MemoryJournal
from dockage.testing.keys import MemoryKeys, verify
from dockage.testing.lan import MemoryLan
from dockage.testing.light import FakeLightChain, FakeLightWallet
from dockage.testing.link import MemoryNetwork
from dockage.testing.loop import LoopClock

T = TypeVar("T")

NEED = Resources(1000, 512 * MIB, 1 * GIB)
TEN_SAT_A_SECOND = Tariff(cpu_hour=36_000_000)
"""One core used for one second costs ten satoshis."""
FREE = Tariff()
BUSY = FakeContainer(cpu_milli=1000, memory_bytes=100 * MIB)
"""Ten satoshis a second."""
ROOM = Resources(4000, 4 * GIB, 40 * GIB)
CONFIG = Config(
    node=NodeConfig(stamp_bits=0),
    bitcoin=Bitcoin(network="regtest"),
    channel=ChannelLimits(hours=1),
)
POLICY = ProviderPolicy(
    tariff=TEN_SAT_A_SECOND,
    capacity=ROOM,
    region="earth",
    network="regtest",
    grace=Duration(20 * SECOND),
)
FREE_POLICY = ProviderPolicy(tariff=FREE, capacity=ROOM, region="earth")


class World:
    """One network, one chain and one board for all nodes of a test; takes everything down at the end."""

    def __init__(self, clock: Clock | None = None) -> None:
        """*clock*: of a loop with real time, where threads ask it, too."""
        self.clock, self.network, self.chain = clock or LoopClock(), MemoryNetwork(), FakeChain()
        self.board, self.lan = MemoryDirectory(verify, self.clock), MemoryLan()
        self.chain.mine(500)
        self._tasks = asyncio.TaskGroup()
        self._peers: list[Peer] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        for peer in self._peers:
            await peer.stop()
        await self._tasks.__aexit__(*error)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self._tasks.create_task(work)

    def peer(self, number: int, policy: ProviderPolicy | None = None, **how: Any) -> Peer:
        peer = Peer(self, self._tasks, number, policy, **how)
        self._peers.append(peer)
        return peer

    async def provider(self, number: int = 1, policy: ProviderPolicy = POLICY, **how: Any) -> Peer:
        """Selling, and its offer on the board."""
        peer = self.peer(number, policy, **how)
        peer.start()
        await until(lambda: peer.node.notice is not None and peer.node.notice.stored_at > 0)
        return peer

    async def tenant(self, number: int = 2, coins: Sequence[int] = (100_000,), **how: Any) -> Peer:
        peer = self.peer(number, coins=coins, **how)
        peer.start()
        await until(lambda: peer.node.tenant.state.height > 0 or peer.node.rail is None)
        return peer

    async def mine(self, blocks: int = 1) -> None:
        """And wait until everybody has looked at them."""
        self.chain.mine(blocks)
        await asyncio.sleep(2 * CONFIG.bitcoin.poll_sec + 0.5)


class Peer:
    """One node that can be stopped in the middle and started again on what its journal holds."""

    def __init__(
        self,
        world: World,
        tasks: asyncio.TaskGroup,
        number: int,
        policy: ProviderPolicy | None,
        *,
        coins: Sequence[int] = (),
        wallet: bool = True,
        light: bool = False,
        purse: tuple[Any, Any] | None = None,
        config: Config = CONFIG,
        patience: TenantPolicy | None = None,
        journal: Callable[[], Journal] | None = None,
        ear: Callable[[Node], None] = lambda _: None,
        prices: PricePolicy | None = None,
        prober: Any = None,
        lan: bool = True,
        gateway: Callable[[], Any] | None = None,
        resolver: Any = None,
        tolls: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self.world, self._spawn, self.policy, self.config = world, tasks, policy, config
        self.keys = MemoryKeys(number)
        self.channel_seed = self.keys.seed
        self.clock = clock or world.clock
        self.host, self.evidence = FakeHost(world.clock), MemoryEvidence()
        self.chain, self.wallet = purse or _purse(world.chain, f"wallet {number}", coins, light=light)
        self._prices, self._prober, self._lan = prices or Fixed(), prober, lan
        self._has_wallet, self._patience, self._number, self._ear = wallet, patience, number, ear
        memory = MemoryJournal()
        self._open_journal = journal or (lambda: memory)
        self._running: list[asyncio.Task[None]] = []
        self._make_gateway, self._resolver, self._tolls = gateway, resolver, tolls
        self.node: Node
        self.journal: Journal

    def start(self) -> None:
        world, number = self.world, self._number
        self.journal = self._open_journal()
        curve, entered = Secp(), asyncio.Event()
        entered.set()
        link = world.network.link(self.keys.node, f"127.0.0.1:{2000 + number}")
        rail = Rail(curve, ChannelKeys(self.channel_seed, curve), self.chain, self.wallet)
        gateway = self._make_gateway() if self._make_gateway else None
        ground = Ground(
            home=Path("nowhere"),
            config=self.config,
            keys=self.keys,
            clock=self.clock,
            journal=self.journal,
            evidence=self.evidence,
            rows=list(self.journal.load(without=HISTORY)),
            link=link,
            reception=Reception(self.keys, asyncio.get_running_loop().time),
            directory=world.board,
            entered=entered,
            rail=rail if self._has_wallet else None,
            host=(gateway or self._tolls or self.host) if self.policy else None,
            prices=self._prices,
            prober=self._prober,
            rand=Random(number),
            architecture="x86_64",
            new_pake=SpakeSide,
            neighbours=world.lan.neighbour if self._lan else None,
            hostname=f"machine-{number}",
            gateway=gateway,
            resolver=self._resolver,
            tolls=self._tolls,
        )
        self.node, loops = wire(ground, self.policy, self._patience)
        self._ear(self.node)
        self._running = [self._spawn.create_task(_run(loop)) for loop in loops]

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._running:
            await self.node.link.close()
            self.journal.close()
        self._running = []

    async def restart(self) -> None:
        await self.stop()
        self.start()

    # -- short ways to what tests look at ------------------------------------------------------------
    async def rent(self, deployment: str = "web", need: Resources = NEED, **labels: str) -> LeaseId:
        wishes = {f"dockage.{name.replace('_', '-')}": value for name, value in labels.items()}
        return (await self.node.renting.obtain(deployment, need, wishes, lambda _: None)).id

    def rented(self, lease: LeaseId) -> Any:
        return self.node.tenant.state.leases[lease]

    def sold(self, lease: LeaseId) -> Any:
        assert self.node.provider is not None
        return self.node.provider.state.leases[lease]

    @property
    def paying(self) -> Any:
        """The newest channel on which this node pays."""
        return list(self.node.tenant.state.channels.values())[-1]

    @property
    def earning(self) -> Any:
        """The newest channel on which this node is paid."""
        assert self.node.provider is not None
        return list(self.node.provider.state.channels.values())[-1]

    @property
    def minds(self) -> tuple[Any, Any]:
        return self.node.tenant.state, self.node.provider and self.node.provider.state

    async def worth(self) -> int:
        """sat in the wallet, waiting ones too."""
        balance = await self.wallet.balance()
        return balance.confirmed + balance.pending


def _purse(chain: FakeChain, name: str, coins: Sequence[int], *, light: bool) -> tuple[Any, Any]:
    """*light*: a view of the chain through the wallet alone."""
    kind = FakeLightWallet if light else FakeWallet
    wallet = kind(chain, name, [Sat(coin) for coin in coins])
    return FakeLightChain(chain, wallet) if light else chain, wallet


class Crash(BaseException):
    """Not an Exception: nothing in the node may catch it."""


async def _run(loop: Callable[[], Any]) -> None:
    with suppress(Crash):
        await loop()


async def until(condition: Callable[[], Any], seconds: float = 120.0, step: float = 0.25) -> None:
    """Virtual seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - time here costs nothing
            await asyncio.sleep(step)


async def funded_by_mining(world: World, *renting: asyncio.Task[Any]) -> None:
    """Mine until what waits for confirmations is through."""
    while not all(task.done() for task in renting):
        await asyncio.sleep(1)
        if world.chain.mempool:
            world.chain.mine()


async def rent_paid(world: World, tenant: Peer, deployment: str = "web", **labels: str) -> LeaseId:
    async with asyncio.TaskGroup() as tasks:
        lease = tasks.create_task(tenant.rent(deployment, **labels))
        await funded_by_mining(world, lease)
    return lease.result()


async def close_and_bury(world: World, tenant: Peer, provider: Peer) -> None:
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: provider.earning.spending)
    await world.mine(BURIED)


async def assert_settled(tenant: Peer, provider: Peer, coins: int) -> int:
    """Every satoshi is where the bills say. Returns what was paid."""
    paying, earning = tenant.paying, provider.earning
    assert paying.state is earning.state is ChannelState.CLOSED
    assert paying.paid == earning.paid
    assert await provider.worth() == earning.paid - earning.spending[-1].fee
    assert await tenant.worth() == coins - paying.funding_fee - paying.paid
    return int(paying.paid)
