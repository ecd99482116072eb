"""The public market, where ids come from addresses: what a plain Kademlia lost in 0.26 s of mining."""

from __future__ import annotations

from functools import cache

import pytest

from dockage.domain.identity import NodeKey
from dockage.ports.peers import Stream
from dockage.protocol.dht_messages import (
    Answer,
    Find,
    Listing,
    Put,
    Taken,
    decode_answer,
    decode_request,
    encode,
)
from dockage.protocol.kademlia import Contact, Space, distance, nearest, places
from dockage.testing.clock import ManualClock
from dockage.testing.directory import sealed_offer
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork
from dockage.wire.frames import read_frame, write_frame
from market.world import MarketNode, enter, running


class World:
    def __init__(self, size: int, *, bound: bool = True) -> None:
        self.clock, self.network, self._bound = ManualClock(), MemoryNetwork(), bound
        self.nodes = [self.node(number, f"8.{number}.8.8:4711") for number in range(size)]

    def node(self, number: int, address: str, *, server: bool = True) -> MarketNode:
        keys = MemoryKeys(number)
        link = self.network.link(keys.node, address)
        return MarketNode(keys, link, self.clock, server=server, seen=link.seen if self._bound else None)


@cache
def pool() -> dict[int, bytes]:
    """Key numbers and their plain ids: seconds of an attacker's work."""
    return {n: Space(bound=False).id(Contact(MemoryKeys(n).node, "")) for n in range(10_000, 13_000)}


def mined(place: bytes) -> list[int]:
    """Sixteen keys whose plain ids are nearer to *place* than those of all honest nodes together."""
    return sorted(pool(), key=lambda n: distance(pool()[n], place))[:16]


async def test_it_works_for_honest_nodes() -> None:
    world = World(20)
    client = world.node(500, "8.200.8.8:4711", server=False)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    async with running([*world.nodes, client]):
        await enter([*world.nodes, client], world.nodes[:1])
        assert await world.nodes[3].directory.publish(topic, blob) >= 16
        assert list(await client.directory.search(topic)) == [blob]


@pytest.mark.parametrize("bound", [True, False])
async def test_mined_keys_around_a_place_hide_nothing(bound: bool) -> None:
    """Bound ids cannot be mined; and where they can be, a place is its whole region and not the sixteen nearest.
    How many more it takes is measured in the simulator (tests/sim/test_directory.py)."""
    world = World(30, bound=bound)
    client = world.node(500, "8.200.8.8:4711", server=False)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    numbers = {n for place in places(topic, world.clock.now()) for n in mined(place)}
    evil = [world.node(n, f"9.9.{i % 3}.{i + 1}:4711") for i, n in enumerate(sorted(numbers))]
    friends = [Contact(each.link.node, each.link.address().direct[0]) for each in evil]

    async def deny(peer: NodeKey, stream: Stream) -> None:
        request = decode_request(await read_frame(stream, 1 << 20))
        if isinstance(request, Put):
            answer: Answer = Taken((True,))
        else:
            answer = Listing(tuple(nearest(request.target, friends, Space(bound=False))))
        await write_frame(stream, encode(answer))
        await stream.finish()

    for node in evil:
        node.directory.serve_stream = deny  # type: ignore[method-assign]
    async with running([*world.nodes, *evil, client]):
        await enter([*world.nodes, *evil, client], world.nodes[:1])
        await world.nodes[3].directory.publish(topic, blob)
        honest = sum(bool(node.directory.holds(topic)) for node in world.nodes)
        found = list(await client.directory.search(topic))
    assert honest >= 10
    assert found == [blob]


async def test_a_node_that_claims_another_network_is_nobodys_contact() -> None:
    world = World(3)
    liar, claim = world.nodes[2], Contact(MemoryKeys(2).node, "5.5.5.5:4711")
    async with running(world.nodes):
        await enter(world.nodes[:2], world.nodes[:1])
        liar.link.learn(world.nodes[0].link.node, world.nodes[0].link.address())
        stream = await liar.open_stream(world.nodes[0].link.node)
        await write_frame(stream, encode(Find(claim, bytes(32))))
        await stream.finish()
        assert isinstance(decode_answer(await read_frame(stream, 1 << 20)), Listing)
        assert liar.link.node not in [key for key, _ in world.nodes[0].directory.contacts()]
