"""A provider's door: tunnels for a gateway with the tenant's grant, until the tenant fences it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from daemon.nodes import FREE_POLICY, Peer, World
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import HOUR, Instant
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.grants import Grant, sign_grant
from dockage.testing.host import FakeContainer, echo
from dockage.wire.frames import read_exactly, read_frame, write_frame

CONTAINER = "ab" * 32


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


class Town:
    """A provider with a lease that runs an echo on two ports, its tenant, and a gateway."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def build(self) -> Town:
        self.provider = await self.world.provider(1, FREE_POLICY)
        self.tenant = await self.world.tenant(2, coins=(), wallet=False)
        self.gateway = await self.world.tenant(3, coins=(), wallet=False)
        self.lease = await self.tenant.rent()
        self.provider.host.start(self.lease, CONTAINER, FakeContainer(ports={80: echo, 5432: echo}))
        self.gateway.node.link.learn(self.provider.keys.node, self.provider.node.link.address())
        return self

    def grant(self, epoch: int = 1, by: Peer | None = None, lease: LeaseId | None = None) -> bytes:
        signer = by or self.tenant
        expires = Instant(self.world.clock.now() + HOUR)
        grant = Grant(
            signer.keys.node, lease or self.lease, self.gateway.keys.node, ("tunnel",), epoch, expires, (80,)
        )
        return sign_grant(grant, signer.keys.sign)

    async def open(self, who: Peer, grant: bytes, port: int = 80) -> Stream:
        stream = await who.node.link.open(self.provider.keys.node)
        await write_frame(stream, streams.encode_header(streams.Tunnel(self.lease, CONTAINER, port, grant)))
        return stream

    async def asks(self, who: Peer, grant: bytes, port: int = 80) -> bool:
        """Whether the container answers."""
        stream = await self.open(who, grant, port)
        try:
            return await echoes(stream)
        finally:
            stream.abort()

    async def fence(self, epoch: int, by: Peer | None = None) -> int:
        stream = await (by or self.tenant).node.link.open(self.provider.keys.node)
        await write_frame(stream, streams.encode_header(streams.Fence(self.lease, epoch)))
        answer = streams.decode_header(await read_frame(stream, streams.HEADER_MAX))
        assert isinstance(answer, streams.Fence)
        return answer.epoch

    @property
    def refused(self) -> dict[str, int]:
        return self.provider.node.reception.refused


async def echoes(stream: Stream) -> bool:
    try:
        await stream.write(b"hello")
        return await read_exactly(stream, 5) == b"hello"
    except DockageError:
        return False


@pytest.fixture
async def town(world: World) -> Town:
    return await Town(world).build()


async def test_a_gateway_comes_in_with_a_grant(town: Town) -> None:
    assert await town.asks(town.gateway, town.grant())
    assert await town.asks(town.tenant, b""), "the tenant needs none"
    assert town.refused == {}


async def test_without_one_or_with_anothers_nobody_does(town: Town) -> None:
    assert not await town.asks(town.gateway, b"")
    assert not await town.asks(town.gateway, town.grant(by=town.gateway))
    assert not await town.asks(town.gateway, town.grant(lease=LeaseId(b"x" * 16)))
    thief = await town.world.tenant(4, coins=(), wallet=False)
    thief.node.link.learn(town.provider.keys.node, town.provider.node.link.address())
    assert not await town.asks(thief, town.grant())
    assert town.refused == {"lease.unknown": 1, "grant.other": 3}


async def test_a_grant_reaches_the_ports_that_it_names(town: Town) -> None:
    assert await town.asks(town.tenant, b"", 5432)
    assert not await town.asks(town.gateway, town.grant(), 5432)
    assert town.refused == {"grant.other": 1}


async def test_a_fence_voids_older_grants_and_cuts_what_they_opened(town: Town) -> None:
    old, new = town.grant(epoch=1), town.grant(epoch=2)
    before, later = await town.open(town.gateway, old), await town.open(town.gateway, new)
    assert await echoes(before)
    assert await echoes(later)
    assert await town.fence(2) == 2
    assert not await echoes(before)
    assert await echoes(later)
    assert not await town.asks(town.gateway, old)
    assert await town.asks(town.gateway, new)
    assert town.refused == {"grant.fenced": 1}


async def test_a_fence_never_falls_and_outlives_a_restart(town: Town) -> None:
    await town.fence(5)
    assert await town.fence(3) == 5
    await town.provider.restart()
    for peer in (town.gateway, town.tenant):
        peer.node.link.learn(town.provider.keys.node, town.provider.node.link.address())
    assert not await town.asks(town.gateway, town.grant(epoch=4))
    assert await town.asks(town.gateway, town.grant(epoch=5))
    assert await town.fence(0) == 5


async def test_only_the_tenant_fences(town: Town) -> None:
    with pytest.raises(DockageError):
        await town.fence(9, by=town.gateway)
    assert town.refused == {"lease.unknown": 1}


async def test_bad_luck_costs_a_stream_and_not_the_connection(town: Town) -> None:
    await town.fence(2)
    good = await town.open(town.gateway, town.grant(epoch=2))
    assert await echoes(good)
    assert not await town.asks(town.gateway, town.grant(epoch=1))
    assert await echoes(good), "the connection still stands"


async def test_nothing_is_reached_once_the_lease_ended(town: Town) -> None:
    await town.tenant.node.renting.release(town.lease)
    assert not await town.asks(town.gateway, town.grant())
    assert town.refused == {}
