"""Headed and Ahead are streams like any other: nothing is lost, doubled or reordered, whoever speaks first."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dockage.testing.leases import memory_pair
from dockage.wire.ahead import Ahead, Headed
from dockage.wire.frames import frame, read_frame


async def read_all(stream: Ahead, limits: list[int]) -> bytes:
    data, n = b"", 0
    while piece := await stream.read(limits[n % len(limits)]):
        assert len(piece) <= limits[n % len(limits)]
        data, n = data + piece, n + 1
    return data


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=4))
async def test_what_is_written_behind_a_head_is_read_as_written(said: list[bytes], limits: list[int]) -> None:
    ours, theirs = memory_pair()
    speaker, listener = Headed(ours, frame(b"head")), Ahead(theirs)
    for piece in said:
        await speaker.write(piece)
    await speaker.finish()
    assert await read_frame(listener, 10) == b"head"
    assert await read_all(listener, limits) == b"".join(said)


async def test_whoever_only_listens_has_said_what_for() -> None:
    ours, theirs = memory_pair()
    waiting = asyncio.create_task(Headed(ours, frame(b"head")).read(10))
    assert await read_frame(Ahead(theirs), 10) == b"head"
    await theirs.write(b"220 welcome")
    assert await waiting == b"220 welcom"


async def test_a_head_goes_out_once_when_both_directions_begin_together() -> None:
    ours, theirs = memory_pair()
    speaker, listener = Headed(ours, frame(b"head")), Ahead(theirs)
    reading = asyncio.create_task(speaker.read(10))
    await speaker.write(b"rest")
    await speaker.finish()
    assert await read_frame(listener, 10) == b"head"
    assert await read_all(listener, [7]) == b"rest"
    await theirs.finish()
    assert await reading == b""
