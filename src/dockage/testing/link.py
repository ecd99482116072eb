"""An in-memory network of peer links, and the contract that it and the real link both keep.

``MemoryNetwork`` imitates what QUIC does and callers trip over: a stream reaches the other side only once
something was written; a lost connection is an error, never an end of file; nothing is buffered without bound.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple
from weakref import WeakSet

import pytest

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.ports.peers import AcceptStream, Address, PeerLink, Stream
from dockage.wire.frames import read_exactly
from dockage.wire.quick import Sink

WINDOW = 1 << 16
"""Bytes a writer may be ahead of its reader."""
BACKLOG = 1024
"""Streams that wait to be accepted at one link."""


class Pipe:
    """One direction of a stream."""

    def __init__(self, ends: frozenset[NodeKey]) -> None:
        self.ends = ends
        self.finished = False
        self._broken = self._unwanted = False
        self._buffer = bytearray()
        self._changed = asyncio.Event()
        self.sink: Sink | None = None

    async def read(self, limit: int) -> bytes:
        await self._until(lambda: bool(self._buffer) or self.finished)
        piece = bytes(self._buffer[:limit])
        del self._buffer[: len(piece)]
        self._changed.set()
        return piece

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), WINDOW):
            await self._until(lambda: len(self._buffer) < WINDOW)
            if self.finished:
                raise Unavailable("stream.broken", "this stream was already finished by us")
            self._take(data[start : start + WINDOW])

    def offer(self, data: bytes) -> bool:
        if self._broken or self._unwanted or self.finished or len(self._buffer) >= WINDOW:
            return False
        self._take(data)
        return True

    @property
    def holds(self) -> bool:
        """Something unread, or nothing more."""
        return bool(self._buffer) or self.finished or self._broken or self._unwanted

    def _take(self, data: bytes) -> None:
        if self.sink is not None and not self._buffer:
            if self.sink(data):
                return
            self.sink = None
        self._buffer += data
        self._changed.set()

    def finish(self) -> None:
        if self._broken or self._unwanted:
            raise Unavailable("stream.broken", "the stream to the peer broke")
        self.finished = True
        self._over()

    def break_(self) -> None:
        self._broken = True
        self._over()

    def stop(self) -> None:
        """The reader wants no more: whoever writes or reads here learns it."""
        self._unwanted = True
        self._over()

    def _over(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            sink(b"")
        self._changed.set()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while True:
            if self._broken or self._unwanted:
                raise Unavailable("stream.broken", "the stream to the peer broke")
            if ready():
                return
            self._changed.clear()  # safe with two waiters: set() wakes both before either clears again
            await self._changed.wait()


class MemoryStream:
    """A Stream; its other end is another one with the pipes swapped."""

    def __init__(self, inward: Pipe, outward: Pipe, start: Callable[[], None]) -> None:
        self._in, self._out, self._start = inward, outward, start

    @property
    def sink(self) -> Sink | None:
        return self._in.sink

    @sink.setter
    def sink(self, sink: Sink | None) -> None:
        self._in.sink = sink

    @property
    def is_quiet(self) -> bool:
        return not self._in.holds

    def offer(self, data: bytes) -> bool:
        self._start()
        return self.is_quiet and self._out.offer(data)

    async def read(self, limit: int) -> bytes:
        return await self._in.read(limit)

    async def write(self, data: bytes) -> None:
        self._start()
        await self._out.write(data)

    async def finish(self) -> None:
        self._start()
        self._out.finish()

    def abort(self) -> None:
        self._in.stop()
        if not self._out.finished:
            self._out.break_()


class MemoryLink:
    """A PeerLink; made by ``MemoryNetwork.link``."""

    def __init__(self, network: MemoryNetwork, node: NodeKey, address: str) -> None:
        self._network, self._node, self._address = network, node, address
        self._addresses: dict[NodeKey, Address] = {}
        self.incoming: asyncio.Queue[tuple[NodeKey, MemoryStream] | None] = asyncio.Queue(BACKLOG)
        self.connected: dict[NodeKey, object] = {}

    @property
    def node(self) -> NodeKey:
        return self._node

    def address(self) -> Address:
        return Address("", (self._address,))

    def learn(self, peer: NodeKey, address: Address) -> None:
        self._addresses[peer] = address

    def seen(self, peer: NodeKey) -> str:
        return self._network.links[peer].address().direct[0] if peer in self.connected else ""

    def current(self, peer: NodeKey) -> object | None:
        return self.connected.get(peer)

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        return self._network.connect(self, peer, self._addresses.get(peer))

    async def serve(self, accept: AcceptStream) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (arrived := await self.incoming.get()) is not None:
                tasks.create_task(self._handle(accept, *arrived))

    async def _handle(self, accept: AcceptStream, peer: NodeKey, stream: MemoryStream) -> None:
        """As the real link does: a failed call ends with its stream, a breach with the connection."""
        try:
            await accept(peer, stream)
        except PeerError:
            self._network.cut(self._node, peer)
        except DockageError:
            pass
        finally:
            stream.abort()

    async def close(self) -> None:
        self._network.vanish(self._node)


class MemoryNetwork:
    """Everybody reaches everybody whose address they know or who is connected to them, until it vanishes."""

    def __init__(self) -> None:
        self.links: dict[NodeKey, MemoryLink] = {}
        self._pipes: WeakSet[Pipe] = WeakSet()
        self._ports = iter(range(1001, 65000))

    def link(self, node: NodeKey, address: str = "") -> MemoryLink:
        """*address* is any ``ip:port`` that nobody else has; by default one on loopback."""
        self.links[node] = MemoryLink(self, node, address or f"127.0.0.1:{next(self._ports)}")
        return self.links[node]

    def connect(self, caller: MemoryLink, peer: NodeKey, address: Address | None) -> MemoryStream:
        there = self.links.get(peer)
        known = peer in caller.connected or (
            address and there and there.address().direct[0] in address.direct
        )
        if there is None or not known or caller.node not in self.links or there.incoming.full():
            raise Unavailable("peer.unreachable", f"peer {short(peer)} cannot be reached")
        caller.connected.setdefault(peer, object())
        there.connected.setdefault(caller.node, object())
        return self._stream(caller.node, there)

    def _stream(self, caller: NodeKey, there: MemoryLink) -> MemoryStream:
        up, down = (Pipe(frozenset((caller, there.node))) for _ in range(2))
        self._pipes.update((up, down))
        far = MemoryStream(up, down, lambda: None)
        unseen = [far]

        def start() -> None:
            if unseen and not there.incoming.full():
                there.incoming.put_nowait((caller, unseen.pop()))

        return MemoryStream(down, up, start)

    def cut(self, one: NodeKey, other: NodeKey) -> None:
        """Their connection ends with all its streams; who knows the other's address may dial again."""
        for node, peer in ((one, other), (other, one)):
            if node in self.links:
                self.links[node].connected.pop(peer, None)
        for pipe in tuple(self._pipes):
            if pipe.ends == {one, other}:
                pipe.break_()

    def vanish(self, node: NodeKey) -> None:
        """The node is gone without a word. Its peers notice at once: as if their heartbeats had run out."""
        link = self.links.pop(node, None)
        for other in self.links.values():
            other.connected.pop(node, None)
        for pipe in tuple(self._pipes):
            if node in pipe.ends:
                pipe.break_()
        if link is not None and not link.incoming.full():
            link.incoming.put_nowait(None)


