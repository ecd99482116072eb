"""A tenant's zone from one end to the other: told, published, read by a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dockage.daemon.naming import Naming
from dockage.daemon.zones import Zones
from dockage.domain.deployment import long_name
from dockage.domain.errors import UsageError
from dockage.domain.units import SECOND, Duration
from dockage.protocol import dns
from dockage.testing.clock import ManualClock
from dockage.testing.directory import MemoryDirectory
from dockage.testing.keys import MemoryKeys, verify

TENANT = MemoryKeys(5)
NAME = long_name("blog", TENANT.node, "gw.example")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def market(clock: ManualClock) -> MemoryDirectory:
    return MemoryDirectory(verify, clock)


@pytest.fixture
async def zones(market: MemoryDirectory, clock: ManualClock) -> AsyncIterator[Zones]:
    made = Zones(market, TENANT, clock, 0)
    task = asyncio.create_task(made.keep_up())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def seen(market: MemoryDirectory, clock: ManualClock) -> list[bytes]:
    """What a gateway that has never heard of the tenant answers."""

    async def probe(address: str) -> bool:
        return True

    naming = Naming("gw.example", ("203.0.113.5",), dict, lambda lease: True, market, verify, clock, probe)
    query = dns.write_response(dns.Query(1, 0, dns.encode_name(NAME) + b"\0\1\0\1", NAME, 1, 512, False), 0)
    asked = query[:2] + b"\0\0" + query[4:]
    answer = naming.respond(asked, False)
    assert answer is not None
    message = answer if isinstance(answer, bytes) else await answer
    return [message[-4:]] if message[7] else []


async def becomes(market: MemoryDirectory, clock: ManualClock, expected: list[bytes]) -> None:
    async with asyncio.timeout(10):
        while await seen(market, clock) != expected:  # noqa: ASYNC110 - nobody tells a resolver
            await asyncio.sleep(0.01)


async def test_a_deployment_with_a_gateway_is_known_to_all(
    zones: Zones, market: MemoryDirectory, clock: ManualClock
) -> None:
    assert await seen(market, clock) == []
    zones.tell("blog", ["198.51.100.2"])
    await becomes(market, clock, [dns.address("198.51.100.2")[1]])
    clock.pass_(Duration(SECOND))
    zones.tell("blog", [])
    await becomes(market, clock, [])


async def test_what_does_not_fit_changes_nothing(
    zones: Zones, market: MemoryDirectory, clock: ManualClock
) -> None:
    zones.tell("blog", ["198.51.100.2"])
    with pytest.raises(UsageError) as caught:
        zones.tell("shop", [f"198.51.{x}.1" for x in range(60)])
    assert caught.value.code == "zone.oversized"
    await becomes(market, clock, [dns.address("198.51.100.2")[1]])
