"""Which lease a deployment has: rented when first needed, grown when it gets too small, given back when empty.

The rule: one lease a deployment, and whatever it is asked for happens one thing after the other. A volume with data
keeps its lease; a network does not. A lease that is about to be given back serves the next deployment of the same
size instead: a row of ``docker run --rm`` rents once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import structlog

from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.resources import Resources
from dockage.ports.renting import LeaseInfo, Leases, Progress
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import NOWHERE, Network, Rented, Volume

from .books import Books
from .changes import Changes
from .engines import LeaseEngines, id_of
from .watch import Watch

log = structlog.get_logger("dockage.front")

USABLE = ("running", "paused")
WAIT_MAX = 64
"""Containers of one deployment that may be on their way at once."""


class Tenancy:
    def __init__(
        self,
        books: Books,
        leases: Leases,
        engines: LeaseEngines,
        tasks: asyncio.TaskGroup,
        linger: float,
    ) -> None:
        self._books, self._leases, self._engines = books, leases, engines
        self._tasks, self._linger = tasks, linger
        self.watch: Watch  # set by the front: the two need each other
        self.changes: Changes  # likewise
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._coming: dict[str, list[Resources]] = defaultdict(list)
        self._leaving: set[str] = set()

    @asynccontextmanager
    async def on_its_way(self, deployment: str, need: Resources) -> AsyncIterator[None]:
        """Its need counts before its record exists; a lease that it leaves empty by failing is given back."""
        coming = self._coming[deployment]
        if len(coming) >= WAIT_MAX:
            raise ApiError(429, f"{WAIT_MAX} containers of {deployment} are being created; wait for one")
        coming.append(need)
        try:
            yield
        finally:
            coming.remove(need)
            if not coming:
                self._coming.pop(deployment, None)
            self.settle(deployment)

    async def lease_for(
        self, deployment: str, need: Resources, body: dict[str, Any], progress: Progress
    ) -> LeaseId:
        async with self._turns[deployment]:
            return (await self._lease(deployment, need, create.wishes(body), progress)).id

    async def furnish(self, deployment: str, lease: LeaseId, body: dict[str, Any]) -> None:
        """Make the networks and volumes that *body* names at *lease*, where they are not there yet."""
        async with self._turns[deployment]:
            for network in create.networks(body):
                await self.network_at(self._books.network(network), deployment, lease)
            for volume in set(create.volumes(body).values()):
                await self._volume_at(volume, deployment, lease)

    async def _lease(
        self, deployment: str, need: Resources, wishes: dict[str, str], progress: Progress
    ) -> LeaseInfo:
        """The deployment's lease, large enough for all that is in it and on its way (this one included)."""
        held = self._held(deployment) or await self._inherited(deployment, need, wishes)
        if held is None:
            lease = await self._leases.obtain(deployment, need, wishes, progress)
        else:
            there = [one.need for one in self._books.at(held.id) if one.id not in self.changes.replaced]
            wanted = there + self._coming[deployment]
            lacking = create.shortfall(wanted, held.limits)
            if lacking == Resources() and held.state in USABLE:
                return held
            lease = await self._leases.obtain(deployment, lacking, wishes, progress)
        self._books.keep(Rented(lease.id, deployment, lease.provider, lease.msat_hour, wishes))
        self.watch.follow(lease.id)
        return lease

    async def _inherited(self, deployment: str, need: Resources, wishes: dict[str, str]) -> LeaseInfo | None:
        """The lease of a deployment that is empty and has not given it back yet, if it is exactly what is wanted."""
        for rented in list(self._books.shelf.rented.values()):
            if not self._is_spare(rented) or rented.wishes != wishes:
                continue
            info = self._engines.info(rented.lease)
            if info is not None and info.state == "running" and info.limits == need:
                self._books.keep(replace(rented, deployment=deployment))  # nobody else takes it now
                try:
                    return await self._leases.rename(rented.lease, deployment)
                except Unavailable:
                    self._books.keep(rented)
        return None

    def _is_spare(self, rented: Rented) -> bool:
        old = rented.deployment
        return (
            old in self._leaving
            and self._is_idle(old)
            and not self._turns[old].locked()  # else it is being given back
            and all(one.lease != rented.lease for one in self._books.shelf.networks.values())
        )

    def _held(self, deployment: str) -> LeaseInfo | None:
        ids = [rented.lease for rented in self._books.rented(deployment)]
        infos = [info for id_ in ids if (info := self._engines.info(id_)) and info.state in USABLE]
        return infos[-1] if infos else None

    async def network_at(self, network: Network, deployment: str, lease: LeaseId) -> Network:
        """Make it at *lease* if it is not there. Raises UsageError("deployment.conflict")."""
        if network.lease == lease:
            return network
        if network.lease and self._engines.info(network.lease) is not None:
            raise UsageError(
                "deployment.conflict",
                f"network {network.name} belongs to the deployment {network.deployment}; a network cannot span "
                "leases",
            )
        asked = msgspec.json.decode(network.body)
        body = {
            "Name": network.name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Internal": asked.get("Internal") is True,
            "Labels": create.labels(asked),
        }
        try:
            made = await self._engines.ask(lease, "POST", "/networks/create", body=body)
        except ApiError as error:
            if error.status != 409:
                raise
            made = await self._engines.ask(lease, "GET", f"/networks/{network.name}")
        placed = replace(network, deployment=deployment, lease=lease, remote=id_of(made))
        self._books.keep(placed)
        return placed

    async def _volume_at(self, name: str, deployment: str, lease: LeaseId) -> None:
        volume = self._books.shelf.volumes.get(name) or self.new_volume({"Name": name})
        if volume.lease == lease:
            return
        if volume.lease and self._engines.info(volume.lease) is not None:
            raise UsageError(
                "deployment.conflict",
                f"volume {name} holds data of the deployment {volume.deployment}, on another provider",
            )
        asked = msgspec.json.decode(volume.body)
        body = {name: asked.get(name) for name in ("Name", "Labels", "DriverOpts")}
        await self._engines.call(lease, "POST", "/volumes/create", body=body)
        self._books.keep(replace(volume, deployment=deployment, lease=lease))

    def new_volume(self, body: dict[str, Any]) -> Volume:
        """Logical only: it takes room at a provider once a container needs it."""
        volume = Volume(str(body["Name"]), msgspec.json.encode(body), self.watch.now_text())
        self._books.keep(volume)
        self.watch.announce("volume", "create", volume.name, {"driver": "local"})
        return volume

    # -- the end -------------------------------------------------------------------------------------
    def settle(self, deployment: str) -> None:
        """Give its leases back if nothing is left in it, after a moment: what is recreated finds them still."""
        if self._is_idle(deployment) and deployment not in self._leaving:
            self._leaving.add(deployment)
            self._tasks.create_task(self._leave(deployment))

    def _is_idle(self, deployment: str) -> bool:
        return (
            bool(self._books.rented(deployment))
            and deployment not in self._coming
            and self._books.shelf.is_empty(deployment)
        )

    async def _leave(self, deployment: str) -> None:
        try:
            await asyncio.sleep(self._linger)
            async with self._turns[deployment]:
                if self._is_idle(deployment):
                    for rented in self._books.rented(deployment):
                        await self._release(rented)
        finally:
            self._leaving.discard(deployment)
            if deployment not in self._coming and not self._turns[deployment].locked():
                self._turns.pop(deployment, None)

    async def _release(self, rented: Rented) -> None:
        try:
            if self._engines.info(rented.lease) is not None:
                await self._leases.release(rented.lease)
        except DockageError as error:
            # the record stays: at the next start, or when the deployment empties again, it is tried again
            log.warning("release.failed", lease=short(rented.lease), why=error.message)
            return
        except Exception:
            log.exception("release.crashed", lease=short(rented.lease))
            return
        networks = [one for one in self._books.shelf.networks.values() if one.lease == rented.lease]
        self._books.keep(
            *(replace(one, deployment="", lease=NOWHERE, remote="") for one in networks),
        )
        before = self._books.shelf.before.get(rented.deployment)
        self._books.forget(rented, *((before,) if before else ()))
        self._engines.drop(rented.lease)
        self.watch.unfollow(rented.lease)
