"""A machine that sells places instead of containers, lease by lease: at a gateway, or at a relay.

A place needs no preparation, is paused by not serving it, and is metered by the bytes that pass. What passes is known
by whoever derives from this; the provider's mind sees a ``ContainerHost`` as any other.
"""

from __future__ import annotations

import time
from pathlib import Path

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.usage import Reading
from dockage.ports.hosting import HostFacts, OpenSource
from dockage.ports.peers import Stream

PLACES = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PlaceHost:
    """*name* is what it is for people, *run* new in each process: the counters begin again with it."""

    def __init__(self, name: str, run: str, architecture: str) -> None:
        self.name, self._run, self._architecture = name, run, architecture
        self.places: dict[LeaseId, bool] = {}
        """Prepared leases; whether they are paused."""
        self.warnings: tuple[str, ...] = ()
        self._boot = _boot_id()

    # -- of whoever derives ----------------------------------------------------------------------------
    def count(self, lease: LeaseId) -> tuple[int, int]:
        """Bytes that came (from the tenant, for the tenant) since the process began."""
        raise NotImplementedError

    def follow(self, lease: LeaseId) -> None:
        """The place is there, or is paused or not, as ``places`` says."""
        raise NotImplementedError

    # -- ContainerHost ---------------------------------------------------------------------------------
    async def facts(self) -> HostFacts:
        room = Resources(
            INGRESS.cpu_milli * PLACES, INGRESS.memory_bytes * PLACES, INGRESS.disk_bytes * PLACES
        )
        return HostFacts(self.name, 0, "", self._architecture, room, self.warnings)

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        self.places.setdefault(lease, False)
        self.follow(lease)

    async def pause(self, lease: LeaseId) -> None:
        self._set_paused(lease, True)

    async def thaw(self, lease: LeaseId) -> None:
        self._set_paused(lease, False)

    def _set_paused(self, lease: LeaseId, paused: bool) -> None:
        if lease in self.places:
            self.places[lease] = paused
            self.follow(lease)

    async def read(self, lease: LeaseId) -> Reading:
        self._check(lease)
        into, out = self.count(lease)
        return Reading(
            boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            boot=self._boot,
            run=self._run,
            cpu_ns=0,
            memory_bytes=0,
            disk_bytes=0,
            tunnel_in_bytes=into,
            tunnel_out_bytes=out,
        )

    async def teardown(self, lease: LeaseId) -> None:
        self.places.pop(lease, None)
        self.follow(lease)

    async def present(self) -> frozenset[LeaseId]:
        return frozenset(self.places)

    async def serve_engine(self, lease: LeaseId, stream: Stream) -> None:
        raise self._no_engine(lease)

    async def serve_tunnel(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        raise self._no_engine(lease)

    async def serve_datagrams(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        raise self._no_engine(lease)

    async def serve_layers(
        self, lease: LeaseId, stream: Stream, open_source: OpenSource | None = None
    ) -> None:
        raise self._no_engine(lease)

    async def serve_seed(self, lease: LeaseId, image: str, stream: Stream) -> None:
        raise self._no_engine(lease)

    def _no_engine(self, lease: LeaseId) -> Unavailable:
        self._check(lease)
        return Unavailable(
            "lease.no-engine", f"a {self.name} runs no containers: rent an engine from a provider"
        )

    def _check(self, lease: LeaseId) -> None:
        if lease not in self.places:
            raise UsageError("lease.unknown", f"there is no lease {short(lease)} at this {self.name}")


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return "boot"
