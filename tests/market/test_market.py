"""A market of many nodes on the in-memory network: losses, silence, and peers that lie in every message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random

import pytest

from dockage.adapters.dht import Limits
from dockage.adapters.dht.asker import ticks
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import MINUTE, SECOND, Duration, Instant
from dockage.ports.peers import Address, Stream
from dockage.protocol.dht_messages import Find, Get, Listing, Put, Taken, decode_answer, encode
from dockage.protocol.kademlia import Contact
from dockage.protocol.records import node_topic, offers_topics
from dockage.testing.clock import ManualClock
from dockage.testing.directory import sealed_offer
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryNetwork, serving
from dockage.wire.frames import read_frame, write_frame
from market.world import GENEROUS, MarketNode, enter, running

PATIENT = Limits(question_sec=3600, lookup_sec=3600, rate=100_000, burst=100_000)


class World:
    """*size* market nodes, all entered through the first; the last ones may be of another make."""

    def __init__(self, size: int, clients: int = 0, limits: Limits = GENEROUS) -> None:
        self.clock, self.network, self.rand = ManualClock(), MemoryNetwork(), Random(size)
        self.nodes = [self._node(number, server=True, limits=limits) for number in range(size)]
        self.clients = [self._node(size + number, server=False, limits=limits) for number in range(clients)]

    def _node(self, number: int, *, server: bool, limits: Limits) -> MarketNode:
        keys = MemoryKeys(number)
        return MarketNode(keys, self.network.link(keys.node), self.clock, server=server, limits=limits)

    @property
    def all(self) -> list[MarketNode]:
        return [*self.nodes, *self.clients]

    def holders(self, topic: bytes) -> int:
        return sum(bool(node.directory.holds(topic)) for node in self.nodes)


async def ask(node: MarketNode, peer: MarketNode, frame: bytes) -> object:
    """Send *frame* as a request, past all of our own code for requests."""
    stream = await node.open_stream(peer.link.node)
    await write_frame(stream, frame)
    await stream.finish()
    return decode_answer(await read_frame(stream, 1 << 20))


async def acquainted(world: World) -> None:
    await enter(world.all, world.nodes[:1])


async def test_records_survive_the_loss_of_a_third_of_the_nodes() -> None:
    world = World(40, clients=1)
    async with running(world.all):
        await acquainted(world)
        offers = [sealed_offer(MemoryKeys(1000 + n), world.clock.now()) for n in range(12)]
        for topic, blob in offers:
            assert await world.rand.choice(world.nodes).directory.publish(topic, blob) >= 16
        for node in world.rand.sample(world.nodes[1:], 12):
            await node.link.close()
        for topic, blob in offers:
            assert blob in await world.clients[0].directory.search(topic)


async def test_a_thousand_offers_are_listed() -> None:
    world = World(6, clients=1)
    async with running(world.all):
        await acquainted(world)
        expected = set()
        for number in range(1000):
            topic, blob = sealed_offer(MemoryKeys(2000 + number), world.clock.now())
            expected.add(blob)
            for node in world.rand.sample(world.nodes, 2):
                assert node.directory._node.store.put(topic, blob, world.clock.now())
        found = [await world.clients[0].directory.search(topic) for topic in offers_topics("eu")]
    assert {blob for listing in found for blob in listing} == expected


async def test_one_long_topic_is_read_page_by_page() -> None:
    world = World(3, clients=1)
    async with running(world.all):
        await acquainted(world)
        topic, blobs = offers_topics("eu")[0], set()
        number = 0
        while len(blobs) < 600:  # some 250 KiB: more than one page, less than the limit of a topic
            number += 1
            keys = MemoryKeys(5000 + number)
            if keys.node[0] % 8 == 0:
                blobs.add(sealed_offer(keys, world.clock.now())[1])
        for blob in blobs:
            world.nodes[1].directory._node.store.put(topic, blob, world.clock.now())
        first = await ask(world.clients[0], world.nodes[1], encode(Get(None, topic, topic, b"", b"")))
        assert isinstance(first, Listing)
        assert first.more
        assert set(await world.clients[0].directory.search(topic)) == blobs


async def test_stalled_nodes_do_not_hold_a_search_up() -> None:
    """With timeouts of an hour, only the lookup's own impatience can end it."""
    world = World(20, clients=1, limits=PATIENT)
    async with running(world.all):
        await acquainted(world)
        topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
        await world.nodes[0].directory.publish(topic, blob)

        async def stall(peer: NodeKey, stream: Stream) -> None:
            await asyncio.sleep(3600)

        for node in world.nodes[10:16]:
            node.directory.serve_stream = stall  # type: ignore[method-assign, assignment]
        async with asyncio.timeout(60):
            assert list(await world.clients[0].directory.search(topic)) == [blob]


