"""The same link contract on the in-memory network and on two real endpoints on loopback."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockage.adapters.link import IrohLink
from dockage.domain.identity import NodeKey
from dockage.testing.link import LinkContract, MemoryNetwork, Pair
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


class TestIrohLink(LinkContract):
    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        limits = LinkLimits(heartbeat_sec=0.5)
        left, right = [await IrohLink.create(seed, limits=limits) for seed in SEEDS[:2]]
        left.learn(right.node, right.address())
        yield Pair(left, right, KEYS[2])
        await left.close()
        await right.close()
