"""One side lost its newest update and was restarted: the other one's memory, and the tenant's signature, heal it.

Both directions, with and without a lease that would heal it anyway; over the real edge, rail and signatures.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from daemon.nodes import BUSY, Peer, World, assert_settled, close_and_bury, rent_paid, until
from dockage.domain.lease import LeaseState
from dockage.node import records
from dockage.ports.machine import Row
from dockage.testing.journal import MemoryJournal

COINS = 100_000


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def channel_rows(peer: Peer) -> list[Row]:
    return [row for row in peer.journal.load() if row.kind in (records.EARNING, records.PAYING)]


def forgets(peer: Peer, older: list[Row]) -> None:
    """From its next start on: what was written since is lost."""
    journal = MemoryJournal()
    journal.write([*peer.journal.load(), *older])
    peer._open_journal = lambda: journal


async def begun(world: World) -> tuple[Peer, Peer, Any]:
    provider, tenant = await world.provider(), await world.tenant(coins=(COINS,))
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 560)
    return provider, tenant, lease


async def lose_and_restart(peer: Peer, more: Any) -> None:
    """Restart *peer* without the updates of its channel that come in while *more* is awaited."""
    older = channel_rows(peer)
    await more
    await peer.stop()
    forgets(peer, older)
    peer.start()


async def goes_on_and_settles(world: World, provider: Peer, tenant: Peer, lease: Any) -> None:
    paid = provider.earning.paid
    await until(lambda: provider.earning.paid > paid + 50)
    assert provider.sold(lease).state is tenant.rented(lease).state is LeaseState.RUNNING
    await tenant.node.renting.release(lease)
    await until(lambda: provider.earning.paid == provider.sold(lease).due // 1000)
    await close_and_bury(world, tenant, provider)
    assert await assert_settled(tenant, provider, COINS) == provider.sold(lease).due // 1000
    assert tenant.node.reception.refused == provider.node.reception.refused == {}


async def test_a_tenant_that_forgot_payments_goes_on_from_its_own_signature(world: World) -> None:
    provider, tenant, lease = await begun(world)
    before = tenant.paying.paid
    await lose_and_restart(tenant, until(lambda: tenant.paying.paid > before + 100))
    assert tenant.paying.paid <= before + 20
    await until(lambda: tenant.paying.paid >= provider.earning.paid > before + 100, 5)
    await goes_on_and_settles(world, provider, tenant, lease)


async def test_a_provider_that_forgot_payments_gets_the_newest_again(world: World) -> None:
    provider, tenant, lease = await begun(world)
    before = provider.earning.paid
    await lose_and_restart(provider, until(lambda: provider.earning.paid > before + 100))
    assert provider.earning.paid <= before + 20
    await until(lambda: provider.earning.paid > before + 100, 30)
    await goes_on_and_settles(world, provider, tenant, lease)


async def ended(tenant: Peer, provider: Peer, lease: Any) -> None:
    before = tenant.paying.paid
    await until(lambda: tenant.paying.paid > before + 100)
    await tenant.node.renting.release(lease)
    await until(lambda: provider.earning.paid == provider.sold(lease).due // 1000 == tenant.paying.paid)


async def test_a_tenant_that_forgot_the_last_payment_is_healed_at_its_start_without_a_lease(
    world: World,
) -> None:
    provider, tenant, lease = await begun(world)
    older = tenant.paying.paid
    await lose_and_restart(tenant, ended(tenant, provider, lease))
    await until(lambda: tenant.paying.paid == provider.earning.paid > older, 5)
    await close_and_bury(world, tenant, provider)
    await assert_settled(tenant, provider, COINS)


async def test_a_provider_that_forgot_the_last_payment_is_healed_by_the_next_block_without_a_lease(
    world: World,
) -> None:
    provider, tenant, lease = await begun(world)
    older = provider.earning.paid
    await lose_and_restart(provider, ended(tenant, provider, lease))
    assert provider.earning.paid <= older + 20 < tenant.paying.paid
    await world.mine()
    await until(lambda: provider.earning.paid == tenant.paying.paid, 5)
    await close_and_bury(world, tenant, provider)
    await assert_settled(tenant, provider, COINS)


async def test_both_at_once_lose_at_most_what_both_forgot(world: World) -> None:
    """The longer memory of the two wins; what neither has any more was never asked for again by anybody."""
    provider, tenant, lease = await begun(world)
    older_there, older_here = channel_rows(provider), channel_rows(tenant)
    least = tenant.paying.paid
    await until(lambda: provider.earning.paid > least + 100)
    for peer, older in ((provider, older_there), (tenant, older_here)):
        await peer.stop()
        forgets(peer, older)
    provider.start()
    tenant.start()
    assert tenant.paying.paid <= least + 20
    await goes_on_and_settles(world, provider, tenant, lease)
