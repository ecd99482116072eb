"""Owned tasks: every background job belongs to one group, is bounded, and a failure of one ends only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from dockage.domain.errors import DockageError

log = structlog.get_logger("dockage.tasks")

JOBS_MAX = 2_000

Job = Callable[[], Coroutine[Any, Any, None]]


class Jobs:
    """Short jobs that nobody waits for. A job that fails by ``DockageError`` is logged in one line; by
    anything else it is a bug of ours and is logged with its trace, and the daemon goes on."""

    def __init__(self, limit: int = JOBS_MAX) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._early: list[tuple[Job, str]] = []
        """Wanted before ``run``: what is outstanding at a start must not be lost to the order of tasks."""
        self._over = False
        self._count, self._limit = 0, limit

    async def run(self) -> None:
        """Own the jobs until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for job, name in self._early:
                group.create_task(self._guard(job, name), name=name)
            self._early.clear()
            try:
                await asyncio.Event().wait()
            finally:
                self._group, self._over = None, True

    def start(self, job: Job, name: str) -> bool:
        """False if it will never run: there are too many, or the daemon is stopping. *job* makes its coroutine
        only once it runs, so that one that was dropped leaves nothing behind."""
        if self._over or self._count >= self._limit:
            log.warning("job.dropped", job=name, running=self._count)
            return False
        self._count += 1
        if self._group is None:
            self._early.append((job, name))
        else:
            self._group.create_task(self._guard(job, name), name=name)
        return True

    async def _guard(self, job: Job, name: str) -> None:
        try:
            await job()
        except DockageError as error:
            log.info("job.failed", job=name, code=error.code, why=error.message)
        except Exception:
            log.exception("job.crashed", job=name)
        finally:
            self._count -= 1


async def every(seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
    """Run *job* again and again, *seconds* apart, until cancelled. A failure waits for the next turn."""
    complained = False
    while True:
        try:
            await job()
            complained = False
        except DockageError as error:
            (log.debug if complained else log.warning)(f"{name}.failed", code=error.code, why=error.message)
            complained = True
        await asyncio.sleep(seconds)
