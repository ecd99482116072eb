"""Journal, then state, then effects; and nothing at all of what was refused or could not be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockage.daemon.driver import BATCH_MAX, PACE_SEC, Driver
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import ChannelId
from dockage.node import effects as want
from dockage.node import events as told
from dockage.ports.machine import Row
from dockage.testing.journal import MemoryJournal
from dockage.testing.loop import LoopClock

LIE, BUG, SILENT = 13, 666, 0


def step(state: int, event: told.AnyEvent, now: int) -> tuple[int, tuple[want.AnyEffect, ...]]:
    """A mind that adds heights up and announces each."""
    assert isinstance(event, told.BlockSeen)
    if event.height == LIE:
        raise PeerError("test.lie", "thirteen")
    if event.height == BUG:
        raise ZeroDivisionError("a bug")
    if event.height == SILENT:
        return state, ()
    return state + event.height, (effect(event.height),)


def effect(number: int) -> want.AnyEffect:
    return want.Broadcast(ChannelId(bytes(16)), b"%d" % number)


def changed(before: int, after: int) -> Sequence[Row]:
    return [] if before == after else [Row("sum", b"", b"%d" % after)]


class Bench:
    """A driver, and everything it does in the order in which it does it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.journal = MemoryJournal()
        self.driver: Driver[int] = Driver(0, step, changed, self, self.perform, LoopClock())  # type: ignore[arg-type]

    def write(self, rows: Sequence[Row]) -> None:
        self.done.append(f"write {rows[0].value.decode()} at {self.driver.state}")
        self.journal.write(rows)

    def perform(self, effect: Any) -> None:
        self.done.append(f"perform {effect.raw.decode()} at {self.driver.state}")
        if effect.raw == b"7":
            raise RuntimeError("an effect with a bug")

    @asynccontextmanager
    async def running(self, *outstanding: want.AnyEffect) -> AsyncIterator[Driver[int]]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.driver.run(outstanding))
            yield self.driver
            task.cancel()


def block(height: int) -> told.BlockSeen:
    return told.BlockSeen(height)


async def test_the_journal_is_first_then_the_state_then_the_effects() -> None:
    bench = Bench()
    async with bench.running() as driver:
        await driver.tell(block(5))
        await driver.tell(block(2))
    assert bench.done == ["write 5 at 0", "perform 5 at 5", "write 7 at 5", "perform 2 at 7"]


async def test_what_is_told_is_done_when_the_teller_goes_on() -> None:
    bench = Bench()
    async with bench.running() as driver:
        await driver.tell(block(5))
        assert driver.state == 5
        assert list(bench.journal.load()) == [Row("sum", b"", b"5")]
        assert bench.done[-1] == "perform 5 at 5"


async def test_a_refused_event_leaves_no_trace_and_its_teller_is_told() -> None:
    bench = Bench()
    async with bench.running() as driver:
        with pytest.raises(PeerError) as caught:
            await driver.tell(block(LIE))
        await driver.post(block(LIE))
        await asyncio.sleep(0.1)
    assert caught.value.code == "test.lie"
    assert (bench.done, bench.driver.state, bench.journal.writes) == ([], 0, [])


async def test_a_refused_event_in_the_middle_of_a_batch_spoils_nothing_of_it() -> None:
    bench = Bench()
    for height in (1, LIE, 2):
        await bench.driver.post(block(height))
    async with bench.running() as driver:
        await driver.tell(block(3))
    assert bench.done == ["write 6 at 0", "perform 1 at 6", "perform 2 at 6", "perform 3 at 6"]


async def test_a_bug_in_a_step_costs_its_event_and_no_other() -> None:
    bench = Bench()
    await bench.driver.post(block(1))
    async with bench.running() as driver:
        with pytest.raises(ZeroDivisionError):
            await driver.tell(block(BUG))
        await driver.tell(block(2))
    assert bench.driver.state == 3


async def test_a_bug_in_an_effect_costs_no_other_effect() -> None:
    bench = Bench()
    for height in (7, 8):
        await bench.driver.post(block(height))
    async with bench.running() as driver:
        await driver.tell(block(9))
    assert [line.split()[1] for line in bench.done if line.startswith("perform")] == ["7", "8", "9"]


