"""Messages keep their order; what cannot be sent is bounded and costs nobody else anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dockage.daemon.peers import Postman
from dockage.daemon.tasks import Jobs
from dockage.domain.identity import LeaseId, NodeKey
from dockage.ports.peers import Stream
from dockage.protocol import messages as say
from dockage.testing.keys import MemoryKeys
from dockage.testing.link import MemoryLink, MemoryNetwork
from dockage.wire.frames import next_frame, read_frame
from dockage.wire.limits import PEERS


class Bench:
    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.keys = MemoryKeys(1)
        self.link = self.network.link(self.keys.node)
        self.jobs = Jobs()
        self.opened: list[NodeKey] = []
        self.postman = Postman(self.open, self.keys, self.jobs)

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        self.opened.append(peer)
        return await self.link.open(peer, timeout)

    def send(self, peer: NodeKey, number: int) -> None:
        self.postman.send(peer, say.AskLease(LeaseId(number.to_bytes(16, "big"))))


class Reader:
    """A peer that notes what it gets; ``deaf`` reads nothing."""

    def __init__(self, bench: Bench, number: int, *, deaf: bool = False) -> None:
        self.keys, self.deaf = MemoryKeys(number), deaf
        self.link: MemoryLink = bench.network.link(self.keys.node)
        bench.link.learn(self.keys.node, self.link.address())
        self.got: list[int] = []

    async def take(self, _: NodeKey, stream: Stream) -> None:
        if self.deaf:
            await asyncio.sleep(3600)
        await read_frame(stream, 512)
        while (frame := await next_frame(stream, say.MESSAGE_MAX)) is not None:
            message: Any = say.decode_envelope(frame)[0]
            self.got.append(int.from_bytes(message.lease, "big"))

    async def serve(self) -> None:
        await self.link.serve(self.take)


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[None]]]:
    started: list[asyncio.Task[None]] = []
    yield started
    for task in started:
        task.cancel()
    await asyncio.gather(*started, return_exceptions=True)


@pytest.fixture
async def bench(tasks: list[asyncio.Task[None]]) -> Bench:
    bench = Bench()
    tasks.append(asyncio.get_running_loop().create_task(bench.jobs.run()))
    await asyncio.sleep(0)
    return bench


def reader(bench: Bench, tasks: list[asyncio.Task[None]], number: int, **how: Any) -> Reader:
    peer = Reader(bench, number, **how)
    tasks.append(asyncio.get_running_loop().create_task(peer.serve()))
    return peer


async def test_messages_keep_their_order_on_one_stream(bench: Bench, tasks: Any) -> None:
    peer = reader(bench, tasks, 2)
    for number in range(100):
        bench.send(peer.keys.node, number)
        if number % 10 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert peer.got == list(range(100))
    assert len(bench.opened) == 1


async def test_a_message_between_the_last_one_and_the_end_of_its_delivery_is_not_lost(
    bench: Bench, tasks: Any
) -> None:
    peer = reader(bench, tasks, 2)
    for number in range(50):
        bench.send(peer.keys.node, number)
        for _ in range(number % 7):
            await asyncio.sleep(0)
    await asyncio.sleep(1)
    assert peer.got == list(range(50))


async def test_of_what_waits_too_long_the_oldest_goes(bench: Bench, tasks: Any) -> None:
    peer = reader(bench, tasks, 2)
    for number in range(PEERS.outbox + 50):
        bench.send(peer.keys.node, number)
    await asyncio.sleep(1)
    assert peer.got == list(range(50, PEERS.outbox + 50))


async def test_the_stream_is_opened_again_after_the_connection_broke(bench: Bench, tasks: Any) -> None:
    peer = reader(bench, tasks, 2)
    bench.send(peer.keys.node, 1)
    await asyncio.sleep(1)
    bench.network.cut(bench.keys.node, peer.keys.node)
    bench.send(peer.keys.node, 2)
    await asyncio.sleep(1)
    bench.send(peer.keys.node, 3)
    await asyncio.sleep(1)
    assert peer.got == [1, 2, 3]
    assert len(bench.opened) == 2


async def test_a_peer_that_reads_nothing_is_dropped_and_nobody_else_waits(bench: Bench, tasks: Any) -> None:
    deaf, honest = reader(bench, tasks, 2, deaf=True), reader(bench, tasks, 3)
    body = b"x" * 400
    for _ in range(PEERS.outbox):
        bench.postman.send(deaf.keys.node, say.Refusal(bytes(16), say.Reason("a.b", body.decode())))
    bench.send(honest.keys.node, 1)
    await asyncio.sleep(1)
    assert honest.got == [1]
    await asyncio.sleep(PEERS.send_sec + 1)
    assert deaf.keys.node not in bench.postman._outboxes
    assert deaf.keys.node not in bench.postman._streams


async def test_what_is_for_a_peer_out_of_reach_goes_with_the_outbox_and_later_messages_arrive(
    bench: Bench, tasks: Any
) -> None:
    keys = MemoryKeys(9)
    bench.send(keys.node, 1)
    await asyncio.sleep(1)
    assert not bench.postman._outboxes
    peer = reader(bench, tasks, 9)
    bench.send(keys.node, 2)
    await asyncio.sleep(1)
    assert peer.got == [2]


async def test_silent_peers_cannot_take_all_the_jobs(bench: Bench, tasks: Any) -> None:
    async def never(peer: NodeKey, timeout: float = 10.0) -> Stream:
        await asyncio.sleep(3600)
        raise AssertionError

    honest = reader(bench, tasks, 3)
    postman = Postman(never, bench.keys, bench.jobs)
    for number in range(PEERS.sending + 100):
        postman.send(NodeKey(number.to_bytes(32, "big")), say.AskLease(LeaseId(bytes(16))))
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    assert bench.jobs.start(work, "settle")
    bench.send(honest.keys.node, 1)
    await asyncio.sleep(1)
    assert done.is_set()
    assert honest.got == [1]
    await asyncio.sleep(PEERS.send_sec + 1)
    assert not postman._outboxes


async def test_a_peer_whose_delivery_could_not_begin_is_not_mute_for_ever(tasks: Any) -> None:
    bench = Bench()
    bench.jobs._limit = 0
    peer = Reader(bench, 2)
    bench.send(peer.keys.node, 1)
    assert not bench.postman._outboxes
    bench.jobs._limit = 10
    tasks.append(asyncio.get_running_loop().create_task(bench.jobs.run()))
    tasks.append(asyncio.get_running_loop().create_task(peer.serve()))
    bench.send(peer.keys.node, 2)
    await asyncio.sleep(1)
    assert peer.got == [2]


async def test_streams_to_peers_are_bounded(bench: Bench, tasks: Any) -> None:
    class Sink:
        aborted = False

        async def write(self, data: bytes) -> None: ...

        def abort(self) -> None:
            self.aborted = True

    sinks: list[Any] = []

    async def open_sink(peer: NodeKey, timeout: float = 10.0) -> Any:
        sinks.append(Sink())
        return sinks[-1]

    postman = Postman(open_sink, bench.keys, bench.jobs)
    for number in range(PEERS.streams + 3):
        postman.send(NodeKey(number.to_bytes(32, "big")), say.AskLease(LeaseId(bytes(16))))
        await asyncio.sleep(0.01)
    assert [sink.aborted for sink in sinks] == [True] * 3 + [False] * PEERS.streams
