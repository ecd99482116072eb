"""From a create body to a container on a lease: refuse first, then rent, then networks, volumes, image, create.

The rule: everything that can be refused without a provider is refused before anything is paid. One lease a
deployment; what its containers share (networks, volumes) decides which deployment a lone container belongs to.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId, short
from dockage.domain.resources import Resources
from dockage.domain.units import SECOND
from dockage.ports import Clock, LeaseInfo, Leases, Progress
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker import volume_create
from dockage.protocol.docker.front_errors import ApiError, name_taken, no_network
from dockage.protocol.docker.front_state import NOWHERE, Container, Network, Publish, Rented, Volume
from dockage.protocol.docker.refusals import refusals

from .books import Books
from .engines import SLOW, LeaseEngines
from .local import LocalEngine
from .watch import Watch

log = structlog.get_logger("dockage.front")

SendImage = Callable[[str, LeaseId, Progress], Awaitable[str]]
"""(image reference at the local engine, lease, progress) -> its id at the lease's engine, once it is there."""
USABLE = ("running", "paused")
WAIT_MAX = 64
"""Containers of one deployment that may be on their way at once."""

FIRST = "calm brisk amber quiet steady northern silver bright early salty windy tidal".split()
SECOND_WORDS = "harbour pier ferry anchor buoy jetty lantern gull wharf mast keel crane".split()


@dataclass(frozen=True)
class Plan:
    """A create body that passed every check that costs nothing."""

    name: str
    deployment: str
    image: str
    need: Resources
    body: dict[str, Any]
    ports: tuple[Publish, ...]


