"""A node dies at a boundary between event, journal and effect, while its peer, the chain and the machine go on.

Afterwards all is as if it had not died: one channel, one bill, each satoshi where it says. ``test_kills.py`` does
the same with SIGKILL over a journal on disk. DOCKAGE_TEST_ALL_BOUNDARIES=1 takes every one (two minutes of CPU).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from daemon.nodes import BUSY, Crash, Peer, World, until
from dockage.domain.channel import ChannelState
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.node import effects as want
from dockage.node import events as told
from dockage.ports import Journal, Row
from dockage.testing.journal import MemoryJournal

COIN = 60_000


class Fuse:
    """Burns at each boundary; at the last one its node is dead before anything else of it happens."""

    def __init__(self) -> None:
        self.left = -1
        self.burnt = 0
        self.peer: Peer

    def burn(self) -> None:
        self.burnt += 1
        self.left -= 1
        if self.left == 0:
            for task in self.peer._running:
                task.cancel()
            self.peer.world.network.vanish(self.peer.keys.node)
            raise Crash

    def journal(self, inner: Journal) -> Callable[[], Journal]:
        fuse = self

        class Fused:
            def write(self, rows: Sequence[Row]) -> None:
                fuse.burn()
                inner.write(rows)
                fuse.burn()

            load, close = inner.load, inner.close

        return Fused

    def wire(self, node: Any) -> None:
        for driver in (node.provider, node.tenant):
            if driver is not None:
                driver._perform = self._fused(driver._perform)

    def _fused(self, perform: Callable[[want.AnyEffect], None]) -> Callable[[want.AnyEffect], None]:
        def performed(effect: want.AnyEffect) -> None:
            perform(effect)
            self.burn()

        return performed


async def insist(work: Callable[[], Awaitable[Any]], seconds: float) -> bool:
    """As a user does: again, if nothing came of it."""
    try:
        async with asyncio.timeout(seconds):
            await work()
    except (TimeoutError, DockageError):
        return False
    return True


async def revive(peer: Peer) -> None:
    """What a service manager does."""
    while True:
        await until(lambda: peer._running and all(task.done() for task in peer._running), 1e9, step=0.5)
        await peer.stop()
        peer.start()


async def mine(world: World) -> None:
    while True:
        await asyncio.sleep(4)
        if world.chain.mempool:
            world.chain.mine()


async def serve_and_settle(world: World, provider: Peer, tenant: Peer) -> None:
    lease: LeaseId | None = None
    while lease is None or tenant.rented(lease).state is not LeaseState.RUNNING:
        if await insist(tenant.rent, 60):
            (lease,) = [
                x.id for x in tenant.node.tenant.state.leases.values() if x.state is LeaseState.RUNNING
            ]
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 560)
    while not tenant.rented(lease).is_over:
        await insist(lambda: tenant.node.renting.release(lease), 15)
    while not tenant.paying.close_at and tenant.paying.is_live:
        await insist(lambda: tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id)), 5)
    await until(lambda: provider.earning.settled_txid and tenant.paying.settled_txid, 120)
    world.chain.mine(6)
    over = {ChannelState.CLOSED, ChannelState.ABANDONED}
    await until(lambda: {provider.earning.state, tenant.paying.state} <= over)


async def crash_and_settle(who: str, boundary: int) -> bool:
    """Whether the story was long enough to crash at *boundary* at all."""
    fuse = Fuse()
    burning = {"journal": fuse.journal(MemoryJournal()), "ear": fuse.wire}
    async with World() as world:
        provider = await world.provider(**(burning if who == "provider" else {}))
        tenant = await world.tenant(coins=(COIN, COIN), **(burning if who == "tenant" else {}))
        fuse.peer = provider if who == "provider" else tenant
        fuse.left = boundary
        helpers = [world.spawn(revive(fuse.peer)), world.spawn(mine(world))]
        await serve_and_settle(world, provider, tenant)
        for helper in helpers:
            helper.cancel()
        await agree(provider, tenant)
    return fuse.left <= 0


async def agree(provider: Peer, tenant: Peer) -> None:
    """One channel, one bill, and each satoshi where it says."""
    paid = [c for c in tenant.node.tenant.state.channels.values() if c.paid]
    (earned,) = [c for c in provider.node.provider.state.channels.values() if c.paid]  # type: ignore[union-attr]
    assert [c.paid for c in paid] == [earned.paid]
    due = sum(x.due for x in provider.node.provider.state.leases.values())  # type: ignore[union-attr]
    assert earned.paid == due // 1000
    fees = sum(c.funding_fee for c in tenant.node.tenant.state.channels.values())
    assert await tenant.worth() == 2 * COIN - fees - earned.paid
    assert await provider.worth() == earned.paid - earned.spending[-1].fee
    assert await provider.host.present() == frozenset()
    assert not provider.node.reception.refused
    assert not tenant.node.reception.refused


BOUNDARIES = (*range(1, 40, 7), *range(40, 400, 53))
"""Of some 330 (provider) and 220 (tenant). Where money begins to flow they are dense, later ticks are all alike."""
if os.environ.get("DOCKAGE_TEST_ALL_BOUNDARIES"):
    BOUNDARIES = tuple(range(1, 400))


@pytest.mark.parametrize("who", ["provider", "tenant"])
async def test_a_node_that_dies_at_any_boundary_goes_on_where_it_was(who: str) -> None:
    crashed = [boundary for boundary in BOUNDARIES if await crash_and_settle(who, boundary)]
    assert len(crashed) > len(BOUNDARIES) // 2
