"""Read once in each second of the clock, at a moment that nobody can foresee, and billed when the second is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import pytest

from dockage.daemon.metering import TOGETHER, MeterLoop
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, SECOND, Instant
from dockage.domain.usage import Meter, Reading, advance
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
        self.told_at: list[float] = []
        self.readings: list[Reading] = []
        self.fail: Exception | None = None
        self.holds: Callable[[float], int] = lambda now: 0
        """The tenant's memory at a moment."""

    async def read(self, lease: LeaseId) -> Any:
        now = asyncio.get_running_loop().time()
        self.read_at.append((lease, now))
        if self.fail is not None and lease == LEASES[0]:
            raise self.fail
        return Reading(round(now * SECOND), "boot", "run", round(now * SECOND), self.holds(now), 0)

    async def post(self, event: Any) -> None:
        self.posted.append(event.lease)
        self.told_at.append(asyncio.get_running_loop().time())
        self.readings.append(event.reading)


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
    await run(book, 1.5)
    for at in (0, TOGETHER):
        assert len({book.leases[lease].tenant for lease in book.posted[at : at + TOGETHER]}) == 1


async def test_only_what_runs_or_is_frozen_is_read() -> None:
    states = (LeaseState.OPENING, LeaseState.RUNNING, LeaseState.PAUSED, LeaseState.ENDING, LeaseState.ENDED)
    book = Book(*(Held(lease, state) for lease, state in zip(LEASES, states, strict=True)))
    await run(book, 2.5)
    assert {lease for lease, _ in book.read_at} == {LEASES[1], LEASES[2]}


@pytest.mark.parametrize("error", [Unavailable("engine.unreachable", "down"), ZeroDivisionError("a bug")])
async def test_a_reading_that_fails_is_missing_and_nothing_else_is(error: Exception) -> None:
    book = Book(Held(LEASES[0], LeaseState.RUNNING), Held(LEASES[1], LeaseState.RUNNING))
    book.fail = error
    await run(book, 10.5)
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


# -- a tenant that sees its bills and lies in wait ---------------------------------------------------------
async def test_the_moment_of_a_statement_tells_nothing_about_the_next_look() -> None:
    """It comes when a second is over; in the next one all moments are as likely, whatever came before."""
    book = Book(Held(LEASES[0], LeaseState.RUNNING))
    await run(book, 2000.5)
    assert all((told + 1e-6) % 1 < 0.002 for told in book.told_at)
    phases = [at % 1 for _, at in book.read_at][:2000]
    for early in (True, False):  # after an early look as after a late one
        following = [now for before, now in pairwise(phases) if (before < 0.5) is early]
        tenths = Counter(int(phase * 10) for phase in following)
        assert len(tenths) == 10
        assert min(tenths.values()) > 0.6 * len(following) / 10


@pytest.mark.parametrize("starts", [0.0, 0.25, 0.5, 0.9])
async def test_memory_that_is_held_only_at_one_place_of_each_second_is_billed_like_any_other(
    starts: float,
) -> None:
    book = Book(Held(LEASES[0], LeaseState.RUNNING))
    book.holds = lambda now: GIB if starts <= now % 1 < starts + 0.1 else 0
    await run(book, 2000.5)
    assert billed(book) == pytest.approx(0.1 * 1024 * 2000 * 1000, rel=0.25)


async def test_memory_that_is_held_until_it_was_seen_and_let_go_then_costs_what_it_was() -> None:
    """Whoever knew when the look had come would hold on to nothing for the rest of the second, and be billed for less
    than it held. With the statement at the end there is nothing to know it by: this one lets go as soon as it hears."""
    book = Book(Held(LEASES[0], LeaseState.RUNNING))
    book.holds = lambda now: 0 if book.told_at and now - book.told_at[-1] < 0.5 else GIB
    await run(book, 2000.5)
    assert billed(book) == pytest.approx(0.5 * 1024 * 2000 * 1000, rel=0.1)


async def test_a_bill_made_in_between_is_neither_undone_nor_charged_twice() -> None:
    """The last reading of a lease is not the loop's: it comes at any moment of a second that was read already."""
    book = Book(Held(LEASES[0], LeaseState.RUNNING))
    book.holds = lambda now: GIB
    await run(book, 3.5)
    first, second, third = book.readings
    between = Reading(round(2.999 * SECOND), "boot", "run", round(2.999 * SECOND), GIB, 0)
    meter = Meter()
    for reading in (first, second, between, third):
        meter = advance(meter, reading, Resources())
    assert meter.usage.cpu_ns == between.cpu_ns - first.cpu_ns
    assert meter.usage.memory_mib_ms == 1024 * 1999


def billed(book: Book) -> int:
    """MiB ms of memory."""
    meter = Meter()
    for reading in book.readings:
        meter = advance(meter, reading, Resources(memory_bytes=MIB))
    return meter.usage.memory_mib_ms