class Placing:
    def __init__(
        self,
        books: Books,
        leases: Leases,
        engines: LeaseEngines,
        local: LocalEngine,
        send_image: SendImage,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        linger: float,
    ) -> None:
        self._books, self._leases, self._engines, self._local = books, leases, engines, local
        self._send_image, self._clock, self._tasks, self._linger = send_image, clock, tasks, linger
        self.watch: Watch  # set by the front: the two need each other
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._coming: dict[str, list[Resources]] = defaultdict(list)
        self._names: set[str] = set()
        self._leaving: set[str] = set()

    # -- create --------------------------------------------------------------------------------------
    async def create(self, name: str, body: dict[str, Any]) -> tuple[Container, list[str]]:
        """The new container and the engine's warnings. Raises ApiError, UsageError, Unavailable."""
        name = create.check_name(name) if name else self._fresh_name()
        with self._reserved(name):
            await self._check_free(name)
            plan = await self._plan(name, body)
            lease, remote, warnings = await self._place(plan)
            container = Container(
                id=remote,
                name=name,
                deployment=plan.deployment,
                lease=lease,
                remote=remote,
                image=plan.image,
                need=plan.need,
                body=msgspec.json.encode(body),
                created=self._clock.now() // SECOND,
                ports=plan.ports,
            )
            self._books.keep(container)
        await self._first_look(container)
        return container, warnings

    async def revive(self, container: Container) -> Container:
        """Place a container again whose lease has ended: the same id, name and wishes, on a new lease. What it
        wrote, and what was in its volumes, is lost."""
        body = msgspec.json.decode(container.body)
        image = (await self._local.image(container.image)).get("Config") or {}
        plan = Plan(
            container.name,
            container.deployment,
            container.image,
            container.need,
            body,
            create.published(body, image.get("ExposedPorts") or ()),
        )
        lease, remote, _ = await self._place(plan)
        placed = self._books.change(
            container.id, lambda one: replace(one, lease=lease, remote=remote, ended="", seen=b"{}")
        )
        if placed is None:
            raise ApiError(404, f"No such container: {container.name}")
        await self._first_look(placed)
        return placed

    async def _first_look(self, container: Container) -> None:
        try:
            await self.watch.look(container)
        except DockageError as error:
            log.info("look.failed", container=container.name, why=error.message)

    def _fresh_name(self) -> str:
        while True:
            name = f"{secrets.choice(FIRST)}_{secrets.choice(SECOND_WORDS)}_{secrets.token_hex(2)}"
            if self._books.find_container(name) is None:
                return name

    @contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        if name in self._names:
            raise ApiError(409, f'Conflict. The container name "/{name}" is being created already.')
        self._names.add(name)
        try:
            yield
        finally:
            self._names.discard(name)

    async def _check_free(self, name: str) -> None:
        """A ``--rm`` container may be gone at its engine a moment before its event arrives here."""
        taken = next((one for one in self._books.shelf.containers.values() if one.name == name), None)
        if taken is None:
            return
        try:
            await self.watch.look(taken)
        except ApiError as error:
            if error.status == 404:
                return
        except DockageError:
            pass
        raise name_taken(name, taken.id)

    async def _plan(self, name: str, body: dict[str, Any]) -> Plan:
        if found := refusals(body):
            raise ApiError(400, self._sentence(name, body, [str(one) for one in found]))
        image = str(body.get("Image") or "")
        config = (await self._local.image(image)).get("Config") or {}
        ports = create.published(body, config.get("ExposedPorts") or ())
        for network in create.networks(body):
            if self._books.find_network(network) is None:
                raise no_network(network)
        need = create.need(body) + Resources(disk_bytes=self._new_disk(body))
        return Plan(name, self._deployment(name, body), image, need, body, ports)

    def _sentence(self, name: str, body: dict[str, Any], reasons: list[str]) -> str:
        service = create.labels(body).get("com.docker.compose.service")
        who = f"service {service}" if service else f"container {name}"
        return f"{who} cannot run on dockage: " + "; ".join(reasons)

    def _new_disk(self, body: dict[str, Any]) -> int:
        """Bytes of the sized volumes that this container brings along."""
        names = set(create.volumes(body).values())
        waiting = [one for one in self._books.shelf.volumes.values() if one.name in names and not one.lease]
        return sum(volume_create.parse(msgspec.json.decode(one.body)).size for one in waiting)

    def _deployment(self, name: str, body: dict[str, Any]) -> str:
        """Raises UsageError("deployment.conflict") for a container that would have to be in two places."""
        tied = self._tied(body)
        project = create.labels(body).get(create.PROJECT, "")
        wanted = {project} if project else tied
        if len(tied | wanted) > 1:
            raise UsageError(
                "deployment.conflict",
                f"container {name} would have to be in several deployments at once "
                f"({', '.join(sorted(tied | wanted))}): containers share networks and volumes only within one",
            )
        if wanted:
            return next(iter(wanted))
        return f"{name}-{secrets.token_hex(3)}" if self._books.shelf.in_deployment(name) else name

    def _tied(self, body: dict[str, Any]) -> set[str]:
        shelf = self._books.shelf
        names = create.volumes(body).values()
        found = {shelf.volumes[one].deployment for one in names if one in shelf.volumes}
        found |= {self._books.network(one).deployment for one in create.networks(body)}
        found |= {self._books.container(one).deployment for one in create.peers(body)}
        return found - {""}

    # -- the lease -----------------------------------------------------------------------------------
    async def _place(self, plan: Plan) -> tuple[LeaseId, str, list[str]]:
        async with self._on_its_way(plan):
            async with self._turns[plan.deployment]:
                lease = (await self._lease(plan)).id
                for network in create.networks(plan.body):
                    await self.network_at(self._books.network(network), plan.deployment, lease)
                for volume in set(create.volumes(plan.body).values()):
                    await self._volume_at(volume, plan.deployment, lease)
            image_id = await self._send_image(plan.image, lease, _progress(plan.deployment))
            remote_ids = {ref: self._books.container(ref).remote for ref in create.peers(plan.body)}
            body = create.forwarded(plan.body, image_id, remote_ids)
            _, made = await self._engines.call(
                lease, "POST", "/containers/create", query={"name": plan.name}, body=body, limit=SLOW
            )
        return lease, str(made["Id"]), [str(one) for one in made.get("Warnings") or ()]

    @asynccontextmanager
    async def _on_its_way(self, plan: Plan) -> AsyncIterator[None]:
        """Its need counts before its record exists; a lease that it leaves empty by failing is given back."""
        coming = self._coming[plan.deployment]
        if len(coming) >= WAIT_MAX:
            raise ApiError(429, f"{WAIT_MAX} containers of {plan.deployment} are being created; wait for one")
        coming.append(plan.need)
        try:
            yield
        finally:
            coming.remove(plan.need)
            if not coming:
                self._coming.pop(plan.deployment, None)
            self.settle(plan.deployment)

    async def _lease(self, plan: Plan) -> LeaseInfo:
        """The deployment's lease, large enough for all that is in it and on its way (this one included)."""
        wishes, progress = create.wishes(plan.body), _progress(plan.deployment)
        held = self._held(plan.deployment)
        if held is None:
            lease = await self._leases.obtain(plan.deployment, plan.need, wishes, progress)
        else:
            wanted = [one.need for one in self._books.at(held.id)] + self._coming[plan.deployment]
            lacking = create.shortfall(wanted, held.limits)
            if lacking == Resources() and held.state in USABLE:
                return held
            lease = await self._leases.obtain(plan.deployment, lacking, wishes, progress)
        self._books.keep(Rented(lease.id, plan.deployment, lease.provider, lease.msat_hour))
        self.watch.follow(lease.id)
        return lease

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
            _, made = await self._engines.call(lease, "POST", "/networks/create", body=body)
        except ApiError as error:
            if error.status != 409:
                raise
            _, made = await self._engines.call(lease, "GET", f"/networks/{network.name}")
        placed = replace(network, deployment=deployment, lease=lease, remote=str(made["Id"]))
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
        self._books.forget(rented)
        self.watch.unfollow(rented.lease)


def _progress(deployment: str) -> Progress:
    def tell(line: str) -> None:
        log.info("progress", deployment=deployment, step=line)

    return tell