# -- the contract --------------------------------------------------------------------------------------
@asynccontextmanager
async def serving(link: PeerLink, accept: AcceptStream) -> AsyncIterator[None]:
    """Run ``link.serve`` around a block."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.serve(accept))
        try:
            yield
        finally:
            task.cancel()


class Pair(NamedTuple):
    """Two links that know each other's address, and the key of a node that does not exist."""

    left: PeerLink
    right: PeerLink
    stranger: NodeKey


async def echo(peer: NodeKey, stream: Stream) -> None:
    """Sends back what comes, then who sent it."""
    while piece := await stream.read(1 << 18):
        await stream.write(piece)
    await stream.write(peer)
    await stream.finish()


async def refuse(peer: NodeKey, stream: Stream) -> None:
    stream.abort()


async def read_all(stream: Stream) -> bytes:
    found = bytearray()
    while piece := await stream.read(1 << 18):
        found += piece
    return bytes(found)


async def call(link: PeerLink, peer: NodeKey, request: bytes) -> bytes:
    """Write, finish, read to the end."""
    stream = await link.open(peer)
    await stream.write(request)
    await stream.finish()
    return await read_all(stream)


class LinkContract:
    """Subclass with a fixture ``pair``. Every test serves on both sides, as every node does."""

    async def test_a_call_reaches_the_peer_and_proves_who_calls(self, pair: Pair) -> None:
        async with serving(pair.left, refuse), serving(pair.right, echo):
            assert await call(pair.left, pair.right.node, b"hello") == b"hello" + pair.left.node

    async def test_a_peer_is_reached_over_the_connection_that_it_dialled(self, pair: Pair) -> None:
        pair.right.learn(pair.left.node, pair.left.address())
        async with serving(pair.left, echo), serving(pair.right, echo):
            await call(pair.right, pair.left.node, b"first")
            assert await call(pair.left, pair.right.node, b"back") == b"back" + pair.left.node

    async def test_the_connection_is_the_same_until_there_is_another(self, pair: Pair) -> None:
        peer = pair.right.node
        assert pair.left.current(peer) is None
        async with serving(pair.left, refuse), serving(pair.right, echo):
            await call(pair.left, peer, b"one")
            first = pair.left.current(peer)
            await call(pair.left, peer, b"two")
            assert first is not None
            assert pair.left.current(peer) is first

    async def test_half_close_leaves_the_answer_open(self, pair: Pair) -> None:
        async def count(peer: NodeKey, stream: Stream) -> None:
            total = len(await read_all(stream))
            await stream.write(b"%d" % total)
            await stream.finish()

        async with serving(pair.left, refuse), serving(pair.right, count):
            assert await call(pair.left, pair.right.node, bytes(300_000)) == b"300000"

    async def test_large_transfers_cross_both_ways_at_once(self, pair: Pair) -> None:
        block = hashlib.sha256(b"block").digest() * 32_768
        digest = hashlib.sha256(block * 8).hexdigest()

        async def swap(peer: NodeKey, stream: Stream) -> None:
            await exchange(stream)

        async def exchange(stream: Stream) -> str:
            async def send() -> None:
                for _ in range(8):
                    await stream.write(block)
                await stream.finish()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send())
                received = tasks.create_task(read_all(stream))
            return hashlib.sha256(received.result()).hexdigest()

        async with serving(pair.left, refuse), serving(pair.right, swap):
            assert await exchange(await pair.left.open(pair.right.node)) == digest

    async def test_hundreds_of_streams_are_open_at_once(self, pair: Pair) -> None:
        async with serving(pair.left, refuse), serving(pair.right, echo):
            streams = [await pair.left.open(pair.right.node) for _ in range(400)]
            for number, stream in enumerate(streams):
                await stream.write(b"%d" % number)
            for stream in streams:
                await stream.finish()
            answers = [await read_all(stream) for stream in streams]
        assert answers == [b"%d" % number + pair.left.node for number in range(400)]

    async def test_a_writer_waits_for_a_slow_reader(self, pair: Pair) -> None:
        async def dawdle(peer: NodeKey, stream: Stream) -> None:
            await read_exactly(stream, 1)
            await asyncio.sleep(3600)

        async with serving(pair.left, refuse), serving(pair.right, dawdle):
            stream = await pair.left.open(pair.right.node)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stream.write(bytes(32 << 20))
            stream.abort()

    async def test_an_aborted_answer_is_an_error_and_never_an_end(self, pair: Pair) -> None:
        async def half(peer: NodeKey, stream: Stream) -> None:
            await stream.write(b"half an ans")
            stream.abort()

        async with serving(pair.left, refuse), serving(pair.right, half):
            with pytest.raises(Unavailable) as caught:
                await call(pair.left, pair.right.node, b"?")
        assert caught.value.code == "stream.broken"

    async def test_a_handler_that_forgets_to_finish_looks_broken(self, pair: Pair) -> None:
        async def forget(peer: NodeKey, stream: Stream) -> None:
            await stream.write(b"half an ans")

        async with serving(pair.left, refuse), serving(pair.right, forget):
            with pytest.raises(Unavailable):
                await call(pair.left, pair.right.node, b"?")

    async def test_a_breach_costs_the_peer_its_connection_and_every_stream_on_it(self, pair: Pair) -> None:
        async def judge(peer: NodeKey, stream: Stream) -> None:
            if await read_exactly(stream, 1) == b"!":
                raise PeerError("test.breach", "a lie")
            await stream.write(b"ok")
            await read_exactly(stream, 1)

        async with serving(pair.left, refuse), serving(pair.right, judge):
            honest, liar = await pair.left.open(pair.right.node), await pair.left.open(pair.right.node)
            await honest.write(b"x")
            assert await read_exactly(honest, 2) == b"ok"
            await liar.write(b"!")
            for stream in (liar, honest):
                with pytest.raises(Unavailable):
                    await stream.read(10)
            again = await pair.left.open(pair.right.node)
            await again.write(b"x")
            assert await read_exactly(again, 2) == b"ok"
            again.abort()

    async def test_abort_after_finish_loses_nothing(self, pair: Pair) -> None:
        async def answer(peer: NodeKey, stream: Stream) -> None:
            await stream.write(bytes(60_000))
            await stream.finish()
            stream.abort()
            stream.abort()

        async with serving(pair.left, refuse), serving(pair.right, answer):
            stream = await pair.left.open(pair.right.node)
            await stream.write(b"?")
            assert len(await read_all(stream)) == 60_000

    async def test_abort_wakes_a_pending_read(self, pair: Pair) -> None:
        async with serving(pair.left, refuse), serving(pair.right, echo):
            stream = await pair.left.open(pair.right.node)
            await stream.write(b"x")
            assert await stream.read(10) == b"x"
            asyncio.get_running_loop().call_later(0.05, stream.abort)
            with pytest.raises(Unavailable):
                await stream.read(10)
            with pytest.raises(Unavailable):
                await stream.write(b"y")

    async def test_a_writer_learns_that_nobody_reads(self, pair: Pair) -> None:
        async with serving(pair.left, refuse), serving(pair.right, refuse):
            stream = await pair.left.open(pair.right.node)
            with pytest.raises(Unavailable):
                await stream.write(bytes(64 << 20))

    async def test_a_node_whose_address_nobody_told_is_unreachable(self, pair: Pair) -> None:
        async with serving(pair.left, refuse):
            with pytest.raises(Unavailable) as caught:
                await pair.left.open(pair.stranger)
        assert caught.value.code == "peer.unreachable"

    async def test_another_key_at_a_known_address_is_refused(self, pair: Pair) -> None:
        pair.left.learn(pair.stranger, pair.right.address())
        async with serving(pair.left, refuse), serving(pair.right, echo):
            with pytest.raises(Unavailable) as caught:
                await pair.left.open(pair.stranger, timeout=5)
        assert caught.value.code == "peer.unreachable"

    async def test_a_closed_peer_breaks_its_streams_and_cannot_be_opened(self, pair: Pair) -> None:
        async with serving(pair.left, refuse), serving(pair.right, echo):
            stream = await pair.left.open(pair.right.node)
            await stream.write(b"x")
            assert await stream.read(10) == b"x"
            await pair.right.close()
            with pytest.raises(Unavailable):
                await stream.read(10)
            with pytest.raises(Unavailable):
                await pair.left.open(pair.right.node, timeout=0.5)
