"""Once in each second of the clock, at a moment that nobody can foresee; a failing reading is only missing."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any, NamedTuple

import pytest

from dockage.daemon.metering import TOGETHER, MeterLoop
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.units import SECOND, Instant
from dockage.testing.clock import START
from dockage.testing.loop import LoopClock

LEASES = [LeaseId(bytes([number]) * 16) for number in range(5)]


class Held(NamedTuple):
    id: LeaseId
    state: LeaseState
    tenant: NodeKey = NodeKey(bytes(32))


class Book:
    """Stands for driver and host: which leases there are, and when each was read."""

    def __init__(self, *leases: Held) -> None:
        self.leases = {lease.id: lease for lease in leases}
        self.state: Any = self
        self.read_at: list[tuple[LeaseId, float]] = []
        self.posted: list[LeaseId] = []
        self.fail: Exception | None = None

    async def read(self, lease: LeaseId) -> Any:
        self.read_at.append((lease, asyncio.get_running_loop().time()))
        if self.fail is not None and lease == LEASES[0]:
            raise self.fail
        return None

    async def post(self, event: Any) -> None:
        self.posted.append(event.lease)


async def run(book: Book, seconds: float, clock: Any = None, seed: int = 1) -> None:
    loop: Any = book
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(MeterLoop(loop, loop, clock or LoopClock(), Random(seed)).run())
        await asyncio.sleep(seconds)
        task.cancel()


async def test_each_lease_is_read_once_in_each_second_of_the_clock() -> None:
    book = Book(*(Held(lease, LeaseState.RUNNING) for lease in LEASES))
    await run(book, 20)
    seen = Counter((lease, int(at)) for lease, at in book.read_at)
    assert set(seen.values()) == {1}
    assert len(seen) == len(LEASES) * 20


async def test_the_moment_is_spread_over_the_whole_second_and_differs_between_groups() -> None:
    many = [LeaseId(bytes([number]) * 16) for number in range(TOGETHER + 1)]
    book = Book(*(Held(lease, LeaseState.RUNNING) for lease in many))
    await run(book, 400)
    phases = {lease: [at % 1 for who, at in book.read_at if who == lease] for lease in many}
    tenths = Counter(int(phase * 10) for phase in phases[many[0]])
    assert len(tenths) == 10
    assert max(tenths.values()) < 80
    assert phases[many[0]] == phases[many[TOGETHER - 1]] != phases[many[TOGETHER]]


async def test_the_leases_of_one_tenant_are_told_together() -> None:
    tenants = [NodeKey(bytes([number]) * 32) for number in range(2)]
    many = [Held(LeaseId(bytes([n]) * 16), LeaseState.RUNNING, tenants[n % 2]) for n in range(2 * TOGETHER)]
    book = Book(*many)
    await run(book, 1)
    for at in (0, TOGETHER):
        assert len({book.leases[lease].tenant for lease in book.posted[at : at + TOGETHER]}) == 1


async def test_only_what_runs_or_is_frozen_is_read() -> None:
    states = (LeaseState.OPENING, LeaseState.RUNNING, LeaseState.PAUSED, LeaseState.ENDING, LeaseState.ENDED)
    book = Book(*(Held(lease, state) for lease, state in zip(LEASES, states, strict=True)))
    await run(book, 3)
    assert {lease for lease, _ in book.read_at} == {LEASES[1], LEASES[2]}


@pytest.mark.parametrize("error", [Unavailable("engine.unreachable", "down"), ZeroDivisionError("a bug")])
async def test_a_reading_that_fails_is_missing_and_nothing_else_is(error: Exception) -> None:
    book = Book(Held(LEASES[0], LeaseState.RUNNING), Held(LEASES[1], LeaseState.RUNNING))
    book.fail = error
    await run(book, 10)
    assert Counter(book.posted) == {LEASES[1]: 10}
    book.fail = None
    await run(book, 10)
    assert Counter(book.posted) == {LEASES[0]: 10, LEASES[1]: 20}


async def test_a_clock_that_is_set_back_does_not_stop_the_meter() -> None:
    class Jumping:
        def now(self) -> Instant:
            now = asyncio.get_running_loop().time()
            return Instant(START + round((now - (3600 if now > 5 else 0)) * SECOND))

    book = Book(Held(LEASES[0], LeaseState.RUNNING))
    await run(book, 20, Jumping())
    assert 17 <= len(book.read_at) <= 21
