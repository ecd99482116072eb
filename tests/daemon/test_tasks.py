"""Owned jobs: none is lost to the order of tasks, none blocks others, each failure ends only itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dockage.daemon.tasks import Jobs, every
from dockage.domain.errors import Unavailable


@asynccontextmanager
async def running(jobs: Jobs) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(jobs.run())
        await asyncio.sleep(0)
        yield
        task.cancel()


async def test_jobs_that_are_wanted_before_the_group_runs_run_then_in_order() -> None:
    jobs, done = Jobs(), list[int]()

    async def note(number: int) -> None:
        done.append(number)

    for number in range(3):
        assert jobs.start(lambda number=number: note(number), "note")  # type: ignore[misc]
    async with running(jobs):
        assert jobs.start(lambda: note(3), "note")
        await asyncio.sleep(0.1)
    assert done == [0, 1, 2, 3]


async def test_a_job_too_many_is_refused_and_a_place_becomes_free_again() -> None:
    jobs = Jobs(limit=2)
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    async with running(jobs):
        assert [jobs.start(wait, "wait") for _ in range(3)] == [True, True, False]
        go_on.set()
        await asyncio.sleep(0.1)
        assert jobs.start(wait, "wait")


async def test_after_the_end_nothing_is_taken() -> None:
    jobs = Jobs()
    async with running(jobs):
        pass
    assert not jobs.start(lambda: asyncio.sleep(1), "late")


async def test_one_jobs_failure_is_its_own() -> None:
    jobs, done = Jobs(), list[str]()

    async def fail(error: Exception) -> None:
        raise error

    async def work() -> None:
        done.append("worked")

    async with running(jobs):
        jobs.start(lambda: fail(Unavailable("peer.unreachable", "gone")), "fail")
        jobs.start(lambda: fail(ZeroDivisionError("a bug")), "crash")
        jobs.start(work, "work")
        await asyncio.sleep(0.1)
    assert done == ["worked"]


async def test_a_turn_that_fails_waits_for_the_next() -> None:
    turns: list[float] = []

    async def job() -> None:
        turns.append(asyncio.get_running_loop().time())
        if len(turns) < 3:
            raise Unavailable("chain.unreachable", "down")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(every(10, job, "chain"))
        await asyncio.sleep(35)
        task.cancel()
    assert [round(at - turns[0]) for at in turns] == [0, 10, 20, 30]
