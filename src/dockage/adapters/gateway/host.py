"""A gateway's machine, lease by lease, as the provider's mind sees it; and what is served, as the daemon tells it.

A lease here is a place in the relay: nothing to prepare, paused by not answering, metered by the bytes that pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from random import Random

from dockage.domain.deployment import Document
from dockage.domain.identity import LeaseId
from dockage.domain.routing import Rules
from dockage.ports.hosting import HostFacts, OpenPeer
from dockage.ports.machine import Clock
from dockage.protocol.documents import Signs
from dockage.wire.places import PlaceHost

from .health import Health
from .listeners import Listeners
from .served import Served
from .upstream import Upstreams


class GatewayHost(PlaceHost):
    """A ContainerHost and a Gateway."""

    def __init__(
        self, rules: Rules, clock: Clock, rand: Random, run: str, architecture: str, doors: Listeners
    ) -> None:
        super().__init__("gateway", run, architecture)
        self.served = Served(rules, clock)
        self.upstreams = Upstreams(asyncio.get_running_loop().time)
        self._doors, self.beside = doors, list[Callable[[], Awaitable[None]]]()
        """*beside*: what else runs while we serve."""
        self._health = Health(self.served, self.upstreams)
        doors.attach(self.served, self.upstreams, rand)

    # -- Gateway ---------------------------------------------------------------------------------------
    def connect(self, open_peer: OpenPeer) -> None:
        self.upstreams.open_peer = open_peer

    async def publish(self, lease: LeaseId, document: Document) -> None:
        self.served.check(lease, document)
        await self._doors.reserve(document)  # first: a port that cannot be had changes nothing
        try:
            self.served.publish(lease, document)
            self.places.setdefault(lease, False)
            self.follow(lease)
        finally:
            await self._doors.follow()

    def withdraw(self, lease: LeaseId) -> None:
        self.served.withdraw(lease)

    def documents(self) -> Mapping[LeaseId, Document]:
        return self.served.documents()

    def signs(self, lease: LeaseId) -> Signs | None:
        live = self.served.at(lease)
        return None if live is None else live.signs()

    async def moved(self, lease: LeaseId, within: float) -> None:
        live = self.served.at(lease)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await (live.changed.wait() if live is not None else asyncio.sleep(within))

    def drop(self, names: Collection[str]) -> Collection[LeaseId]:
        return self.served.drop(names)

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._health.run())
            tasks.create_task(self._doors.run())
            for work in self.beside:
                tasks.create_task(_run(work))

    # -- ContainerHost: what PlaceHost leaves open ----------------------------------------------------------
    async def facts(self) -> HostFacts:
        self.warnings = self._doors.warnings
        return await super().facts()

    def count(self, lease: LeaseId) -> tuple[int, int]:
        count = self.served.count(lease)
        return count.into, count.out

    def follow(self, lease: LeaseId) -> None:
        live = self.served.at(lease)
        if live is not None:
            live.paused = self.places.get(lease, False)
            live.move()
            live.call_all()

    async def teardown(self, lease: LeaseId) -> None:
        self.places.pop(lease, None)
        self.served.forget(lease)
        await self._doors.follow()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
