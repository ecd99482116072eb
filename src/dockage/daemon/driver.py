"""Turns a pure mind into something that lives: step at once, then journal, then state, then effects.

One writer per mind: what happens is stepped when it is told, one event after another; what that changed is written
once for all that came meanwhile, and only then are the effects performed. A ``kill -9`` between journal and effects
is healed at the next start by asking the mind what is ``outstanding``. A journal that fails ends ``run``, and with it
the daemon: nothing that is not on disk may be acted upon.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import structlog

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.units import Instant
from dockage.node.effects import AnyEffect, worth_performing
from dockage.node.events import AnyEvent
from dockage.ports.machine import Clock, Journal, Row

from .ondisk import on_disk

log = structlog.get_logger("dockage.driver")

S = TypeVar("S")

BATCH_MAX = 1_000
"""Events that may wait for one commit. Beyond it the one who tells waits, which slows its peer's stream down."""
PACE_SEC = 0.02
"""From one commit to the next, so that under load many events share one. The first after a pause is written at once."""

Step = Callable[[S, AnyEvent, Instant], tuple[S, tuple[AnyEffect, ...]]]
Changed = Callable[[S, S], Sequence[Row]]
"""The rows in which two states differ."""


class _Batch:
    """Events that are stepped and not on disk yet."""

    def __init__(self) -> None:
        self.events = 0
        self.effects: list[AnyEffect] = []
        self.over = asyncio.Event()
        self.failure: Unavailable | None = None

    async def settled(self) -> None:
        await self.over.wait()
        if self.failure is not None:
            raise self.failure

    def end(self, failure: Unavailable | None = None) -> None:
        self.failure = failure
        self.over.set()


class Driver(Generic[S]):
    def __init__(
        self,
        state: S,
        step: Step[S],
        changed: Changed[S],
        journal: Journal,
        perform: Callable[[AnyEffect], None],
        clock: Clock,
    ) -> None:
        self.state = state
        """The newest state that is on disk: what to act on."""
        self.newest = state
        """The state after all that was told: what to judge by."""
        self._step, self._changed, self._journal = step, changed, journal
        self._perform, self._clock = perform, clock
        self._batch = _Batch()
        self._wake, self._moved = asyncio.Event(), asyncio.Event()
        self._next_commit = 0.0

    async def tell(self, event: AnyEvent) -> None:
        """Returns once the event is on disk and its effects are on their way. Raises the mind's PeerError."""
        batch = await self._room()
        self._take(batch, event)
        await batch.settled()

    async def submit(self, event: AnyEvent) -> None:
        """Returns once the mind has taken the event: what it says is in order. Raises the mind's PeerError."""
        self._take(await self._room(), event)

    async def post(self, event: AnyEvent) -> None:
        """The same for those who can do nothing about a refusal."""
        with contextlib.suppress(Exception):
            await self.submit(event)

    async def moved(self) -> None:
        """Returns after the next batch: for those who wait until the state has become something."""
        await self._moved.wait()

    async def run(self, outstanding: Iterable[AnyEffect] = ()) -> None:
        """Until cancelled. Raises what the journal raised."""
        self._perform_all(outstanding)
        while True:
            await self._wake.wait()
            if self.newest is not self.state:
                await asyncio.sleep(self._next_commit - asyncio.get_running_loop().time())
            await self._commit()

    async def _room(self) -> _Batch:
        """Nothing is awaited between this and the step: the batch is still the one that is being filled."""
        while self._batch.events >= BATCH_MAX:
            await self._batch.over.wait()
        return self._batch

    def _take(self, batch: _Batch, event: AnyEvent) -> None:
        try:
            self.newest, effects = self._step(self.newest, event, self._clock.now())
        except PeerError:
            raise
        except Exception:
            # A bug of ours. The step is pure, so nothing has happened; one event costs no other its turn.
            log.exception("event.crashed", kind=type(event).__name__)
            raise
        batch.events += 1
        batch.effects += effects
        self._wake.set()

    async def _commit(self) -> None:
        batch, state = self._batch, self.newest
        self._batch = _Batch()
        self._wake.clear()
        rows = self._changed(self.state, state)
        if rows:
            await self._write(rows, batch)
        self.state = state
        self._moved.set()
        self._moved = asyncio.Event()
        self._perform_all(worth_performing(batch.effects))
        batch.end()

    async def _write(self, rows: Sequence[Row], batch: _Batch) -> None:
        self._next_commit = asyncio.get_running_loop().time() + PACE_SEC
        try:
            # In a thread: an fsync takes a millisecond or twenty, and tunnels share this loop.
            await on_disk(self._journal.write, rows)
        except Exception as error:
            log.critical("journal.failed", why=str(error), rows=len(rows))
            batch.end(Unavailable("journal.failed", f"the journal cannot be written: {error}"))
            raise

    def _perform_all(self, effects: Iterable[AnyEffect]) -> None:
        for effect in effects:
            try:
                self._perform(effect)
            except Exception:  # a bug of ours, or a peer's data that got too far: the others are still due
                log.exception("effect.crashed", kind=type(effect).__name__)
