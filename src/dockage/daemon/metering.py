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
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports import ContainerHost

from .driver import Driver

log = structlog.get_logger("dockage.metering")

PERIOD = 1.0


class MeterLoop:
    def __init__(self, driver: Driver[Provider], host: ContainerHost, rand: Random) -> None:
        self._driver, self._host, self._rand = driver, host, rand

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        second = loop.time()
        while True:
            moments = sorted((self._rand.random() * PERIOD, lease) for lease in self._metered())
            for moment, lease in moments:
                await asyncio.sleep(max(0.0, second + moment - loop.time()))
                await self._read(lease)
            second = max(second + PERIOD, loop.time() - PERIOD)
            await asyncio.sleep(max(0.0, second - loop.time()))

    def _metered(self) -> list[LeaseId]:
        return [lease.id for lease in self._driver.state.leases.values() if lease.state in METERED]

    async def _read(self, lease: LeaseId) -> None:
        try:
            reading = await self._host.read(lease)
        except DockageError as error:
            log.warning("meter.unread", lease=short(lease), code=error.code, why=error.message)
        else:
            await self._driver.post(told.MeterRead(lease, reading))