@pytest.mark.parametrize("share", [4, 10])
async def test_nodes_that_deny_everything_do_not_hide_a_record(share: int) -> None:
    """They claim to store, hold nothing, and name only each other."""
    world = World(20, clients=1)
    hostile = world.rand.sample(world.nodes[1:], share)
    friends = tuple(Contact(each.link.node, each.link.address().direct[0]) for each in hostile)[:16]

    async def deny(peer: NodeKey, stream: Stream) -> None:
        frame = await read_frame(stream, 1 << 20)
        await write_frame(stream, encode(Taken((True,)) if b"put" in frame[:8] else Listing(friends)))
        await stream.finish()

    async with running(world.all):
        for node in hostile:
            node.directory.serve_stream = deny  # type: ignore[method-assign, assignment]
        await acquainted(world)
        offers = [sealed_offer(MemoryKeys(1000 + n), world.clock.now()) for n in range(8)]
        honest = [node for node in world.nodes if node not in hostile]
        for topic, blob in offers:
            await world.rand.choice(honest).directory.publish(topic, blob)
        for topic, blob in offers:
            assert blob in await world.clients[0].directory.search(topic)


async def test_lies_are_stored_nowhere_and_counted() -> None:
    world = World(5)
    now, keys = world.clock.now(), MemoryKeys(77)
    topic, good = sealed_offer(keys, now)
    _, brief = sealed_offer(keys, Instant(now - 19 * MINUTE - 50 * SECOND))
    lies = {
        "record.signature": (topic, good.replace(b"x86_64", b"x86_65")),
        "record.malformed": (topic, b"garbage"),
        "record.misplaced": (node_topic(keys.node), good),
        "record.oversized": (topic, bytes(2049)),
        "record.expired": (topic, brief),
    }
    async with running(world.nodes):
        await acquainted(world)
        world.clock.pass_(Duration(15 * SECOND))
        for code, (where, blob) in lies.items():
            for node in world.nodes[1:]:
                answer = await ask(world.nodes[0], node, encode(Put(None, where, (blob,))))
                assert answer == Taken((False,))
                assert node.directory.refused[code] == 1
    assert all(len(node.directory._node.store) == 0 for node in world.nodes)


async def test_a_replayed_record_does_not_displace_its_successor() -> None:
    world = World(5)
    now, keys = world.clock.now(), MemoryKeys(77)
    topic, old = sealed_offer(keys, now, cpu=1000)
    _, new = sealed_offer(keys, Instant(now + SECOND), cpu=2000)
    async with running(world.nodes):
        await acquainted(world)
        await world.nodes[0].directory.publish(topic, new)
        for node in world.nodes[1:]:
            assert await ask(world.nodes[0], node, encode(Put(None, topic, (old,)))) == Taken((False,))
        assert list(await world.nodes[3].directory.search(topic)) == [new]


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93\xa4find\xc0", bytes(1 << 19)])
async def test_garbage_ends_its_stream_and_nothing_else(frame: bytes) -> None:
    world = World(2)
    async with running(world.nodes):
        await acquainted(world)
        with pytest.raises(Unavailable):
            await ask(world.nodes[0], world.nodes[1], frame)
        assert world.nodes[1].directory.refused.total() == 1
        assert isinstance(await ask(world.nodes[0], world.nodes[1], encode(Find(None, bytes(32)))), Listing)


async def test_nobody_speaks_in_anothers_name() -> None:
    world = World(3)
    victim = Contact(MemoryKeys(99).node, "127.0.0.1:9")
    async with running(world.nodes):
        await acquainted(world)
        with pytest.raises(Unavailable):
            await ask(world.nodes[0], world.nodes[1], encode(Find(victim, bytes(32))))
        assert world.nodes[1].directory.refused["dht.impostor"] == 1
        assert victim.key not in [key for key, _ in world.nodes[1].directory.contacts()]


async def test_a_flood_is_cut_off() -> None:
    world = World(2, limits=Limits(rate=1, burst=20))
    async with running(world.nodes):
        await acquainted(world)
        while not world.nodes[1].directory.refused["dht.flood"]:
            with suppress(Unavailable):
                await ask(world.nodes[0], world.nodes[1], encode(Find(None, bytes(32))))
        answer = await ask(world.nodes[1], world.nodes[0], encode(Find(None, bytes(32))))
        assert isinstance(answer, Listing), "others are answered as before"


