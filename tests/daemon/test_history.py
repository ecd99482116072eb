"""The accounts of two nodes over some minutes: exact on both sides, through restarts, and after the lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from daemon.nodes import BUSY, World, rent_paid, until
from dockage.daemon import history
from dockage.domain.errors import UsageError
from dockage.domain.history import EVER, Spent
from dockage.domain.units import HOUR, MINUTE


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def bill(spans: list[Spent]) -> int:
    assert sum(line.cost for span in spans for line in span.lines.values()) == sum(x.due for x in spans)
    return sum(span.due for span in spans)


async def test_the_history_is_the_statements_and_survives_restart_and_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, tenant = await world.provider(), await world.tenant(coins=(100_000,))
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await asyncio.sleep(130)
    await tenant.restart()
    await provider.restart()
    await asyncio.sleep(20)
    await tenant.node.renting.release(lease)
    await until(lambda: provider.sold(lease).is_over and tenant.rented(lease).due == provider.sold(lease).due)
    due = tenant.rented(lease).due
    await tenant.restart()

    spent = await tenant.node.history.spent(MINUTE, EVER)
    earned = await provider.node.history.earned(MINUTE, EVER)
    assert bill(spent) == bill(earned) == due > 0
    assert len(spent) >= 3
    assert {(x.lease, x.peer, x.deployment) for x in spent} == {(lease, provider.keys.node, "web")}
    assert {(x.lease, x.peer, x.deployment) for x in earned} == {(lease, tenant.keys.node, "")}
    used = tenant.rented(lease).last.usage
    assert sum(x.lines["cpu"].used for x in spent) == used.cpu_ns
    assert await tenant.node.history.earned(MINUTE, EVER) == []

    monkeypatch.setattr("dockage.domain.history.KEPT", ((1 << 62, HOUR),))  # as if it were long ago
    await tenant.node.history.thin()
    hours = await tenant.node.history.spent(HOUR, EVER)
    assert bill(hours) == due
    assert len(await tenant.node.history.spent(MINUTE, EVER)) == len(hours) < len(spent)

    monkeypatch.setattr(history, "SPANS_MAX", 0)
    with pytest.raises(UsageError, match="longer steps"):
        await tenant.node.history.spent(HOUR, EVER)
