"""The public market, where ids come from addresses: what a plain Kademlia lost in 0.26 s of mining."""

from __future__ import annotations

import hashlib
from random import Random

from dockage.domain.identity import NodeKey
from dockage.ports import Stream
from dockage.protocol.dht_messages import Find, Listing, Taken, decode_answer, encode
from dockage.protocol.kademlia import Contact, distance, places
from dockage.testing.clock import ManualClock
from dockage.testing.directory import sealed_offer
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork
from dockage.wire.frames import read_frame, write_frame
from market.world import MarketNode, enter, running


class PublicWorld:
    def __init__(self, size: int) -> None:
        self.clock, self.network, self.rand = ManualClock(), MemoryNetwork(), Random(size)
        self.nodes = [self.node(number, f"8.{number}.8.8:4711") for number in range(size)]

    def node(self, number: int, address: str, *, server: bool = True) -> MarketNode:
        keys = MemoryKeys(number)
        link = self.network.link(keys.node, address)
        return MarketNode(keys, link, self.clock, server=server, seen=link.seen)


def mined(place: bytes, count: int) -> list[int]:
    """Numbers of keys whose plain key hash lies nearest to *place*: an afternoon's work of an attacker."""
    plain = {
        n: hashlib.sha256(b"dockage/1/id\0" + MemoryKeys(n).node).digest() for n in range(10_000, 12_000)
    }
    return sorted(plain, key=lambda n: distance(plain[n], place))[:count]


async def test_it_works_for_honest_nodes() -> None:
    world = PublicWorld(20)
    client = world.node(500, "8.200.8.8:4711", server=False)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    async with running([*world.nodes, client]):
        await enter([*world.nodes, client], world.nodes[:1])
        assert await world.nodes[3].directory.publish(topic, blob) >= 16
        assert list(await client.directory.search(topic)) == [blob]


async def test_mined_keys_in_a_few_networks_eclipse_nothing() -> None:
    world = PublicWorld(30)
    client = world.node(500, "8.200.8.8:4711", server=False)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    numbers = {n for place in places(topic, world.clock.now()) for n in mined(place, 8)}
    evil = [world.node(n, f"9.9.{i % 3}.{i + 1}:4711") for i, n in enumerate(sorted(numbers))]
    friends = tuple(Contact(each.link.node, each.link.address().direct[0]) for each in evil)[:16]

    async def deny(peer: NodeKey, stream: Stream) -> None:
        frame = await read_frame(stream, 1 << 20)
        await write_frame(stream, encode(Taken((True,)) if b"put" in frame[:8] else Listing(friends)))
        await stream.finish()

    for node in evil:
        node.directory.serve_stream = deny  # type: ignore[method-assign, assignment]
    async with running([*world.nodes, *evil, client]):
        await enter([*world.nodes, *evil, client], world.nodes[:1])
        await world.nodes[3].directory.publish(topic, blob)
        assert sum(bool(node.directory.holds(topic)) for node in world.nodes) >= 8
        assert list(await client.directory.search(topic)) == [blob]


async def test_a_node_that_claims_another_network_is_nobodys_contact() -> None:
    world = PublicWorld(3)
    liar, claim = world.nodes[2], Contact(MemoryKeys(2).node, "5.5.5.5:4711")
    async with running(world.nodes):
        await enter(world.nodes[:2], world.nodes[:1])
        liar.link.learn(world.nodes[0].link.node, world.nodes[0].link.address())
        stream = await liar.open_stream(world.nodes[0].link.node)
        await write_frame(stream, encode(Find(claim, bytes(32))))
        await stream.finish()
        assert isinstance(decode_answer(await read_frame(stream, 1 << 20)), Listing)
        assert liar.link.node not in [key for key, _ in world.nodes[0].directory.contacts()]
