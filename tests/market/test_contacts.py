"""A node that knew the market once finds it again after a restart, though its seeds are gone."""

from __future__ import annotations

from dockage.adapters.dht.asker import ticks
from dockage.daemon.contacts import Contacts
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.testing.clock import ManualClock
from dockage.testing.journal import MemoryJournal
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork
from market.world import MarketNode, enter, running

Seed = tuple[NodeKey, Address]


class World:
    def __init__(self, size: int) -> None:
        self.clock, self.network, self.journal = ManualClock(), MemoryNetwork(), MemoryJournal()
        self.nodes = [self.node(number) for number in range(size)]

    def node(self, number: int, *, server: bool = True) -> MarketNode:
        keys = MemoryKeys(number)
        return MarketNode(keys, self.network.link(keys.node), self.clock, server=server)

    def seed(self, number: int) -> Seed:
        return self.nodes[number].link.node, self.nodes[number].link.address()

    def contacts(self, of: MarketNode, *seeds: Seed) -> Contacts:
        board = of.directory
        return Contacts(
            list(self.journal.load()),
            self.journal,
            self.clock,
            board.bootstrap,
            board.contacts,
            seeds,
            bound=False,
        )


async def test_after_a_restart_the_market_is_found_without_its_seed() -> None:
    world = World(6)
    client = world.node(99, server=False)
    async with running([*world.nodes, client]):
        await enter(world.nodes, world.nodes[:1])
        contacts = world.contacts(client, world.seed(0))
        assert await contacts.enter("config") == 6
        await contacts.remember()
        await world.nodes[0].link.close()
        await client.link.close()
    again = world.node(98, server=False)
    async with running([*world.nodes[1:], again]):
        assert await world.contacts(again, world.seed(0)).enter("book") == 5


async def test_what_a_finder_tells_is_tried_and_only_what_answers_is_kept() -> None:
    world = World(3)
    client = world.node(99, server=False)
    invented = [(MemoryKeys(500 + n).node, Address("", (f"127.0.0.1:{9000 + n}",))) for n in range(20)]
    async with running([*world.nodes, client]):
        await enter(world.nodes, world.nodes[:1])
        contacts = world.contacts(client)
        assert await contacts.enter("config") == 0
        assert await contacts.found([*invented, world.seed(1)], "lan") == 3
        kept = world.contacts(world.node(98, server=False))
        assert {each.key for each in kept._book.best(99)} == {node.link.node for node in world.nodes}


async def test_a_finder_that_tells_lies_without_end_pushes_out_no_seed() -> None:
    world = World(1)
    client = world.node(99, server=False)
    async with running([*world.nodes, client]):
        contacts = world.contacts(client, world.seed(0))
        assert await contacts.enter("config") == 1
        for block in range(10):
            lies = [
                (MemoryKeys(1000 + block * 10 + n).node, Address("", ("127.0.0.1:9",))) for n in range(10)
            ]
            await contacts.found(lies, "mainline")
        client.directory._node.blame(world.nodes[0].link.node, "test.gone", ticks())
        assert not client.directory.contacts()
        assert await contacts.found([], "mainline") == 0
        await client.directory._enter()
        assert [key for key, _ in client.directory.contacts()] == [world.nodes[0].link.node]
