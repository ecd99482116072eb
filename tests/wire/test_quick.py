"""Quick streams and what is spliced through them: whatever the kind, nothing is lost, doubled, reordered or held
without bound, and what is counted was delivered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.errors import Unavailable
from dockage.ports.peers import Stream
from dockage.testing.leases import memory_pair
from dockage.wire.ahead import Ahead, Headed
from dockage.wire.bundle import Budget, Bundle
from dockage.wire.connection import Connection
from dockage.wire.frames import PIECE
from dockage.wire.quick import Patient, Quick, quick
from dockage.wire.splice import splice

LIMIT = 60.0
Pair = tuple[Stream, Stream]


@asynccontextmanager
async def of_sockets() -> AsyncIterator[Pair]:
    loop, ends = asyncio.get_running_loop(), list[Connection]()
    for sock in socket.socketpair():
        ends.append((await loop.create_unix_connection(Connection, sock=sock))[1])
    yield ends[0], ends[1]
    for end in ends:
        end.cut()
    await asyncio.sleep(0)


@asynccontextmanager
async def of_a_bundle() -> AsyncIterator[Pair]:
    """Its second end is there once the first one has said something: a byte that is taken off again."""
    came: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def accept(stream: Stream) -> None:
        assert await stream.read(1) == b"!"
        came.set_result(stream)
        await over.wait()

    left, right = memory_pair()
    opener, taker = Bundle(left, Budget(1 << 24)), Bundle(right, Budget(1 << 24), accept)
    tasks = [asyncio.create_task(bundle.run()) for bundle in (opener, taker)]
    ours = opener.open()
    await ours.write(b"!")
    async with asyncio.timeout(LIMIT):
        yield ours, await came
    over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def of_memory() -> AsyncIterator[Pair]:
    yield memory_pair()


@asynccontextmanager
async def wrapped() -> AsyncIterator[Pair]:
    async with of_a_bundle() as (ours, theirs):
        there = Ahead(theirs)
        here = Headed(ours, b"head")
        await here.write(b"")
        assert await there.read(4) == b"head"
        yield here, there


KINDS = {"sockets": of_sockets, "bundle": of_a_bundle, "memory": of_memory, "wrapped": wrapped}


@pytest.fixture(params=KINDS)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with KINDS[request.param]() as ends:
        yield ends


def test_what_is_quick_stays_what_it_is() -> None:
    memory, _ = memory_pair()
    patient = quick(memory)
    assert isinstance(patient, Patient)
    assert quick(patient) is patient


async def poured(stream: Quick, most: int = 1 << 30) -> bytes:
    """All of it, in takes of at most *most* pieces."""
    found, left = bytearray(), most

    def take(piece: bytes) -> bool:
        nonlocal left
        assert left > 0, "nothing after enough was said"
        found.extend(piece)
        left -= 1
        return left > 0

    async with asyncio.timeout(LIMIT):
        while await stream.pour(take):
            assert left == 0
            await asyncio.sleep(0)
            left = most
    return bytes(found)


async def say(stream: Stream, said: list[bytes]) -> None:
    for piece in said:
        await stream.write(piece)
        await asyncio.sleep(0)
    await stream.finish()


@given(said=st.lists(st.binary(min_size=1, max_size=2000), max_size=20), most=st.integers(1, 5))
@settings(max_examples=25)
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_written_is_poured_as_written(kind: str, said: list[bytes], most: int) -> None:
    async with KINDS[kind]() as (ours, theirs):
        speaking = asyncio.create_task(say(ours, said))
        assert await poured(quick(theirs), most) == b"".join(said)
        await speaking


async def test_what_came_before_the_pouring_comes_first(pair: Pair) -> None:
    ours, theirs = pair
    await ours.write(b"one")
    assert await theirs.read(1) == b"o"
    await say(ours, [b"two", b"three"])
    assert await poured(quick(theirs)) == b"netwothree"


async def test_who_takes_no_more_holds_up_the_writer(pair: Pair) -> None:
    """And loses nothing by it."""
    ours, theirs = pair
    said = [bytes([number]) * 65_536 for number in range(64)]
    speaking = asyncio.create_task(say(ours, said))
    assert await quick(theirs).pour(lambda piece: False)
    for _ in range(200):
        await asyncio.sleep(0)
    assert not speaking.done(), "4 MiB without a reader"
    rest = await poured(quick(theirs), 1)
    assert len(rest) >= sum(map(len, said)) - PIECE - 65_536
    assert b"".join(said).endswith(rest)
    await speaking


async def test_what_is_put_arrives_though_it_is_more_than_there_is_room_for(pair: Pair) -> None:
    ours, theirs = quick(pair[0]), quick(pair[1])
    said = bytes(range(256)) * 8192
    reading = asyncio.create_task(poured(theirs))
    for at in range(0, len(said), PIECE):
        ours.put(said[at : at + PIECE])
        if ours.is_full:
            await ours.drained()
    await ours.finish()
    assert await reading == said


async def test_a_break_ends_the_pouring(pair: Pair) -> None:
    _, theirs = pair
    pouring = asyncio.create_task(poured(quick(theirs)))
    await asyncio.sleep(0.01)
    theirs.abort()
    ended = await asyncio.wait_for(asyncio.gather(pouring, return_exceptions=True), LIMIT)
    assert isinstance(ended[0], Unavailable) or (isinstance(theirs, Connection) and ended == [b""])


async def test_a_cancelled_pouring_leaves_the_rest_to_who_reads_next(pair: Pair) -> None:
    ours, theirs = pair
    pouring = asyncio.create_task(poured(quick(theirs)))
    await asyncio.sleep(0.01)
    pouring.cancel()
    await asyncio.gather(pouring, return_exceptions=True)
    if isinstance(quick(theirs), Patient):
        return  # a cancelled read of such a stream may lose bytes
    await ours.write(b"for the next one")
    assert await asyncio.wait_for(theirs.read(100), LIMIT) == b"for the next one"


# -- spliced -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("middle", KINDS)
async def test_a_splice_keeps_bytes_ends_and_counts(middle: str) -> None:
    """socket - splice - *middle* - splice - socket, as a published port is; more than all windows, and half-close."""
    up, down = bytes(range(256)) * 16_384, bytes(range(255, -1, -1)) * 8192
    counts = [0, 0, 0, 0]

    def count(number: int) -> Callable[[int], None]:
        def add(size: int) -> None:
            counts[number] += size

        return add

    async with (
        of_sockets() as (client, front),
        of_sockets() as (inside, server),
        KINDS[middle]() as (near, far),
    ):
        ends: list[Awaitable[None]] = [
            splice(front, near, to_right=count(0), to_left=count(1)),
            splice(far, inside, to_right=count(2), to_left=count(3)),
        ]
        tasks = [asyncio.ensure_future(end) for end in ends]
        asking = asyncio.create_task(
            say(client, [up[at : at + 100_000] for at in range(0, len(up), 100_000)])
        )
        assert await poured(quick(server)) == up
        await asking
        answering = asyncio.create_task(say(server, [down]))
        assert await poured(quick(client)) == down
        await answering
        await asyncio.wait_for(asyncio.gather(*tasks), LIMIT)
    assert counts == [len(up), len(down), len(up), len(down)]


@pytest.mark.parametrize("middle", KINDS)
async def test_what_the_other_side_does_not_take_is_not_counted(middle: str) -> None:
    delivered = 0

    def count(size: int) -> None:
        nonlocal delivered
        delivered += size

    async with of_sockets() as (client, front), KINDS[middle]() as (near, far):
        task = asyncio.create_task(splice(front, near, to_right=count))
        await client.write(b"taken")
        assert await asyncio.wait_for(far.read(100), LIMIT) == b"taken"
        far.abort()
        await asyncio.gather(say(client, [bytes(1 << 16)] * 200), return_exceptions=True)
        await asyncio.wait_for(task, LIMIT)
    assert 5 <= delivered < 200 << 16
