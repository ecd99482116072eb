"""A node that hangs falls silent; one that works is heard of in time, however little it has to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dockage.daemon.driver import Driver
from dockage.daemon.supervised import keep_telling
from dockage.daemon.tasks import every
from dockage.node import events as told
from dockage.testing.journal import MemoryJournal
from dockage.testing.loop import LoopClock


class Manager:
    is_there = True
    watchdog_sec = 90.0

    def __init__(self) -> None:
        self.heard: list[float] = []

    def tell(self, *lines: str) -> None:
        assert lines == ("WATCHDOG=1", "STATUS=fine")
        self.heard.append(asyncio.get_running_loop().time())


def mind() -> Driver[int]:
    return Driver(0, lambda state, *_: (state, ()), lambda *_: (), MemoryJournal(), print, LoopClock())


@asynccontextmanager
async def watched(manager: Manager, *minds: Driver[int]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """The tasks of the minds, each with its tick."""

    async def tick() -> None:
        for each in minds:
            await each.post(told.Ticked())

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(each.run()) for each in minds]
        others = [
            tasks.create_task(every(1.0, tick, "tick")),
            tasks.create_task(keep_telling(minds, manager, lambda: "fine")),
        ]
        yield running
        for task in (*running, *others):
            task.cancel()


async def test_a_node_with_nothing_to_do_is_heard_of_three_times_in_the_watchdogs_time() -> None:
    manager = Manager()
    async with watched(manager, mind(), mind()):
        await asyncio.sleep(900)
    apart = [later - earlier for earlier, later in zip(manager.heard, manager.heard[1:], strict=False)]
    assert len(apart) > 25
    assert max(apart) < manager.watchdog_sec / 2


async def test_one_mind_that_is_stuck_is_enough_to_fall_silent() -> None:
    manager = Manager()
    async with watched(manager, mind(), mind()) as running:
        await asyncio.sleep(100)
        heard = len(manager.heard)
        running[1].cancel()  # as if a step of it, or its journal, never came to an end
        await asyncio.sleep(10_000)
    assert heard > 2
    assert len(manager.heard) <= heard + 1