async def test_a_holder_that_shows_forged_records_is_not_read_on() -> None:
    world = World(4, clients=1)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    _, other = sealed_offer(MemoryKeys(2), world.clock.now())

    async def forge(peer: NodeKey, stream: Stream) -> None:
        await read_frame(stream, 1 << 20)
        await write_frame(stream, encode(Listing((), (other.replace(b"x86_64", b"x86_65"),))))
        await stream.finish()

    async with running(world.all):
        await acquainted(world)
        await world.nodes[0].directory.publish(topic, blob)
        world.nodes[2].directory.serve_stream = forge  # type: ignore[method-assign, assignment]
        client = world.clients[0].directory
        assert list(await client.search(topic)) == [blob]
        assert client.refused["record.signature"] >= 1
        assert world.nodes[2].link.node not in [key for key, _ in client.contacts()]


async def test_those_who_only_ask_are_nobodys_contact() -> None:
    world = World(4, clients=2)
    async with running(world.all):
        await acquainted(world)
        known = {key for node in world.all for key, _ in node.directory.contacts()}
        assert known == {node.link.node for node in world.nodes}
        world.nodes[0].link.learn(world.clients[0].link.node, world.clients[0].link.address())
        with pytest.raises(Unavailable):
            await ask(world.nodes[0], world.clients[0], encode(Find(None, bytes(32))))


async def test_without_a_market_a_tenant_is_told_so() -> None:
    world = World(0, clients=1)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    directory = world.clients[0].directory
    assert await directory.bootstrap([(MemoryKeys(50).node, Address("", ("127.0.0.1:9",)))]) == 0
    for attempt in (directory.search(topic), directory.publish(topic, blob)):
        with pytest.raises(Unavailable) as caught:
            await attempt
        assert caught.value.code == "market.unreachable"


async def test_a_lone_market_node_is_a_market() -> None:
    world = World(1, clients=1)
    topic, blob = sealed_offer(world.nodes[0].keys, world.clock.now())
    async with running(world.all):
        assert await world.nodes[0].directory.publish(topic, blob) == 1
        await enter(world.clients, world.nodes)
        assert list(await world.clients[0].directory.search(topic)) == [blob]


async def test_what_is_published_before_midnight_is_found_after() -> None:
    world = World(40, clients=1)
    day = 24 * 60 * MINUTE
    world.clock.pass_(Duration(day - world.clock.now() % day - MINUTE))
    async with running(world.all):
        await acquainted(world)
        topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
        await world.nodes[0].directory.publish(topic, blob)
        world.clock.pass_(Duration(2 * MINUTE))
        assert list(await world.clients[0].directory.search(topic)) == [blob]


async def test_run_finds_the_market_again_when_all_contacts_were_lost() -> None:
    quick = Limits(upkeep_sec=0.02, rate=100_000, burst=100_000)
    world = World(3, clients=1, limits=quick)
    client = world.clients[0]
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    async with serving(client.link, client.dispatch):
        seeds: Sequence[tuple[NodeKey, Address]] = [(n.link.node, n.link.address()) for n in world.nodes[:1]]
        client.directory._asker._limits = Limits(question_sec=0.05)
        assert await client.directory.bootstrap(seeds) == 0  # nobody serves yet
        async with running(world.nodes):
            await enter(world.nodes, world.nodes[:1])
            await world.nodes[0].directory.publish(topic, blob)
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
                runner = tasks.create_task(client.directory.run())
                while not client.directory.contacts():  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.01)
                runner.cancel()
            assert list(await client.directory.search(topic)) == [blob]


async def test_a_search_finds_the_market_again_when_all_contacts_were_given_up() -> None:
    world = World(3, clients=1)
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    async with running(world.all):
        await acquainted(world)
        await world.nodes[0].directory.publish(topic, blob)
        directory = world.clients[0].directory
        for node in world.nodes:
            directory._node.blame(node.link.node, "test.gone", ticks())
        assert directory.contacts() == []
        assert list(await directory.search(topic)) == [blob]


async def test_run_forgets_what_is_over() -> None:
    world = World(1, limits=Limits(upkeep_sec=0.01))
    topic, blob = sealed_offer(MemoryKeys(1), world.clock.now())
    directory = world.nodes[0].directory
    await directory.publish(topic, blob)
    world.clock.pass_(Duration(30 * MINUTE))
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        runner = tasks.create_task(directory.run())
        while len(directory._node.store):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
        runner.cancel()
