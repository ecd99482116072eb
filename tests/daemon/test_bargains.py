"""A cheaper provider comes to the market, and a deployment that may moves there: whole nodes, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from daemon.nodes import NEED, POLICY, Peer, World, funded_by_mining, rent_paid, until
from daemon.test_keeping import kept, provider
from dockage.domain.pricing import Tariff
from dockage.node.kept import Stage

LABELS = {"dockage.move-saving": "20", "dockage.move-pause": "60"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def cheaper(world: World, number: int, percent: int) -> Peer:
    tariff = Tariff(cpu_hour=POLICY.tariff.cpu_hour * (100 - percent) // 100)
    return await provider(world, number, replace(POLICY, tariff=tariff))


async def test_it_moves_for_a_price_that_is_worth_it_and_for_no_other(world: World) -> None:
    first = await provider(world, 1, POLICY)
    tenant = await world.tenant(2)
    copies = kept(tenant)
    lease = await rent_paid(world, tenant, "web", move_saving="20", move_pause="60")
    copies.deploy("web", lease, NEED, LABELS)
    state = tenant.node.keeping

    def serves_at() -> list[bytes]:
        of = state.state.deployments.get("web")
        return [x.place.provider for x in of.replicas.values() if x.stage is Stage.SERVING] if of else []

    await asyncio.sleep(70)  # nobody else is in the market: nothing is cheaper, and it goes on looking
    await cheaper(world, 3, percent=10)
    await asyncio.sleep(70)
    assert serves_at() == [first.keys.node]
    bargain = await cheaper(world, 5, percent=50)
    async with asyncio.TaskGroup() as tasks:
        moved = tasks.create_task(until(lambda: serves_at() == [bargain.keys.node], 600))
        await funded_by_mining(world, moved)
    await until(lambda: tenant.rented(lease).is_over)
    [cause] = {
        x.reason.code for x in state.state.deployments["web"].story if x.reason.code.startswith("price")
    }
    assert cause == "price.cheaper"
