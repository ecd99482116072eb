"""A node dies at a boundary between event, journal and effect, while its peer, the chain and the machine go on.

Afterwards all is as if it had not died: one channel, one bill, each satoshi where it says. ``test_kills.py`` does
the same with SIGKILL over a journal on disk. Each kind of boundary is taken once: what is written or wanted, in which
states of channels and leases. DOCKAGE_TEST_ALL_BOUNDARIES=1 takes every one (minutes of CPU).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from daemon.nodes import BUSY, CONFIG, POLICY, Crash, Peer, World, until
from dockage.daemon import market
from dockage.daemon.config import ChannelLimits
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.pricing import Tariff
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node.policy import ProviderPolicy
from dockage.ports.machine import Journal, Row
from dockage.testing.journal import MemoryJournal

COIN = 60_000


class Fuse:
    """Burns at each boundary; at the last one its node is dead before anything else of it happens."""

    def __init__(self) -> None:
        self.left = -1
        self.kinds: list[Any] = []
        """What each boundary was."""
        self.peer: Peer

    def burn(self, what: str) -> None:
        minds = self.peer.minds if hasattr(self.peer, "node") else ()
        states = [
            tuple(x.state for x in (*m.channels.values(), *m.leases.values())) for m in minds if m is not None
        ]
        self.kinds.append((what, *states))
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
                kinds = ", ".join(sorted({row.kind for row in rows}))
                fuse.burn(f"before {kinds}")
                inner.write(rows)
                fuse.burn(f"after {kinds}")

            load, close = inner.load, inner.close

        return Fused

    def wire(self, node: Any) -> None:
        for driver in (node.provider, node.tenant):
            if driver is not None:
                driver._perform = self._fused(driver._perform)

    def _fused(self, perform: Callable[[want.AnyEffect], None]) -> Callable[[want.AnyEffect], None]:
        def performed(effect: want.AnyEffect) -> None:
            perform(effect)
            self.burn(f"{type(effect).__name__} {type(getattr(effect, 'message', None)).__name__}")

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


async def rented(tenant: Peer, provider: Peer) -> LeaseId:
    lease: LeaseId | None = None
    while lease is None or tenant.rented(lease).state is not LeaseState.RUNNING:
        if await insist(tenant.rent, 60):
            (lease,) = [
                x.id for x in tenant.node.tenant.state.leases.values() if x.state is LeaseState.RUNNING
            ]
    provider.host.start(lease, "busy", BUSY)
    return lease


async def settled(world: World, provider: Peer, tenant: Peer, lease: LeaseId) -> None:
    while not tenant.rented(lease).is_over:
        await insist(lambda: tenant.node.renting.release(lease), 15)
    for id_ in list(tenant.node.tenant.state.channels):
        while (c := tenant.node.tenant.state.channels[id_]).is_live and not c.close_at:
            await insist(lambda id_=id_: tenant.node.tenant.tell(told.CloseRequested(id_)), 5)  # type: ignore[misc]
    await until(lambda: all(c.settled_txid or not c.paid for c in all_channels(provider, tenant)), 120)
    world.chain.mine(6)
    left = [c.terms.expiry_height for c in all_channels(tenant) if c.is_live]
    if left:  # a successor on which nothing was paid yet: it comes back at its expiry
        await expired(world, tenant, max(left))
    await until(lambda: all(c.is_over for c in all_channels(provider, tenant)))


async def expired(world: World, tenant: Peer, height: int) -> None:
    world.chain.mine(height - len(world.chain.blocks) + 1)
    await until(lambda: all(c.settled_txid or c.is_over for c in all_channels(tenant)), 120)
    world.chain.mine(6)


def all_channels(*peers: Peer) -> list[Any]:
    return [c for peer in peers for mind in peer.minds if mind is not None for c in mind.channels.values()]


async def serve(world: World, provider: Peer, tenant: Peer) -> None:
    lease = await rented(tenant, provider)
    await until(lambda: provider.earning.paid >= 560)
    await settled(world, provider, tenant, lease)
    await agree(provider, tenant)


async def refill(world: World, provider: Peer, tenant: Peer) -> None:
    """The lease outlives its channel."""
    lease = await rented(tenant, provider)
    await until(lambda: [c.paid >= 560 for c in all_channels(provider)][1:].count(True) > 0)
    await settled(world, provider, tenant, lease)
    await agree(provider, tenant)


async def refund(world: World, provider: Peer, tenant: Peer) -> None:
    """The provider is gone for ever: everything comes back, also what was signed."""
    await rented(tenant, provider)
    await until(lambda: tenant.paying.paid >= 100)
    await provider.stop()
    (channel,) = (c for c in all_channels(tenant) if c.paid)
    await expired(world, tenant, channel.terms.expiry_height)
    await until(lambda: all(c.is_over for c in all_channels(tenant)))
    assert await tenant.worth() == 2 * COIN - fees_of(tenant)


def fees_of(tenant: Peer) -> int:
    return sum(c.funding_fee + sum(x.fee for x in c.spending[-1:]) for c in all_channels(tenant))


class Story(NamedTuple):
    tell: Callable[[World, Peer, Peer], Awaitable[None]]
    who: str
    channels: int
    """It is about boundaries with so many channels."""
    config: ChannelLimits
    policy: ProviderPolicy = POLICY


FAST = msgspec.structs.replace(POLICY, tariff=Tariff(cpu_hour=360_000_000))
SMALL = ChannelLimits(hours=1, largest_sat=4_000)
SHORT = ChannelLimits(hours=1, expiry_blocks=440, refill=False)
STORIES = {
    "serve, provider": Story(serve, "provider", 0, SMALL, FAST),
    "serve, tenant": Story(serve, "tenant", 0, SMALL, FAST),
    "refill, provider": Story(refill, "provider", 2, SMALL, FAST),
    "refill, tenant": Story(refill, "tenant", 2, SMALL, FAST),
    "refund, tenant": Story(refund, "tenant", 0, SHORT),
}


async def crash_in(story: Story, boundary: int) -> Fuse:
    """Tell *story* with a death at *boundary* (-1: none)."""
    fuse = Fuse()
    burning = {"journal": fuse.journal(MemoryJournal()), "ear": fuse.wire}
    config = msgspec.structs.replace(CONFIG, channel=story.config)
    async with World() as world:
        provider = world.peer(1, story.policy, **(burning if story.who == "provider" else {}))
        tenant = world.peer(
            2, coins=(COIN, COIN), config=config, **(burning if story.who == "tenant" else {})
        )
        fuse.peer = provider if story.who == "provider" else tenant
        fuse.left = boundary
        helpers = [world.spawn(revive(fuse.peer)), world.spawn(mine(world))]
        provider.start()
        tenant.start()
        await until(lambda: provider.node.notice is not None and provider.node.notice.stored_at > 0)
        await story.tell(world, provider, tenant)
        for helper in helpers:
            helper.cancel()
    return fuse


async def agree(provider: Peer, tenant: Peer) -> None:
    """One bill, and each satoshi where it says."""
    paid = {c.id: c.paid for c in all_channels(tenant) if c.paid}
    earned = [c for c in all_channels(provider) if c.paid]
    assert paid == {c.id: c.paid for c in earned}
    due = sum(x.due for x in provider.node.provider.state.leases.values())  # type: ignore[union-attr]
    assert sum(paid.values()) == due // 1000
    settled = [c for c in earned if not c.is_given_back]
    returning = sum(c.spending[-1].fee for c in all_channels(provider) if c.is_given_back)
    spent = fees_of(tenant) + returning + sum(c.paid for c in settled)
    assert await tenant.worth() == 2 * COIN - spent
    assert await provider.worth() == sum(c.paid - c.spending[-1].fee for c in settled)
    assert await provider.host.present() == frozenset()
    assert not provider.node.reception.refused
    assert not tenant.node.reception.refused


def boundaries(story: Story, kinds: Sequence[Any]) -> list[int]:
    """The first of each kind that the story is about; boundary 1 is the first one."""
    first: dict[Any, int] = {}
    for number, kind in enumerate(kinds, 1):
        if max((len(states) for states in kind[1:]), default=0) > story.channels:
            first.setdefault(kind, number)
    return list(first.values())


@pytest.fixture(autouse=True)
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether an offer is to be published anew is not what these stories are about."""
    monkeypatch.setattr(market, "LOOK_EVERY", 2.0)


@pytest.mark.parametrize("name", list(STORIES))
async def test_a_node_that_dies_at_any_boundary_goes_on_where_it_was(name: str) -> None:
    story = STORIES[name]
    whole = await crash_in(story, -1)
    chosen = boundaries(story, whole.kinds)
    if os.environ.get("DOCKAGE_TEST_ALL_BOUNDARIES"):
        chosen = list(range(1, len(whole.kinds) + 1))
    crashed = [boundary for boundary in chosen if (await crash_in(story, boundary)).left <= 0]
    assert len(crashed) > len(chosen) // 2 > 10
