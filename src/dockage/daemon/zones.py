"""The tenant's zone in the market: at which public addresses each of our deployments is, so that any gateway can answer
for us. Counterpart: ``naming.py``. Nothing is published before a deployment has a gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from dockage.domain.errors import DockageError
from dockage.domain.units import after
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Directory
from dockage.protocol.records import ZONE_LIFETIME, ZoneBody, seal, zone_topic
from dockage.protocol.zones import write_zone

log = structlog.get_logger("dockage.zones")

AGAIN_SEC = 3600.0
RETRY_SEC = 10.0


class Zones:
    def __init__(self, directory: Directory, keys: Keys, clock: Clock, stamp_bits: int) -> None:
        self._directory, self._keys, self._clock, self._bits = directory, keys, clock, stamp_bits
        self._apps: dict[str, tuple[str, ...]] = {}
        self._told = False
        """Something was published: an empty zone has to replace it."""
        self._moved = asyncio.Event()

    def tell(self, deployment: str, addresses: Sequence[str]) -> None:
        """The public addresses of the gateways that serve *deployment* now; none takes it out of the zone. Raises
        UsageError("zone.oversized")."""
        apps = {**self._apps, deployment: tuple(addresses)}
        apps = {name: found for name, found in apps.items() if found}
        if apps != self._apps:
            write_zone(self._keys.node, apps)
            self._apps = apps
            self._moved.set()

    async def keep_up(self) -> None:
        """Until cancelled: published at each change, and each hour."""
        while True:
            wait = AGAIN_SEC if await self._publish() else RETRY_SEC
            try:
                async with asyncio.timeout(wait):
                    await self._moved.wait()
            except TimeoutError:
                pass

    async def _publish(self) -> bool:
        self._moved.clear()
        if not self._apps and not self._told:
            return True
        now, me = self._clock.now(), self._keys.node
        body = ZoneBody(now, after(now, ZONE_LIFETIME), write_zone(me, self._apps))
        try:
            blob = await asyncio.to_thread(seal, "zone", me, body, self._keys.sign, self._bits)
            await self._directory.publish(zone_topic(me), blob)
        except DockageError as error:
            log.warning("zone.unpublished", code=error.code, why=error.message)
            return False
        self._told = True
        return True
