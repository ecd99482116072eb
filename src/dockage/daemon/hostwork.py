"""The work that the provider's mind wants done on its machine. One lease's work keeps its order.

Counterpart: ``ports.hosting.ContainerHost``. The one rule: what the mind wants *now* is done until it is done,
whatever the engine does meanwhile; the mind hears of it by events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import structlog

from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import LeaseId, short
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports.hosting import ContainerHost

from .driver import Driver
from .perform import reason_of
from .tasks import Jobs

log = structlog.get_logger("dockage.perform")

HOST_TIMEOUT = 120.0
"""For one piece of work on the engine: a teardown kills containers with their own stop time behind them."""
CLEAR_AGAIN = 5.0
"""Between two tries to remove a lease from the machine."""


class HostWork:
    def __init__(self, host: ContainerHost, jobs: Jobs, driver: Callable[[], Driver[Provider]]) -> None:
        self._host, self._jobs, self._driver = host, jobs, driver
        self._locks: WeakValueDictionary[LeaseId, asyncio.Lock] = WeakValueDictionary()
        self._ready: set[LeaseId] = set()
        """Prepared since the daemon started."""
        self._finishing: set[LeaseId] = set()

    def prepare(self, lease: LeaseId, limits: Resources) -> None:
        self._in_order(lease, lambda: self._prepare(lease, limits), "prepare")

    def freeze_or_thaw(self, lease: LeaseId) -> None:
        self._in_order(lease, lambda: self._follow(lease), "freeze or thaw")

    def finish(self, lease: LeaseId) -> None:
        """The mind asks again every while; an engine that is down for a day must not heap up a day's work."""
        if lease in self._finishing:
            return
        self._finishing.add(lease)
        if not self._in_order(lease, lambda: self._finish(lease), "finish"):
            self._finishing.discard(lease)

    def _in_order(self, lease: LeaseId, work: Callable[[], Awaitable[None]], name: str) -> bool:
        """Jobs start in the order of their effects and a lock is fair, so one lease's work keeps its order."""
        lock = self._locks.setdefault(lease, asyncio.Lock())

        async def run() -> None:
            async with lock:
                await work()

        return self._jobs.start(run, f"{name} {short(lease)}")

    async def _prepare(self, lease: LeaseId, limits: Resources) -> None:
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                await self._host.prepare(lease, limits)
                opening = await self._host.read(lease)
        except DockageError as error:
            await self._driver().post(told.HostFailed(lease, reason_of(error), limits))
        except TimeoutError:
            slow = Reason("engine.slow", "the provider's engine does not answer")
            await self._driver().post(told.HostFailed(lease, slow, limits))
        else:
            await self._driver().tell(told.HostPrepared(lease, opening, limits))
            if lease not in self._ready:  # after a restart the machine may be one step behind the mind
                self._ready.add(lease)
                await self._follow(lease)

    async def _follow(self, lease: LeaseId) -> None:
        """Until the machine is as the mind wants it *now*: containers must not run unpaid, nor stay frozen paid,
        because the engine did not answer once."""
        while (mine := self._driver().state.leases.get(lease)) is not None and mine.state in METERED:
            try:
                async with asyncio.timeout(HOST_TIMEOUT):
                    if mine.state is LeaseState.PAUSED:
                        return await self._host.pause(lease)
                    return await self._host.thaw(lease)
            except (Unavailable, TimeoutError) as error:
                log.warning(
                    "lease.neither-frozen-nor-thawed", lease=short(lease), why=str(error) or "timeout"
                )
            await asyncio.sleep(CLEAR_AGAIN)

    async def _finish(self, lease: LeaseId) -> None:
        try:
            await self._read_last(lease)
            await self._clear(lease)
            self._ready.discard(lease)
            await self._driver().tell(told.HostCleared(lease))
        finally:
            self._finishing.discard(lease)

    async def _read_last(self, lease: LeaseId) -> None:
        """Freeze first, so that the final reading is final. A host that can't be read ends the lease unpaid."""
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                await self._host.pause(lease)
                reading = await self._host.read(lease)
        except (DockageError, TimeoutError) as error:
            log.warning("lease.no-final-reading", lease=short(lease), why=str(error) or "timeout")
        else:
            await self._driver().tell(told.MeterRead(lease, reading, final=True))

    async def _clear(self, lease: LeaseId) -> None:
        """Until nothing is left: an engine that is down now comes back, and what it held must go then."""
        while True:
            try:
                async with asyncio.timeout(HOST_TIMEOUT):
                    return await self._host.teardown(lease)
            except (Unavailable, TimeoutError) as error:
                log.warning("lease.not-cleared", lease=short(lease), why=str(error) or "timeout")
                await asyncio.sleep(CLEAR_AGAIN)
