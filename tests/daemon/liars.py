"""Who lies to a node, and what must come of it: for all tests of lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from daemon.nodes import BUSY, FREE_POLICY, Peer, World, rent_paid, until
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement
from dockage.domain.units import GIB, MIB, Instant, Msat, Sat
from dockage.domain.usage import Usage
from dockage.ports.peers import Address, Stream
from dockage.protocol import messages as say
from dockage.protocol.streams import AnyHeader, Messages, encode_header
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryLink
from dockage.wire.frames import next_frame, write_frame

LEASE = LeaseId(b"mallory's own id")
ENOUGH = Resources(100, 64 * MIB, 1 * GIB)


TALK = Messages()


class Mallory:
    """Has a key and a link, and says what it likes."""

    def __init__(self, world: World, number: int = 66) -> None:
        self.keys = MemoryKeys(number)
        self.link: MemoryLink = world.network.link(self.keys.node, f"127.0.0.1:{3000 + number}")
        self.heard: list[say.AnyMessage] = []

    def knows(self, peer: Peer) -> None:
        self.link.learn(peer.keys.node, Address("", (f"127.0.0.1:{2000 + peer._number}",)))

    async def open(self, peer: Peer, header: AnyHeader | None = TALK) -> Stream:
        self.knows(peer)
        stream = await self.link.open(peer.keys.node)
        if header is not None:
            await write_frame(stream, encode_header(header))
        return stream

    async def say(self, peer: Peer, message: say.AnyMessage, signature: bytes | None = None) -> Stream:
        body = say.encode_body(message)
        if signature is None:
            signature = self.sign(body) if say.must_be_signed(message) else b""
        return await self.send(peer, say.encode_envelope(body, signature))

    def sign(self, body: bytes) -> bytes:
        return self.keys.sign(say.SIGNING_CONTEXT + body)

    async def send(self, peer: Peer, frame: bytes) -> Stream:
        stream = await self.open(peer)
        await write_frame(stream, frame)
        return stream

    async def listen(self, _peer: Any, stream: Stream) -> None:
        await next_frame(stream, 512)
        while (frame := await next_frame(stream, say.MESSAGE_MAX)) is not None:
            self.heard.append(say.decode_envelope(frame)[0])

    async def answer(self, kind: type, seconds: float = 5) -> Any:
        await until(lambda: any(isinstance(message, kind) for message in self.heard), seconds)
        return next(message for message in self.heard if isinstance(message, kind))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def mallory(world: World) -> AsyncIterator[Mallory]:
    mallory = Mallory(world)
    listening = world.spawn(mallory.link.serve(mallory.listen))
    yield mallory
    listening.cancel()


@pytest.fixture
async def provider(world: World) -> Peer:
    return await world.provider(policy=FREE_POLICY)


@pytest.fixture
async def paid(world: World) -> tuple[Peer, Peer, LeaseId]:
    """A provider, its honest tenant, and their paid lease."""
    provider, tenant = await world.provider(), await world.tenant()
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "c" * 64, BUSY)
    await until(lambda: provider.earning.paid >= 50)
    return provider, tenant, lease


def money(peer: Peer) -> Any:
    """What a lie could be after: who holds and pays what. Time goes on in the rest."""
    tenant, provider = peer.minds
    channels = [
        (c.id, c.peer, c.terms, c.state)
        for mind in (tenant, provider)
        if mind
        for c in mind.channels.values()
    ]
    leases = [(x.id, x.state, x.limits) for mind in (tenant, provider) if mind for x in mind.leases.values()]
    return channels, leases


async def is_broken(stream: Stream) -> bool:
    try:
        async with asyncio.timeout(30):
            await stream.read(1)
    except Unavailable:
        return True
    return False


async def caught(peer: Peer, mallory: Mallory, code: str, lie: Callable[[], Any]) -> None:
    """The lie is counted by *code*; every stream of the liar is gone; it may come again."""
    bystander = await mallory.open(peer)
    await asyncio.sleep(0.1)
    before = money(peer)
    stream = await lie()
    await until(lambda: peer.node.reception.refused[code] == 1, 30)
    assert dict(peer.node.reception.refused) == {code: 1}
    assert await is_broken(stream)
    assert await is_broken(bystander)
    assert mallory.keys.node not in peer.node.link.connected  # type: ignore[attr-defined]
    assert money(peer) == before


async def serves_others(world: World, provider: Peer, number: int = 7) -> None:
    honest = world.peer(number, wallet=False)
    honest.start()
    lease = await honest.rent(need=ENOUGH)
    assert honest.rented(lease).state is LeaseState.RUNNING


def statement(lease: LeaseId, provider: Peer, **changes: Any) -> Statement:
    fields: dict[str, Any] = {
        "lease": lease,
        "seq": 1,
        "previous": GENESIS,
        "at": provider.world.clock.now(),
        "usage": Usage(),
        "terms": GENESIS,
        "due": Msat(0),
        "received_sat": Sat(0),
        "memory_bytes": 0,
        "disk_bytes": 0,
        "containers": 0,
    }
    return Statement(**{**fields, **changes})


def quote(tenant: Peer | Mallory, lease: LeaseId = LEASE, **changes: Any) -> Quote:
    fields: dict[str, Any] = {
        "lease": lease,
        "tenant": tenant.keys.node,
        "limits": ENOUGH,
        "tariff": FREE_POLICY.tariff,
        "network": "",
        "confirmations": 1,
        "credit_sat": Sat(0),
        "expires": Instant(1 << 62),
    }
    return Quote(**{**fields, **changes})
