"""Reads every lease's meter once a second, at a uniformly random moment of that second.

Random, because a tenant that knew the phase could hide its memory from every sample (metering.md §1.4). Neighbours
share a moment, which nobody can foresee either: their bills are one commit, and one tenant's are one payment.
A reading that fails is simply missing: counters telescope, and gauges charge nothing for a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import structlog

from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.lease import METERED
from dockage.domain.units import SECOND
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports import Clock, ContainerHost

from .driver import Driver

log = structlog.get_logger("dockage.metering")

PERIOD = SECOND
TOGETHER = 25
"""Leases that are read at one moment: a few milliseconds of work, during which nothing else moves."""


class MeterLoop:
    def __init__(self, driver: Driver[Provider], host: ContainerHost, clock: Clock, rand: Random) -> None:
        self._driver, self._host, self._clock, self._rand = driver, host, clock, rand

    async def run(self) -> None:
        """The clock's seconds, so that each tick of the mind has one reading in it."""
        while True:
            second = self._clock.now() // PERIOD * PERIOD
            for moment, leases in sorted((self._rand.randrange(PERIOD), group) for group in self._groups()):
                await self._sleep_until(second + moment)
                await self._bill(leases)
            await self._sleep_until(second + PERIOD)

    async def _sleep_until(self, instant: int) -> None:
        """Bounded by one period: a clock that is set back must not stop the meter."""
        await asyncio.sleep(min(PERIOD, max(0, instant - self._clock.now())) / PERIOD)

    def _groups(self) -> list[list[LeaseId]]:
        """A tenant's leases beside each other."""
        metered = sorted((x.tenant, x.id) for x in self._driver.state.leases.values() if x.state in METERED)
        leases = [lease for _, lease in metered]
        return [leases[at : at + TOGETHER] for at in range(0, len(leases), TOGETHER)]

    async def _bill(self, leases: Sequence[LeaseId]) -> None:
        """All are read before the first is told, so that the mind hears of them in one breath."""
        for event in [event for lease in leases if (event := await self._read(lease)) is not None]:
            await self._driver.post(event)

    async def _read(self, lease: LeaseId) -> told.MeterRead | None:
        try:
            return told.MeterRead(lease, await self._host.read(lease))
        except DockageError as error:
            log.warning("meter.unread", lease=short(lease), code=error.code, why=error.message)
        except Exception:  # a bug in one lease's reading must not stop the meter of the others
            log.exception("meter.crashed", lease=short(lease))
        return None
