"""The same link contract on the in-memory network, on two real endpoints on loopback, and on streams in bundles."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockage.adapters.link import IrohLink
from dockage.daemon.bundles import Bundles
from dockage.daemon.tasks import Jobs
from dockage.domain.identity import NodeKey
from dockage.ports.peers import AcceptStream, Stream
from dockage.protocol.streams import HEADER_MAX
from dockage.testing.link import LinkContract, MemoryLink, MemoryNetwork, Pair, call, echo, refuse, serving
from dockage.wire.bundle import Budget, Bundle
from dockage.wire.frames import read_frame
from dockage.wire.limits import LinkLimits

SEEDS = [hashlib.sha256(b"link %d" % number).digest() for number in range(3)]
KEYS = [NodeKey(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()) for seed in SEEDS]


class TestMemoryLink(LinkContract):
    @pytest.fixture
    async def pair(self) -> Pair:
        network = MemoryNetwork()
        left, right = network.link(KEYS[0]), network.link(KEYS[1])
        left.learn(right.node, right.address())
        return Pair(left, right, KEYS[2])


class BundledLink(MemoryLink):
    """Every stream that it opens is one of a bundle; ``serve`` takes them apart."""

    async def serve(self, accept: AcceptStream) -> None:
        async def unbundle(peer: NodeKey, stream: Stream) -> None:
            await read_frame(stream, HEADER_MAX)
            await Bundle(stream, Budget(1 << 26), lambda inner: accept(peer, inner)).run()

        async with asyncio.TaskGroup() as tasks:
            jobs = Jobs()
            self._bundles = Bundles(self._begin, self.current, jobs)
            tasks.create_task(jobs.run())
            await super().serve(unbundle)

    begun = 0
    """Streams of the link itself."""

    async def _begin(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        self.begun += 1
        return await super().open(peer, timeout)

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        await asyncio.sleep(0)  # ``serve`` has begun
        return await self._bundles.open(peer, timeout)


class TestBundles(LinkContract):
    @pytest.fixture
    async def pair(self) -> Pair:
        network = MemoryNetwork()
        left, right = (
            BundledLink(network, key, f"127.0.0.1:{port}") for port, key in enumerate(KEYS[:2], 1001)
        )
        for link in (left, right):
            network.links[link.node] = link
        left.learn(right.node, right.address())
        return Pair(left, right, KEYS[2])

    async def test_calls_one_after_the_other_share_a_bundle(self, pair: Pair) -> None:
        taken = list[Stream]()

        async def note(peer: NodeKey, stream: Stream) -> None:
            taken.append(stream)
            await echo(peer, stream)

        left = pair.left
        assert isinstance(left, BundledLink)
        async with serving(left, refuse), serving(pair.right, note):
            for _ in range(20):
                await call(left, pair.right.node, b"hello")
            assert left.begun == 1
            left.connected[pair.right.node] = object()
            await call(left, pair.right.node, b"over the connection that there is now")
            assert left.begun == 2
        assert len(taken) == 21


class TestIrohLink(LinkContract):
    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        limits = LinkLimits(heartbeat_sec=0.5)
        left, right = [await IrohLink.create(seed, limits=limits) for seed in SEEDS[:2]]
        left.learn(right.node, right.address())
        yield Pair(left, right, KEYS[2])
        await left.close()
        await right.close()
