"""The accounts of the past: read on demand, thinned out once an hour. Counterpart: ``domain/history.py``.

It is in the journal only: a node that runs for years needs no more memory than a new one.
"""

from __future__ import annotations

import asyncio

from dockage.domain.errors import UsageError
from dockage.domain.history import Spent, aged, series
from dockage.domain.units import Duration, Instant
from dockage.node import records
from dockage.ports.machine import Clock, Journal

SPANS_MAX = 50_000
"""In one answer, which is made in memory."""
THIN_SEC = 3600.0


class History:
    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock

    async def spent(self, step: Duration, since: Instant) -> list[Spent]:
        """Of what we rented. Raises UsageError("history.long")."""
        return await asyncio.to_thread(self._spans, records.SPENT, step, since)

    async def earned(self, step: Duration, since: Instant) -> list[Spent]:
        """Of what we sold. Raises UsageError("history.long")."""
        return await asyncio.to_thread(self._spans, records.EARNED, step, since)

    async def thin(self) -> None:
        await asyncio.to_thread(self._thin)

    def _spans(self, kind: str, step: Duration, since: Instant) -> list[Spent]:
        rows = self._journal.load(only=(kind,))
        totals = [(records.moment_of(row.key), records.decode_total(row.value)) for row in rows]
        found = sorted(series(totals, step, since), key=lambda span: (span.start, span.lease))
        if len(found) > SPANS_MAX:
            raise UsageError(
                "history.long",
                f"that is {len(found)} rows, and {SPANS_MAX} is the most: ask for less time or longer steps",
            )
        return found

    def _thin(self) -> None:
        for kind in records.HISTORY:
            moments = [records.moment_of(row.key) for row in self._journal.load(only=(kind,))]
            if gone := aged(moments, self._clock.now()):
                self._journal.forget([(kind, records.moment_key(one)) for one in gone])
