"""The same directory contract on a board in memory and on five real nodes over real links on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dockage.adapters.link import IrohLink
from dockage.testing.clock import ManualClock
from dockage.testing.directory import DirectoryContract, Market, MemoryDirectory
from dockage.testing.keys import MemoryKeys, verify
from market.world import MarketNode, enter, running


class TestMemoryDirectory(DirectoryContract):
    @pytest.fixture
    def market(self) -> Market:
        clock = ManualClock()
        board = MemoryDirectory(verify, clock)
        return Market([board, board, board], clock)


class TestKademliaDirectory(DirectoryContract):
    @pytest.fixture
    async def nodes(self) -> AsyncIterator[list[MarketNode]]:
        clock = ManualClock()
        keys = [MemoryKeys(number) for number in range(6)]
        links = [await IrohLink.create(each.seed) for each in keys]
        yield [
            MarketNode(key, link, clock, server=number < 5)
            for number, (key, link) in enumerate(zip(keys, links, strict=True))
        ]
        for link in links:
            await link.close()

    @pytest.fixture
    async def market(self, nodes: list[MarketNode]) -> AsyncIterator[Market]:
        """The sixth only asks: a tenant, or a provider behind a NAT."""
        async with running(nodes):
            await enter(nodes, nodes[:1])
            clock = nodes[0].directory._clock
            assert isinstance(clock, ManualClock)
            yield Market([node.directory for node in nodes], clock)
