"""Turns a pure mind into something that lives: drain the inbox, step, journal, then state, then effects.

One writer per mind: events are stepped one after another, what changed is written once for the whole
batch, and only then are the effects performed. A ``kill -9`` between journal and effects is healed at
the next start by asking the mind what is ``outstanding``. A journal that fails ends ``run``, and with it
the daemon: nothing that is not on disk may be acted upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import structlog

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.units import Instant
from dockage.node.effects import AnyEffect
from dockage.node.events import AnyEvent
from dockage.ports import Clock, Journal, Row

log = structlog.get_logger("dockage.driver")

S = TypeVar("S")

INBOX_MAX = 10_000
"""Events waiting. Beyond it the one who tells waits, which slows its peer's stream down."""
BATCH_MAX = 500

Step = Callable[[S, AnyEvent, Instant], tuple[S, tuple[AnyEffect, ...]]]
Changed = Callable[[S, S], Sequence[Row]]
"""The rows in which two states differ."""


class _Letter(NamedTuple):
    event: AnyEvent
    answer: asyncio.Future[None] | None


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
        """The newest state that is on disk."""
        self._step, self._changed, self._journal = step, changed, journal
        self._perform, self._clock = perform, clock
        self._inbox: asyncio.Queue[_Letter] = asyncio.Queue(INBOX_MAX)
        self._moved = asyncio.Event()

    async def tell(self, event: AnyEvent) -> None:
        """Returns once the event is on disk and its effects are on their way. Raises the mind's PeerError."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._inbox.put(_Letter(event, answer))
        await answer

    async def post(self, event: AnyEvent) -> None:
        """Tell without waiting for it; waits only while the inbox is full."""
        await self._inbox.put(_Letter(event, None))

    async def moved(self) -> None:
        """Returns after the next batch: for those who wait until the state has become something."""
        await self._moved.wait()

    async def run(self, outstanding: Iterable[AnyEffect] = ()) -> None:
        """Until cancelled. Raises what the journal raised."""
        self._perform_all(outstanding)
        while True:
            await self._batch([await self._inbox.get(), *self._waiting()])

    def _waiting(self) -> Iterable[_Letter]:
        for _ in range(min(self._inbox.qsize(), BATCH_MAX)):
            yield self._inbox.get_nowait()

    async def _batch(self, letters: Sequence[_Letter]) -> None:
        state, effects = self.state, list[AnyEffect]()
        taken: list[_Letter] = []
        now = self._clock.now()
        for letter in letters:
            try:
                state, more = self._step(state, letter.event, now)
            except PeerError as error:
                _refuse(letter, error)
            except Exception as error:
                # A bug of ours. The step is pure, so nothing has happened; one event costs no other its turn.
                log.exception("event.crashed", kind=type(letter.event).__name__)
                _refuse(letter, error)
            else:
                effects += more
                taken.append(letter)
        await self._commit(state, taken)
        self._perform_all(effects)
        for letter in taken:
            if letter.answer is not None and not letter.answer.done():
                letter.answer.set_result(None)

    async def _commit(self, state: S, taken: Sequence[_Letter]) -> None:
        rows = self._changed(self.state, state)
        if rows:
            try:
                # In a thread: an fsync takes a millisecond or twenty, and tunnels share this loop.
                await asyncio.to_thread(self._journal.write, rows)
            except Exception as error:
                log.critical("journal.failed", why=str(error), rows=len(rows))
                for letter in taken:
                    _refuse(letter, Unavailable("journal.failed", f"the journal cannot be written: {error}"))
                raise
        self.state = state
        self._moved.set()
        self._moved = asyncio.Event()

    def _perform_all(self, effects: Iterable[AnyEffect]) -> None:
        for effect in effects:
            try:
                self._perform(effect)
            except Exception:  # a bug of ours, or a peer's data that got too far: the others are still due
                log.exception("effect.crashed", kind=type(effect).__name__)


def _refuse(letter: _Letter, error: Exception) -> None:
    if letter.answer is not None and not letter.answer.done():
        letter.answer.set_exception(error)
