"""Replicas of one deployment get their image from each other, by the tenant's word and by nothing less."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import AsyncIterator
from typing import IO

import pytest

from daemon.nodes import FREE_POLICY, NEED, Peer, World
from dockage.adapters.images import ImageSender
from dockage.daemon.seeds import Seeds, source_opener
from dockage.daemon.wishes import read_wishes
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.protocol import images
from dockage.protocol.images import Layer, Manifest, Source, Want, Wanted
from dockage.wire.chunks import unpack
from dockage.wire.frames import read_frame, write_frame

CONTENT = b"layer" * 1000
DIGEST = hashlib.sha256(CONTENT).digest()
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + DIGEST.hex()]}}).encode()
IMAGE = Manifest(CONFIG, (Layer(DIGEST, len(CONTENT)),))


class Shelf:
    """An origin with one image."""

    async def manifest(self, reference: str) -> Manifest:
        return IMAGE

    def open(self, layer: Layer) -> IO[bytes]:
        return io.BytesIO(CONTENT)

    async def tidy(self) -> None: ...


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def rent(tenant: Peer, deployment: str, provider: Peer) -> LeaseId:
    wishes = read_wishes({"dockage.provider": provider.keys.node.hex()})
    return (await tenant.node.renting._rent(deployment, NEED, wishes, lambda _: None)).id


async def fetched(asker: Peer, source: Source) -> bytes:
    stream = await source_opener(asker.node.renting._open_stream)(source)
    try:
        await write_frame(stream, images.encode_reply(Wanted((Want(0, 0),))))
        return unpack(images.decode_chunk(await read_frame(stream, images.CHUNK_FRAME_MAX)))
    finally:
        stream.abort()


async def test_a_grant_opens_one_image_for_one_provider(world: World) -> None:
    first, second = await world.provider(1, FREE_POLICY), await world.provider(3, FREE_POLICY)
    thief = await world.provider(4, FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    here, there = await rent(tenant, "web", first), await rent(tenant, "web", second)
    other = await rent(tenant, "blog", second)
    seeds = Seeds(tenant.node.tenant, tenant.keys, world.clock)
    image = await ImageSender(Shelf()).send(lambda: tenant.node.renting.layers(here), "app")
    assert seeds.sources(there, image) == []
    seeds.holds(here, image)
    assert seeds.sources(here, image) == []
    assert seeds.sources(other, image) == [], "who else we rent from is nobody's business"
    [source] = seeds.sources(there, image)

    assert await fetched(second, source) == CONTENT
    assert first.node.reception.refused == {}
    with pytest.raises(DockageError):
        await fetched(thief, source)
    assert first.node.reception.refused == {"grant.other": 1}

    await tenant.node.renting.release(here)
    with pytest.raises(DockageError):
        await fetched(second, source)
    assert seeds.sources(there, image) == []


async def test_a_tenant_cannot_grant_what_another_rents(world: World) -> None:
    provider, second = await world.provider(1, FREE_POLICY), await world.provider(3, FREE_POLICY)
    victim = await world.tenant(2, coins=(), wallet=False)
    lease = await rent(victim, "web", provider)
    image = await ImageSender(Shelf()).send(lambda: victim.node.renting.layers(lease), "app")
    liar = await world.tenant(5, coins=(), wallet=False)
    theirs = Seeds(victim.node.tenant, liar.keys, world.clock)  # its own key under the victim's leases
    theirs.holds(lease, image)
    mine = await rent(victim, "web", second)
    [source] = theirs.sources(mine, image)
    with pytest.raises(DockageError):
        await fetched(second, source)
    assert provider.node.reception.refused == {"grant.other": 1}
