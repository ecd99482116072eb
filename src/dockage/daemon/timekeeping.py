"""A step of the machine's clock is followed once no lease runs, neither rented nor sold: a bill would seem impossible.

Counterpart: ``adapters/system/clock.py``. What is exchanged with others about the time of day (offers, records, grants)
allows for clocks that differ by minutes; who leaves a clock wrong by more has to restart the node, and is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from dockage.domain.lease import LeaseState
from dockage.domain.units import MILLISECOND, SECOND, Duration

from .node import Node

log = structlog.get_logger("dockage.clock")

LOOK_SEC = 5.0
STEP = Duration(100 * MILLISECOND)
"""Less is not worth a word."""


class Settable(Protocol):
    def stepped(self) -> Duration: ...
    def follow(self) -> None: ...


class Timekeeping:
    def __init__(self, clock: Settable, is_busy: Callable[[], bool]) -> None:
        self._clock, self._is_busy = clock, is_busy
        self._told = False

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SEC)

    def look(self) -> None:
        step = self._clock.stepped()
        if abs(step) < STEP:
            self._told = False
        elif not self._is_busy():
            self._clock.follow()
            log.info("clock.followed", seconds=round(step / SECOND, 3))
        elif not self._told:
            self._told = True
            log.warning(
                "clock.set",
                seconds=round(step / SECOND, 3),
                why="the machine's clock was set while leases run: it is followed once they are over, or at a restart",
            )


def has_leases(node: Node) -> bool:
    minds = (node.tenant, node.provider)
    return any(
        lease.state is not LeaseState.ENDED
        for mind in minds
        if mind is not None
        for lease in mind.state.leases.values()
    )
