from collections.abc import AsyncIterator

import pytest

from bitcoin.life import Life
from bitcoin.node import Node, RegtestWorld
from dockage.domain.units import Sat


@pytest.fixture
async def world(bitcoind: Node) -> AsyncIterator[RegtestWorld]:
    world = RegtestWorld(bitcoind)
    yield world
    await world.close()


@pytest.fixture
async def life(world: RegtestWorld) -> Life:
    """The tenant has a million satoshis, the provider none."""
    return Life(world, await world.wallet(Sat(1_000_000)), await world.wallet())