async def test_many_events_are_written_at_once() -> None:
    bench = Bench()
    for _ in range(BATCH_MAX // 2):
        await bench.driver.post(block(1))
    async with bench.running() as driver:
        await driver.tell(block(1))
    assert len(bench.journal.writes) == 1
    assert bench.driver.state == BATCH_MAX // 2 + 1


async def test_under_load_commits_keep_a_distance_and_the_first_after_a_pause_does_not_wait() -> None:
    bench = Bench()
    clock = asyncio.get_running_loop().time
    async with bench.running() as driver:
        for _ in range(3):
            began = clock()
            await driver.tell(block(1))
            assert clock() == began
            for _ in range(10):
                await driver.post(block(1))
            await driver.tell(block(1))
            assert clock() == pytest.approx(began + PACE_SEC)
            await asyncio.sleep(1)
    assert len(bench.journal.writes) == 6


async def test_what_changes_nothing_is_acted_upon_at_once() -> None:
    bench = Bench()
    async with bench.running() as driver:
        await driver.tell(block(1))
        began = asyncio.get_running_loop().time()
        await driver.tell(block(SILENT))
        assert asyncio.get_running_loop().time() == began
        await driver.post(block(2))
        await driver.tell(block(SILENT))  # what it answers may say what the one before it did
        assert bench.done[-2:] == ["write 3 at 1", "perform 2 at 3"]


async def test_what_is_submitted_is_judged_at_once_and_acted_upon_once_it_is_on_disk() -> None:
    bench = Bench()
    async with bench.running() as driver:
        await driver.submit(block(5))
        assert (driver.newest, driver.state, bench.done) == (5, 0, [])
        with pytest.raises(PeerError):
            await driver.submit(block(LIE))
        await driver.submit(block(2))
        assert (driver.newest, driver.state) == (7, 0)
        await driver.moved()
    assert bench.done == ["write 7 at 0", "perform 5 at 7", "perform 2 at 7"]


async def test_an_event_that_changes_nothing_writes_nothing() -> None:
    bench = Bench()
    async with bench.running() as driver:
        await driver.tell(block(SILENT))
    assert bench.done == []


async def test_who_tells_waits_while_too_much_waits_for_the_disk() -> None:
    bench = Bench()
    for _ in range(BATCH_MAX):
        await bench.driver.post(block(SILENT))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await bench.driver.post(block(SILENT))
    async with bench.running() as driver:
        await driver.post(block(1))
        await driver.tell(block(1))
    assert bench.driver.state == 2


async def test_a_journal_that_fails_ends_the_driver_and_nothing_was_done() -> None:
    bench = Bench()
    bench.journal.broken = True

    async def daemon() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bench.driver.run())
            tasks.create_task(_tell(bench.driver, 5))
            tasks.create_task(_tell(bench.driver, LIE))
            await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        await daemon()
    assert caught.group_contains(OSError)
    assert bench.driver.state == 0
    assert not [line for line in bench.done if line.startswith("perform")]


async def _tell(driver: Driver[int], height: int) -> None:
    """Whoever told gets an answer, not silence."""
    with pytest.raises(PeerError if height == LIE else Unavailable) as caught:
        await driver.tell(block(height))
    assert caught.value.code == ("test.lie" if height == LIE else "journal.failed")


async def test_what_is_outstanding_is_performed_before_the_first_event() -> None:
    bench = Bench()
    await bench.driver.post(block(1))
    async with bench.running(effect(100), effect(101)) as driver:
        await driver.tell(block(2))
    assert [line.split()[1] for line in bench.done] == ["100", "101", "3", "1", "2"]


async def test_whoever_waits_for_a_move_sees_every_new_state() -> None:
    bench = Bench()
    seen: list[int] = []

    async def watch() -> None:
        while True:
            await bench.driver.moved()
            seen.append(bench.driver.state)

    async with bench.running() as driver, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        await asyncio.sleep(0)
        for _ in range(3):
            await driver.tell(block(1))
        await asyncio.sleep(0)
        watching.cancel()
    assert seen == [1, 2, 3]


async def test_a_teller_that_gave_up_breaks_nothing() -> None:
    bench = Bench()
    async with asyncio.TaskGroup() as tasks:
        telling = [tasks.create_task(bench.driver.tell(block(height))) for height in (1, 2)]
        await asyncio.sleep(0)
        for task in telling:
            task.cancel()
    async with bench.running() as driver:
        await driver.tell(block(3))
    assert bench.driver.state == 6  # what was told is told
