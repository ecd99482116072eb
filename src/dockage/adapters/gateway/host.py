"""A gateway's machine, lease by lease, as the provider's mind sees it; and what is served, as the daemon tells it.

A lease here is a place in the relay: nothing to prepare, paused by not answering, metered by the bytes that pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

from dockage.domain.deployment import Document
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.routing import Rules
from dockage.domain.usage import Reading
from dockage.ports.hosting import HostFacts, OpenPeer, OpenSource
from dockage.ports.machine import Clock
from dockage.ports.peers import Stream
from dockage.protocol.documents import Signs

from .health import Health
from .listeners import Listeners
from .live import Served
from .upstream import Upstreams

PLACES = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class GatewayHost:
    """A ContainerHost and a Gateway."""

    def __init__(
        self, rules: Rules, clock: Clock, rand: Random, run: str, architecture: str, doors: Listeners
    ) -> None:
        """*run* is new in each process: the counters begin again with it."""
        self.served = Served(rules, clock)
        self.upstreams = Upstreams(asyncio.get_running_loop().time)
        self._run, self._architecture = run, architecture
        self._leases: dict[LeaseId, bool] = {}
        """Prepared ones; whether they are paused."""
        self._doors, self.beside = doors, list[Callable[[], Awaitable[None]]]()
        """*beside*: what else runs while we serve."""
        self._health = Health(self.served, self.upstreams)
        doors.attach(self.served, self.upstreams, rand)
        self._boot = _boot_id()

    # -- Gateway ---------------------------------------------------------------------------------------
    def connect(self, open_peer: OpenPeer) -> None:
        self.upstreams.open_peer = open_peer

    async def publish(self, lease: LeaseId, document: Document) -> None:
        self.served.check(lease, document)
        await self._doors.reserve(document)  # first: a port that cannot be had changes nothing
        try:
            self.served.publish(lease, document)
            self._leases.setdefault(lease, False)
            self._set_paused(lease)
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

    # -- ContainerHost ---------------------------------------------------------------------------------
    async def facts(self) -> HostFacts:
        room = Resources(
            INGRESS.cpu_milli * PLACES, INGRESS.memory_bytes * PLACES, INGRESS.disk_bytes * PLACES
        )
        return HostFacts("gateway", 0, "", self._architecture, room, self._doors.warnings)

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        self._leases.setdefault(lease, False)

    async def pause(self, lease: LeaseId) -> None:
        if lease in self._leases:
            self._leases[lease] = True
            self._set_paused(lease)

    async def thaw(self, lease: LeaseId) -> None:
        if lease in self._leases:
            self._leases[lease] = False
            self._set_paused(lease)

    def _set_paused(self, lease: LeaseId) -> None:
        live = self.served.at(lease)
        if live is not None:
            live.paused = self._leases.get(lease, False)
            live.move()
            live.call_all()

    async def read(self, lease: LeaseId) -> Reading:
        if lease not in self._leases:
            raise UsageError("lease.unknown", f"there is no lease {short(lease)} at this gateway")
        count = self.served.count(lease)
        return Reading(
            boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            boot=self._boot,
            run=self._run,
            cpu_ns=0,
            memory_bytes=0,
            disk_bytes=0,
            tunnel_in_bytes=count.into,
            tunnel_out_bytes=count.out,
        )

    async def teardown(self, lease: LeaseId) -> None:
        self._leases.pop(lease, None)
        self.served.forget(lease)
        await self._doors.follow()

    async def present(self) -> frozenset[LeaseId]:
        return frozenset(self._leases)

    async def serve_engine(self, lease: LeaseId, stream: Stream) -> None:
        raise _no_engine()

    async def serve_tunnel(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        raise _no_engine()

    async def serve_datagrams(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        raise _no_engine()

    async def serve_layers(
        self, lease: LeaseId, stream: Stream, open_source: OpenSource | None = None
    ) -> None:
        raise _no_engine()

    async def serve_seed(self, lease: LeaseId, image: str, stream: Stream) -> None:
        raise _no_engine()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _no_engine() -> Unavailable:
    return Unavailable("gateway.no-engine", "a gateway runs no containers: rent an engine from a provider")


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "boot"
