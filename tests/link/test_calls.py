"""Calls of the binding: an answer inside the poll costs no trip through the loop, one from a thread is waited for."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from iroh import iroh_ffi

from dockage.adapters.link import calls


async def test_the_real_binding_is_driven_by_us() -> None:
    assert iroh_ffi._uniffi_rust_call_async is calls._call
    assert iroh_ffi._uniffi_rust_call_with_error is calls._plain
    assert not calls.apply(), "applying it again must be harmless"


def test_another_binding_is_left_alone() -> None:
    def other(rust_future: int, ffi_poll: int) -> None: ...

    parts = {name: getattr(iroh_ffi, name) for name in calls.PARTS}
    assert not calls.fits(SimpleNamespace())
    assert not calls.fits(SimpleNamespace(**{**parts, "_uniffi_rust_call_async": other}))


async def test_a_call_inside_a_call_has_a_status_of_its_own() -> None:
    """As when garbage is collected in one, whatever the two end with."""
    codes: list[int] = []

    def fn(depth: int, reference: Any) -> int:
        status = reference._obj
        codes.append(status.code)
        if depth:
            assert calls._plain(None, fn, depth - 1) == depth - 1
        if depth == 2:
            status.code = iroh_ffi._UniffiRustCallStatus.CALL_UNEXPECTED_ERROR
        return depth

    for _ in range(3):
        with pytest.raises(iroh_ffi.InternalError, match="panic"):
            calls._plain(None, fn, 2)
        assert calls._plain(None, fn, 1) == 1
    assert set(codes) == {0}, "none that was used for an error is used again"


async def test_an_answer_inside_the_poll_is_there_at_once_but_not_always() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    for _ in range(4 * calls.FAIR):
        poll = calls._Poll(asyncio.get_running_loop())
        poll.answer(calls.READY)
        assert (poll.code if poll.is_answered else await poll.wait()) == calls.READY
    counting.cancel()
    assert 4 <= turns <= 12, "others had their turn, now and then"


async def test_an_answer_from_another_thread_whenever_it_comes() -> None:
    for early in (True, False):
        poll = calls._Poll(asyncio.get_running_loop())
        thread = threading.Thread(target=poll.answer, args=(1,))
        if early:  # between the poll and the wait
            thread.start()
            thread.join()
            assert await asyncio.wait_for(poll.wait(), 5) == 1
        else:
            waiting = asyncio.create_task(poll.wait())
            await asyncio.sleep(0)
            thread.start()
            assert await asyncio.wait_for(waiting, 5) == 1
            thread.join()


async def test_an_answer_after_the_waiter_left_harms_nobody() -> None:
    poll = calls._Poll(asyncio.get_running_loop())
    waiting = asyncio.create_task(poll.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    poll.answer(calls.READY)
    await asyncio.sleep(0)
    assert waiting.cancelled()
