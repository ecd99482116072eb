"""One heap, one clock, one random generator. Nothing sleeps.

``run`` pops the earliest thing that is due and does it. The same seed gives the same history, whatever the hash
seed of the interpreter; ``digest`` is the proof. Ties are broken by the order of planning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from dockage.domain.units import SECOND, Duration, Instant

Action = Callable[[], None]
START = Instant(1_800_000_000 * SECOND)
SAMPLE = 101
"""Every so many events the history goes into the digest."""


class World:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = START
        self.random = Random(seed)
        self.events = 0
        self._heap: list[tuple[Instant, int, Action]] = []
        self._serial = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def later(self, delay: int, action: Action) -> None:
        """Do *action* in *delay* nanoseconds."""
        self._serial += 1
        heappush(self._heap, (Instant(self.now + delay), self._serial, action))

    def every(self, period: int, action: Action, *, first: int = 0) -> None:
        def again() -> None:
            action()
            self.later(period, again)

        self.later(first, again)

    def run(self, time: Duration) -> None:
        """Let *time* pass."""
        heap, until = self._heap, self.now + time
        while heap and heap[0][0] <= until:
            self.now, serial, action = heappop(heap)
            self.events += 1
            if self.events % SAMPLE == 0:
                self.note(b"%d %d" % (self.now, serial))
            action()
        self.now = Instant(until)

    def note(self, fact: bytes) -> None:
        """Make *fact* part of the history that the digest stands for."""
        self._hash.update(fact)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    @property
    def elapsed(self) -> Duration:
        return Duration(self.now - START)

    def __repr__(self) -> str:
        return f"<World seed={self.seed} {self.elapsed / SECOND:.0f} s, {self.events} events>"
