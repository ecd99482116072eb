"""Datagrams over a stream: kept whole and in order, never piled up, ended when nobody speaks."""

from __future__ import annotations

import asyncio

import pytest

from dockage.domain.errors import PeerError
from dockage.testing.leases import memory_pair
from dockage.wire.datagrams import DATAGRAM_MAX, HEAD, QUEUE_MAX, Flow


class End:
    """One end of a flow: what it was told, and what it counted."""

    def __init__(self, idle: float = 60) -> None:
        self.got: list[bytes] = []
        self.sent = self.received = 0
        self.flow = Flow(self.got.append, idle)

    async def run(self, stream: object) -> None:
        await self.flow.run(stream, sent=self._sent, received=self._received)  # type: ignore[arg-type]

    def _sent(self, size: int) -> None:
        self.sent += size

    def _received(self, size: int) -> None:
        self.received += size


async def joined(left: End, right: End) -> None:
    ours, theirs = memory_pair()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(left.run(ours))
        tasks.create_task(right.run(theirs))


async def test_both_ends_see_the_same_datagrams_and_count_the_same() -> None:
    left, right = End(0.2), End(0.2)
    said = [b"", b"a", b"b" * 1500, b"c" * DATAGRAM_MAX]
    for one in said:
        left.flow.offer(one)
    right.flow.offer(b"back")
    await joined(left, right)  # until it is idle
    assert (right.got, left.got) == (said, [b"back"])
    assert left.sent == right.received == sum(map(len, said)) + HEAD * len(said)
    assert right.sent == left.received == 4 + HEAD


async def test_while_the_stream_is_slow_the_oldest_are_dropped() -> None:
    left, right = End(0.2), End(0.2)
    for number in range(QUEUE_MAX + 10):
        left.flow.offer(number.to_bytes(2, "big"))
    await joined(left, right)
    assert [int.from_bytes(one, "big") for one in right.got] == list(range(10, QUEUE_MAX + 10))
    assert left.sent == right.received, "what was dropped is not counted"


async def test_an_oversized_frame_breaks_the_flow() -> None:
    ours, theirs = memory_pair()
    end = End()
    await ours.write((DATAGRAM_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(PeerError, match="the limit is 65535"):
        await end.run(theirs)


@pytest.mark.parametrize("how", ["abort", "finish"])
async def test_a_flow_ends_with_its_other_end(how: str) -> None:
    ours, theirs = memory_pair()
    end = End()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(end.run(theirs))
        await asyncio.sleep(0)
        ours.abort() if how == "abort" else await ours.finish()
