"""Reads every lease's meter once a second, at a uniformly random moment of that second.

Random, because a tenant that knew the phase could hide its memory from every sample (metering.md §1.4).
A reading that fails is simply missing: counters telescope, and gauges charge nothing for a gap.
"""

from __future__ import annotations

import asyncio
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


class MeterLoop:
    def __init__(self, driver: Driver[Provider], host: ContainerHost, clock: Clock, rand: Random) -> None:
        self._driver, self._host, self._clock, self._rand = driver, host, clock, rand

    async def run(self) -> None:
        """The clock's seconds, so that each tick of the mind has one reading in it."""
        while True:
            second = self._clock.now() // PERIOD * PERIOD
            moments = sorted((self._rand.randrange(PERIOD), lease) for lease in self._metered())
            for moment, lease in moments:
                await self._sleep_until(second + moment)
                await self._read(lease)
            await self._sleep_until(second + PERIOD)

    async def _sleep_until(self, instant: int) -> None:
        """Bounded by one period: a clock that is set back must not stop the meter."""
        await asyncio.sleep(min(PERIOD, max(0, instant - self._clock.now())) / PERIOD)

    def _metered(self) -> list[LeaseId]:
        return [lease.id for lease in self._driver.state.leases.values() if lease.state in METERED]

    async def _read(self, lease: LeaseId) -> None:
        try:
            reading = await self._host.read(lease)
        except DockageError as error:
            log.warning("meter.unread", lease=short(lease), code=error.code, why=error.message)
        except Exception:  # a bug in one lease's reading must not stop the meter of the others
            log.exception("meter.crashed", lease=short(lease))
        else:
            await self._driver.post(told.MeterRead(lease, reading))
