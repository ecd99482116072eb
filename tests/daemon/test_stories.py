"""Two whole nodes in one process: rent, use, meter, pay, pause, thaw, end, close; to the satoshi on the chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from daemon.nodes import (
    BUSY,
    FREE_POLICY,
    Peer,
    World,
    assert_settled,
    close_and_bury,
    rent_paid,
    until,
)
from dockage.domain.channel import ChannelState
from dockage.domain.errors import UsageError
from dockage.domain.lease import LeaseState
from dockage.domain.reason import Reason
from dockage.domain.units import MINUTE, after
from dockage.node import events as told
from dockage.testing.host import FakeContainer, echo

COINS = 100_000
RUNNING, PAUSED, ENDED = LeaseState.RUNNING, LeaseState.PAUSED, LeaseState.ENDED


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def test_a_free_lease_from_search_to_end(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    assert tenant.rented(lease).state is RUNNING
    provider.host.start(lease, "c" * 64, FakeContainer(cpu_milli=500, ports={80: echo}))
    await asyncio.sleep(2)  # the first reading opens the meter
    stream = await tenant.node.renting.tunnel(lease, "c" * 64, 80)
    await stream.write(b"hello")
    assert await stream.read(10) == b"hello"
    await asyncio.sleep(10)
    used = tenant.rented(lease).last.usage
    assert 4.5 * 10**9 < used.cpu_ns <= 6 * 10**9
    assert (used.net_in_bytes, used.net_out_bytes) == (5, 5)
    assert tenant.rented(lease).due == 0
    await tenant.node.renting.release(lease)
    assert tenant.rented(lease).state is provider.sold(lease).state is ENDED
    assert await provider.host.present() == frozenset()
    assert tenant.node.tenant.state.channels == {}


async def begun(world: World) -> tuple[Peer, Peer, bytes]:
    """A provider, a tenant, and a paid lease in which something runs."""
    provider = await world.provider()
    tenant = await world.tenant(coins=(COINS,))
    lease = await rent_paid(world, tenant)
    await until(lambda: tenant.paying.state is provider.earning.state is ChannelState.OPEN, 5)
    provider.host.start(lease, "busy", BUSY)
    return provider, tenant, lease


async def test_a_paid_lease_from_funding_to_the_buried_close(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.earning.paid >= 600)
    # In arrears by one tick and the payment that is on its way.
    assert 0 <= provider.sold(lease).due // 1000 - provider.earning.paid <= 20
    await tenant.node.renting.release(lease)
    await close_and_bury(world, tenant, provider)
    assert await assert_settled(tenant, provider, COINS) == provider.sold(lease).due // 1000
    assert tenant.node.reception.refused == provider.node.reception.refused == {}


async def test_containers_freeze_while_nobody_pays_and_thaw_when_somebody_does(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.earning.paid >= 600)
    await tenant.stop()
    await until(lambda: provider.sold(lease).state is PAUSED, 15)
    await asyncio.sleep(1)
    assert provider.host.is_paused(lease)
    held = provider.sold(lease).due
    await asyncio.sleep(5)
    assert provider.sold(lease).due == held  # frozen containers use no CPU, and nobody is charged for it
    tenant.start()
    await until(lambda: provider.sold(lease).state is RUNNING, 10)
    await until(lambda: not provider.host.is_paused(lease), 5)
    await until(lambda: tenant.rented(lease).state is RUNNING, 5)
    await tenant.node.renting.release(lease)
    await close_and_bury(world, tenant, provider)
    assert await assert_settled(tenant, provider, COINS) == provider.sold(lease).due // 1000


async def test_a_tenant_that_stays_away_loses_the_lease_and_nothing_else(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.earning.paid >= 600)
    await tenant.stop()
    await until(lambda: provider.sold(lease).state is ENDED, 60)
    assert provider.sold(lease).reason.code == "lease.unpaid-too-long"
    assert await provider.host.present() == frozenset()
    assert (
        provider.sold(lease).due // 1000 - provider.earning.paid <= 80
    )  # patience, one tick, ten sat a second
    tenant.start()
    await until(lambda: tenant.rented(lease).state is ENDED)
    assert tenant.rented(lease).reason.code == "lease.unpaid-too-long"
    await until(lambda: provider.earning.paid == provider.sold(lease).due // 1000)  # it pays what it had used
    await close_and_bury(world, tenant, provider)
    await assert_settled(tenant, provider, COINS)


async def test_the_provider_is_restarted_in_the_middle(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.earning.paid >= 300)
    await provider.stop()
    provider.host.restart()
    await asyncio.sleep(4)
    provider.start()
    before = provider.earning.paid
    await until(lambda: provider.earning.paid >= before + 300)
    assert tenant.rented(lease).state is provider.sold(lease).state is RUNNING
    await tenant.node.renting.release(lease)
    await close_and_bury(world, tenant, provider)
    assert await assert_settled(tenant, provider, COINS) == provider.sold(lease).due // 1000


async def test_both_are_restarted_while_the_channel_is_being_funded(world: World) -> None:
    provider = await world.provider()
    tenant = await world.tenant(coins=(COINS,))
    waiting = world.spawn(tenant.rent())
    await until(lambda: world.chain.mempool)
    await provider.restart()
    waiting.cancel()
    await tenant.restart()
    world.chain.mine()
    await until(
        lambda: tenant.paying.state is ChannelState.OPEN and provider.earning.state is ChannelState.OPEN
    )
    (old,) = tenant.node.tenant.state.leases.values()
    assert old.state is ENDED
    assert old.reason.code == "lease.cancelled"
    lease = await tenant.rent()  # at once: the channel is there
    assert len(tenant.node.tenant.state.channels) == 1
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 600)
    await tenant.node.renting.release(lease)
    await close_and_bury(world, tenant, provider)
    await assert_settled(tenant, provider, COINS)


async def test_a_provider_restarted_while_it_closes_settles_all_the_same(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.earning.paid >= 600)
    await tenant.node.renting.release(lease)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: provider.earning.spending)
    await provider.restart()
    world.chain.evict(provider.earning.spending[-1].txid)
    await until(lambda: world.chain.mempool, 30)
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


async def test_a_provider_that_drains_says_so_and_its_leases_end_in_time(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    moving = Reason("provider.draining", "the machine moves house")
    assert provider.node.provider is not None
    await provider.node.provider.tell(told.DrainRequested(after(world.clock.now(), MINUTE), moving))
    await until(lambda: tenant.rented(lease).announced)
    assert tenant.rented(lease).announced.reason == moving
    [info] = tenant.node.renting.all()
    assert info.ends_at == tenant.rented(lease).announced.at
    await provider.restart()  # the drain outlives it
    with pytest.raises(UsageError) as caught:
        await tenant.rent("other")
    assert caught.value.code == "provider.draining"
    await until(lambda: tenant.rented(lease).state is ENDED)
    assert world.clock.now() >= info.ends_at
    assert tenant.rented(lease).reason == moving
