"""What the other side of a bundle may say, and what it costs it to say more. The rest is the link contract's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Stream
from dockage.protocol.bundles import PAYLOAD_MAX, STREAMS_MAX, WINDOW, Frames, Kind, data_frame, encode
from dockage.testing.link import MemoryNetwork
from dockage.wire import bundle as module
from dockage.wire.bundle import Budget, Bundle

KEYS = [NodeKey(hashlib.sha256(b"bundle %d" % number).digest()) for number in range(2)]


class Lab(NamedTuple):
    raw: Stream
    """The peer's end, on which it may say what it likes."""
    ours: Stream
    run: Callable[[Bundle], asyncio.Task[None]]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    network = MemoryNetwork()
    left, right = (network.link(key) for key in KEYS)
    left.learn(right.node, right.address())
    raw = await left.open(right.node)
    await raw.write(b"x")
    taken = await right.incoming.get()
    assert taken is not None
    await taken[1].read(1)
    tasks: list[asyncio.Task[None]] = []

    def run(bundle: Bundle) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(bundle.run()))
        return tasks[-1]

    yield Lab(raw, taken[1], run)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sleeper(stream: Stream) -> None:
    """Takes nothing."""
    await asyncio.sleep(3600)


async def reader(stream: Stream) -> None:
    while await stream.read(1 << 16):
        pass


FULL = b"".join(data_frame(1, bytes(PAYLOAD_MAX)) for _ in range(WINDOW // PAYLOAD_MAX))
LIES: dict[str, tuple[str, bytes, Callable[[Stream], Awaitable[None]]]] = {
    "a number that was left out": ("bundle.number", data_frame(2, b"x"), reader),
    "no number": ("bundle.malformed", data_frame(0, b"x"), reader),
    "credit for what is not there": ("bundle.number", encode(Kind.CREDIT, 1, 1), reader),
    "an end of what is not there": ("bundle.number", encode(Kind.RESET, 1), reader),
    "more than the window": ("bundle.overrun", FULL + data_frame(1, b"x"), sleeper),
    "data behind the end": (
        "bundle.overrun", data_frame(1, b"x") + encode(Kind.FINISH, 1) + data_frame(1, b"y"), sleeper,
    ),
    "credit for what was not sent": (
        "bundle.overrun", data_frame(1, b"x") + encode(Kind.CREDIT, 1, 1), sleeper,
    ),
    "noise": ("bundle.malformed", bytes([9]) * 9, reader),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_costs_the_bundle(lab: Lab, lie: str) -> None:
    code, said, accept = LIES[lie]
    task = lab.run(Bundle(lab.ours, Budget(1 << 24), accept))
    talking = asyncio.create_task(talk(lab.raw, said))
    with pytest.raises(PeerError) as caught:
        await asyncio.wait_for(task, 30)
    await talking
    assert caught.value.code == code


async def talk(stream: Stream, said: bytes) -> None:
    try:
        await stream.write(said)
    except Unavailable:
        pass


async def test_who_takes_the_bundle_is_not_opened_streams_by_the_other_side(lab: Lab) -> None:
    task = lab.run(Bundle(lab.ours, Budget(1 << 24)))
    await lab.raw.write(data_frame(1, b"x"))
    with pytest.raises(PeerError, match="stream 1"):
        await asyncio.wait_for(task, 30)


async def test_one_stream_too_many_is_reset_and_costs_the_others_nothing(lab: Lab) -> None:
    lab.run(Bundle(lab.ours, Budget(1 << 24), sleeper))
    for number in range(1, STREAMS_MAX + 2):
        await lab.raw.write(data_frame(number, b"x"))
    [refused] = await said_by(lab.raw)
    assert (refused.kind, refused.stream) == (Kind.RESET, STREAMS_MAX + 1)


async def test_who_takes_no_answers_opens_no_more_streams(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream that it opens and ends has us say something, and it reads nothing of it."""
    monkeypatch.setattr(module, "UNTAKEN", 100)
    task = lab.run(Bundle(Unwritable(lab.ours), Budget(1 << 24), reader))
    flood = b"".join(encode(Kind.FINISH, number) for number in range(1, 500))
    talking = asyncio.create_task(talk(lab.raw, flood))
    with pytest.raises(PeerError) as caught:
        await asyncio.wait_for(task, 30)
    await talking
    assert caught.value.code == "bundle.untaken"


class Unwritable:
    """A stream whose other side reads nothing."""

    def __init__(self, stream: Stream) -> None:
        self.read, self.finish, self.abort = stream.read, stream.finish, stream.abort

    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()


async def test_what_nobody_reads_is_bounded_for_all_streams_together(lab: Lab) -> None:
    budget = Budget(150)
    lab.run(Bundle(lab.ours, budget, sleeper))
    await lab.raw.write(data_frame(1, bytes(100)) + data_frame(2, bytes(100)))
    assert [(x.kind, x.stream) for x in await said_by(lab.raw)] == [(Kind.RESET, 2)]
    assert budget.left == 50


async def test_what_was_read_or_given_up_is_room_again(lab: Lab) -> None:
    async def some(stream: Stream) -> None:
        await stream.read(30)
        stream.abort()

    budget = Budget(150)
    lab.run(Bundle(lab.ours, budget, some))
    await lab.raw.write(data_frame(1, bytes(100)))
    assert [x.kind for x in await said_by(lab.raw)] == [Kind.RESET]
    assert budget.left == 150


async def test_what_still_comes_for_a_stream_that_has_ended_is_dropped(lab: Lab) -> None:
    async def leave(stream: Stream) -> None:
        await stream.read(1)
        stream.abort()

    lab.run(Bundle(lab.ours, Budget(1 << 24), leave))
    await lab.raw.write(data_frame(1, b"x"))
    assert [x.kind for x in await said_by(lab.raw)] == [Kind.RESET]
    await lab.raw.write(data_frame(1, b"late") + encode(Kind.CREDIT, 1, 5) + data_frame(2, b"y"))
    assert [(x.kind, x.stream) for x in await said_by(lab.raw)] == [(Kind.RESET, 2)]


async def said_by(stream: Stream) -> list:  # type: ignore[type-arg]
    async with asyncio.timeout(30):
        return Frames().feed(await stream.read(1 << 16))


async def test_a_reader_that_sleeps_holds_up_nobody_else(lab: Lab) -> None:
    def accept(stream: Stream) -> Awaitable[None]:
        return next(kinds)(stream)

    async def echo(stream: Stream) -> None:
        while piece := await stream.read(1 << 16):
            await stream.write(piece)
        await stream.finish()

    kinds = iter([sleeper, echo])
    lab.run(Bundle(lab.ours, Budget(1 << 24), accept))
    opener = Bundle(lab.raw, Budget(1 << 24))
    lab.run(opener)
    stuck, lively = opener.open(), opener.open()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stuck.write(bytes(4 * WINDOW))
    async with asyncio.timeout(30):
        await lively.write(b"still here")
        assert await lively.read(100) == b"still here"


async def test_an_idle_bundle_ends_by_itself_and_opens_nothing_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE", 0.01)
    bundle = Bundle(lab.raw, Budget(1 << 24))
    task = lab.run(bundle)
    stream = bundle.open()
    await asyncio.sleep(0.05)
    assert not task.done(), "what is open keeps it"
    stream.abort()
    await asyncio.wait_for(task, 30)
    with pytest.raises(Unavailable):
        bundle.open()
