"""The journal has a thread of its own: nothing else that takes long stands in its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dockage.daemon.driver import Driver
from dockage.daemon.ondisk import on_disk
from dockage.node import effects as want
from dockage.node import events as told
from dockage.ports.machine import Row
from dockage.testing.journal import MemoryJournal
from dockage.testing.loop import LoopClock

LIMIT = 60
"""Seconds, for the slowest machine."""


def step(state: int, event: told.AnyEvent, now: int) -> tuple[int, tuple[want.AnyEffect, ...]]:
    return state + 1, ()


def changed(before: int, after: int) -> Sequence[Row]:
    return [Row("sum", b"", b"%d" % after)]


async def told_in_a_crowd() -> int:
    """With a common pool that is full of work which never ends."""
    release, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    crowd = [loop.run_in_executor(None, release.wait, LIMIT) for _ in range(3)]
    driver = Driver(0, step, changed, MemoryJournal(), lambda effect: None, LoopClock())
    try:
        async with asyncio.timeout(LIMIT / 2), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(driver.run())
            await driver.tell(told.BlockSeen(1))
            task.cancel()
        assert not any(each.done() for each in crowd)
    finally:
        release.set()
        await asyncio.gather(*crowd)
    return driver.state


def test_a_pool_that_is_full_does_not_hold_up_the_journal() -> None:
    assert asyncio.run(told_in_a_crowd()) == 1


def test_what_the_journal_raises_reaches_the_one_who_wrote() -> None:
    def fails(reason: str) -> None:
        raise OSError(reason)

    async def write() -> str:
        try:
            await on_disk(fails, "full")
        except OSError as error:
            return str(error)
        return ""

    assert asyncio.run(write()) == "full"
