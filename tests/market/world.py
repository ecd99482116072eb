"""Market nodes on a link network, wired as the daemon wires them: an opening frame says what a stream is for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

from dockage.adapters.dht import KademliaDirectory, Limits
from dockage.domain.identity import NodeKey
from dockage.ports.machine import Clock
from dockage.ports.peers import PeerLink, Stream
from dockage.testing.keys import MemoryKeys
from dockage.wire.frames import read_frame, write_frame

GENEROUS = Limits(rate=100_000, burst=100_000)
"""One test process stands for many peers."""


class MarketNode:
    def __init__(
        self,
        keys: MemoryKeys,
        link: PeerLink,
        clock: Clock,
        *,
        server: bool = True,
        seen: Callable[[NodeKey], str] | None = None,
        limits: Limits = GENEROUS,
    ) -> None:
        """With *seen* the market is a public one: ids are bound to addresses."""
        self.keys, self.link = keys, link
        self.directory = KademliaDirectory(
            node=link.node,
            verify=keys.verify,
            clock=clock,
            open_stream=self.open_stream,
            learn=link.learn,
            address=link.address,
            rand=Random(int.from_bytes(keys.seed[:4], "big")),
            server=server,
            bound=seen is not None,
            seen=seen or (lambda _: ""),
            limits=limits,
        )

    async def open_stream(self, peer: NodeKey) -> Stream:
        stream = await self.link.open(peer, timeout=2)
        await write_frame(stream, b"dht")
        return stream

    async def dispatch(self, peer: NodeKey, stream: Stream) -> None:
        assert await read_frame(stream, 64) == b"dht"
        await self.directory.serve_stream(peer, stream)


async def enter(nodes: Sequence[MarketNode], through: Sequence[MarketNode]) -> None:
    """All of *nodes* join the market through *through*."""
    seeds = [(seed.link.node, seed.link.address()) for seed in through]
    for node in nodes:
        await node.directory.bootstrap(seeds)


@asynccontextmanager
async def running(nodes: Sequence[MarketNode]) -> AsyncIterator[None]:
    """Serve on all links; one task group, so that a failure inside is shown once."""
    async with asyncio.TaskGroup() as tasks:
        serving = [tasks.create_task(node.link.serve(node.dispatch)) for node in nodes]
        try:
            yield
        finally:
            for task in serving:
                task.cancel()
