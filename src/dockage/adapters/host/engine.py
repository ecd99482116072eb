"""What a lease has inside the Docker engine, found by its label: containers, networks, volumes, images.

The label is set by us on the default network and by the Engine API filter on all the rest; nothing without it is
ever touched. A 404 or 409 in a removal means that somebody else (``--rm``, the tenant) was faster.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LEASE_LABEL
from dockage.protocol.images import lease_repository
from dockage.wire.engine import EngineClient

from . import names
from .command import together

AT_ONCE = 8
"""Calls in flight to one engine; it works on few in parallel anyway."""
PAUSE_ROUNDS = 5
NO_DISK = "overlay mount"
"""In the engine's words when a container's layer is a link to nothing (moby daemon/graphdriver/overlay2)."""
BRIDGE_OPTION = "com.docker.network.bridge.name"


class LeaseEngine:
    def __init__(self, client: EngineClient) -> None:
        self._client = client
        self._gate = asyncio.Semaphore(AT_ONCE)

    # -- containers --------------------------------------------------------------------------------
    async def containers(self, lease: LeaseId, *states: str) -> list[dict[str, Any]]:
        filters: dict[str, list[str]] = {"label": [names.label(lease)]}
        if states:
            filters["status"] = list(states)
        params = {"all": "1", "filters": json.dumps(filters)}
        found: list[dict[str, Any]] = await self._client.must("GET", "/containers/json", params=params)
        return found

    async def pause(self, lease: LeaseId) -> None:
        """In rounds: one that was just restarting comes up after we looked."""
        for attempt in range(PAUSE_ROUNDS):
            running = await self.containers(lease, "running", "restarting")
            if not running:
                return
            await self._each([("POST", f"/containers/{each['Id']}/pause", {}) for each in running])
            await asyncio.sleep(0.1 * attempt)
        if await self.containers(lease, "running"):
            raise Unavailable(
                "lease.pause", f"lease {lease.hex()[:8]} has containers that do not stay paused"
            )

    async def thaw(self, lease: LeaseId) -> None:
        paused = await self.containers(lease, "paused")
        await self._each([("POST", f"/containers/{each['Id']}/unpause", {}) for each in paused])

    async def resume(self, lease: LeaseId, guard: str) -> None:
        """Start what the engine tried to start by itself, and could not for want of *guard* or of the lease's disk: so
        it was its restart policy's wish, and nobody had stopped it."""
        for each in await self.containers(lease, "exited"):
            found = await self._client.call("GET", f"/containers/{each['Id']}/json")
            said = str(found.json()["State"].get("Error")) if found.ok else ""
            if guard in said or NO_DISK in said:
                await self._one("POST", f"/containers/{each['Id']}/start", {})

    async def remove_containers(self, lease: LeaseId, thaw: Callable[[], None]) -> None:
        """*thaw* wakes all of the lease's processes: a frozen one, such as an exec that began as its container was
        paused, cannot be killed, and the engine would wait for it."""
        for attempt in range(PAUSE_ROUNDS):
            await asyncio.sleep(0.2 * attempt)  # "removal in progress" is a 409 too
            left = await self.containers(lease)
            if not left:
                return
            thaw()
            gone = {"force": "1", "v": "1"}
            await self._each([("DELETE", f"/containers/{each['Id']}", gone) for each in left])
        raise Unavailable("lease.containers", f"containers of lease {lease.hex()[:8]} cannot be removed")

    # -- networks and volumes ----------------------------------------------------------------------
    async def make_network(self, lease: LeaseId) -> None:
        name = names.network(lease)
        found = await self._client.call("GET", f"/networks/{name}")
        if found.ok:
            return
        body = {
            "Name": name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "EnableIPv6": False,  # an engine may have another default
            "Options": network_options(lease, 0),
            "Labels": {LEASE_LABEL: lease.hex()},
        }
        await self._client.must("POST", "/networks/create", body=body)

    async def remove_networks(self, lease: LeaseId) -> None:
        for attempt in range(PAUSE_ROUNDS):
            await asyncio.sleep(0.2 * attempt)
            left = await self._client.must("GET", "/networks", params=_labelled(lease))
            if not left:
                return
            await self._each([("DELETE", f"/networks/{each['Id']}", {}) for each in left])
        raise Unavailable("lease.networks", f"networks of lease {lease.hex()[:8]} are still in use")

    async def remove_volumes(self, lease: LeaseId) -> None:
        found = await self._client.must("GET", "/volumes", params=_labelled(lease))
        each_name = [each["Name"] for each in (found or {}).get("Volumes") or []]
        await self._each([("DELETE", f"/volumes/{name}", {"force": "1"}) for name in each_name])

    # -- images ------------------------------------------------------------------------------------
    async def remove_images(self, lease: LeaseId) -> None:
        """Only our tags: the engine keeps what another lease, or the owner, still has a tag on."""
        params = {"filters": json.dumps({"reference": [lease_repository(lease)]})}
        found = await self._client.must("GET", "/images/json", params=params)
        ours = lease_repository(lease) + ":"
        tags = [tag for each in found or [] for tag in each.get("RepoTags") or [] if tag.startswith(ours)]
        await self._each([("DELETE", f"/images/{tag}", {}) for tag in tags])

    async def _each(self, calls: list[tuple[str, str, dict[str, str]]]) -> None:
        await together(self._one(*call) for call in calls)

    async def _one(self, method: str, path: str, params: dict[str, str]) -> None:
        async with self._gate:
            answer = await self._client.call(method, path, params=params)
        if answer.status >= 500:
            raise Unavailable(
                "engine.failed", f"the Docker engine failed at {method} {path}: {answer.message}"
            )


def network_options(lease: LeaseId, n: int) -> dict[str, str]:
    return {BRIDGE_OPTION: names.bridge(lease, n)}


def _labelled(lease: LeaseId) -> dict[str, str]:
    return {"filters": json.dumps({"label": [names.label(lease)]})}
