"""Reads every lease's meter once a second, at a uniformly random moment of that second, and bills it at its end.

Random, because a tenant that knew the phase could hide its memory from every sample (metering.md §1.4). At the end,
because a statement that came with the sample would tell that the rest of the second is watched by nobody. A sample
stands for its whole second, wherever it fell: weighted by the time since the one before, early ones would be cheap.
A reading that fails is simply missing: counters telescope, and gauges charge nothing for a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.lease import METERED
from dockage.domain.units import SECOND
from dockage.domain.usage import Reading
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports.hosting import ContainerHost
from dockage.ports.machine import Clock

from .driver import Driver

log = structlog.get_logger("dockage.metering")

PERIOD = SECOND
TOGETHER = 25
"""Leases that are read at one moment: a few milliseconds of work, during which nothing else moves."""


class _Sample(NamedTuple):
    lease: LeaseId
    reading: Reading
    at: float
    """The loop's time, to know how much later its second is over."""


class MeterLoop:
    def __init__(self, driver: Driver[Provider], host: ContainerHost, clock: Clock, rand: Random) -> None:
        self._driver, self._host, self._clock, self._rand = driver, host, clock, rand

    async def run(self) -> None:
        """The clock's seconds, so that each tick of the mind has one reading in it."""
        while True:
            second, samples = self._clock.now() // PERIOD * PERIOD, list[_Sample]()
            for moment, leases in sorted((self._rand.randrange(PERIOD), group) for group in self._groups()):
                await self._sleep_until(second + moment)
                samples += [sample for lease in leases if (sample := await self._read(lease)) is not None]
            await self._sleep_until(second + PERIOD)
            await self._bill(samples)

    async def _sleep_until(self, instant: int) -> None:
        """Never earlier, as a sleep may end, for that would be another second. Not over a period: a clock that is set
        back must not stop the meter."""
        left = instant - self._clock.now()
        if 0 < left <= PERIOD:
            await asyncio.sleep(max(left / SECOND, 0.001))  # a loop may wake us half a millisecond early
            await self._sleep_until(instant)

    def _groups(self) -> list[list[LeaseId]]:
        """A tenant's leases beside each other."""
        metered = sorted((x.tenant, x.id) for x in self._driver.state.leases.values() if x.state in METERED)
        leases = [lease for _, lease in metered]
        return [leases[at : at + TOGETHER] for at in range(0, len(leases), TOGETHER)]

    async def _bill(self, samples: Sequence[_Sample]) -> None:
        """All in one breath: their bills are one commit, and one tenant's are one payment."""
        now = asyncio.get_running_loop().time()
        for n, (lease, reading, at) in enumerate(samples):
            if n % TOGETHER == TOGETHER - 1:
                await asyncio.sleep(0)  # tunnels share this loop
            until = reading.boottime_ns + round((now - at) * SECOND)
            await self._driver.post(told.MeterRead(lease, replace(reading, until_ns=until)))

    async def _read(self, lease: LeaseId) -> _Sample | None:
        try:
            reading = await self._host.read(lease)
            return _Sample(lease, reading, asyncio.get_running_loop().time())
        except DockageError as error:
            log.warning("meter.unread", lease=short(lease), code=error.code, why=error.message)
        except Exception:  # a bug in one lease's reading must not stop the meter of the others
            log.exception("meter.crashed", lease=short(lease))
        return None
