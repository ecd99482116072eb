"""From a create body to a container on a lease: refuse first, then rent, then networks, volumes, image, create.

The rule: everything that can be refused without a provider is refused before anything is paid. A deployment is a
compose project or a lone container; what a lone one shares (networks, volumes) puts it into the other's deployment.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import SECOND
from dockage.ports.machine import Clock
from dockage.ports.renting import Progress
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker import volume_create
from dockage.protocol.docker.front_errors import ApiError, name_taken, no_network
from dockage.protocol.docker.front_state import Container, Publish
from dockage.protocol.docker.refusals import refusals

from .books import Books
from .changes import Changes
from .engines import SLOW, LeaseEngines, id_of
from .local import LocalEngine
from .tenancy import Tenancy
from .watch import Watch

log = structlog.get_logger("dockage.front")

SendImage = Callable[[str, LeaseId, Progress], Awaitable[str]]
"""(image reference at the local engine, lease, progress) -> its id at the lease's engine, once it is there."""
Tell = Callable[[str, str], None]
"""(deployment, what is being done for it; "" = nothing any more)"""
HOW = "calm brisk amber quiet steady northern silver bright early salty windy tidal".split()
WHAT = "harbour pier ferry anchor buoy jetty lantern gull wharf mast keel crane".split()


@dataclass(frozen=True)
class Plan:
    """A create body that passed every check that costs nothing."""

    name: str
    deployment: str
    image: str
    image_id: str
    """At the tenant's own engine or store."""
    need: Resources
    body: dict[str, Any]
    ports: tuple[Publish, ...]


class Placing:
    def __init__(
        self,
        books: Books,
        engines: LeaseEngines,
        local: LocalEngine,
        tenancy: Tenancy,
        watch: Watch,
        send_image: SendImage,
        clock: Clock,
        tell: Tell,
        changes: Changes,
    ) -> None:
        self._books, self._engines, self._local = books, engines, local
        self._tenancy, self._watch = tenancy, watch
        self._send_image, self._clock, self._tell = send_image, clock, tell
        self._changes = changes
        self._names: set[str] = set()
        self._sent: dict[LeaseId, dict[str, str]] = {}
        """What each lease was sent: the image's id here to its id there."""

    # -- create --------------------------------------------------------------------------------------
    async def create(self, name: str, body: dict[str, Any]) -> tuple[Container, list[str]]:
        """The new container and the engine's warnings. Raises ApiError, UsageError, Unavailable."""
        name, body = create.check_name(name) if name else self._fresh_name(), create.without_shown(body)
        with self._reserved(name):
            await self._check_free(name)
            plan = await self._plan(name, body)
            with self._told(plan.deployment) as progress:
                await self._changes.before_create(plan.deployment, body, progress)
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
                image_id=self._sent[lease][plan.image_id],
            )
            self._books.keep(container)
            self._changes.created(container, body)
            self._watch.created(container, create.labels(body))
        self._watch.look_soon(container)
        return container, warnings

    async def grow(self, container: Container, need: Resources) -> None:
        """Make room for a container that is to get *need* instead of what it had."""
        more = create.shortfall([need], container.need)
        if more == Resources():
            return
        async with self._tenancy.on_its_way(container.deployment, more):
            with self._told(container.deployment) as progress:
                lease = await self._tenancy.lease_for(container.deployment, more, {}, progress)
        if lease != container.lease:
            raise Unavailable("lease.ended", f"the lease of container {container.name} is ending")

    async def revive(self, container: Container) -> Container:
        """Place a container again whose lease has ended: the same id, name and wishes, on a new lease. What it
        wrote, and what was in its volumes, is lost."""
        body = msgspec.json.decode(container.body)
        image = await self._local.image(container.image)
        plan = Plan(
            container.name,
            container.deployment,
            container.image,
            str(image.get("Id")),
            container.need,
            body,
            create.published(body, (image.get("Config") or {}).get("ExposedPorts") or ()),
        )
        lease, remote, _ = await self._place(plan)
        placed = self._books.change(
            container.id,
            lambda one: replace(
                one,
                lease=lease,
                remote=remote,
                ended="",
                seen=b"{}",
                image_id=self._sent[lease][plan.image_id],
            ),
        )
        if placed is None:
            raise ApiError(404, f"No such container: {container.name}")
        self._watch.look_soon(placed)
        return placed

    def _fresh_name(self) -> str:
        while True:
            name = f"{secrets.choice(HOW)}_{secrets.choice(WHAT)}_{secrets.token_hex(2)}"
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
            await self._watch.look(taken)
        except ApiError as error:
            if error.status == 404:
                return
        except DockageError:
            pass
        raise name_taken(name, taken.id)

    async def _plan(self, name: str, body: dict[str, Any]) -> Plan:
        if not body:
            raise ApiError(400, "Config cannot be empty in order to create a container")
        if reasons := refusals(body):
            raise ApiError(400, self._sentence(name, body, [str(one) for one in reasons]))
        image = str(body.get("Image") or "")
        found = await self._local.image(image)
        ports = create.published(body, (found.get("Config") or {}).get("ExposedPorts") or ())
        for network in create.networks(body):
            if self._books.find_network(network) is None:
                raise no_network(network)
        need = create.need(body) + Resources(disk_bytes=self._new_disk(body))
        return Plan(name, self._deployment(name, body), image, str(found.get("Id")), need, body, ports)

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

    async def _place(self, plan: Plan) -> tuple[LeaseId, str, list[str]]:
        async with self._tenancy.on_its_way(plan.deployment, plan.need):
            with self._told(plan.deployment) as progress:
                lease = await self._tenancy.lease_for(plan.deployment, plan.need, plan.body, progress)
                await self._prepare(plan, lease, progress)
            try:
                made = await self._made(lease, plan)
            except ApiError as error:
                if error.status != 404 or "No such image" not in error.message:
                    raise
                self._sent.pop(lease, None)  # the provider's engine was cleared by hand: it is sent once more
                with self._told(plan.deployment) as progress:
                    await self._prepare(plan, lease, progress)
                made = await self._made(lease, plan)
        return lease, id_of(made), _texts(made.get("Warnings"))

    @contextmanager
    def _told(self, deployment: str) -> Iterator[Progress]:
        """Steps of *deployment* for whoever asks, and at most a line a second for the log."""
        loop, said = asyncio.get_running_loop(), -1.0

        def progress(line: str) -> None:
            nonlocal said
            self._tell(deployment, line)
            if loop.time() - said >= 1.0:
                said = loop.time()
                log.info("progress", deployment=deployment, step=line)

        try:
            yield progress
        finally:
            self._tell(deployment, "")

    async def _prepare(self, plan: Plan, lease: LeaseId, progress: Progress) -> None:
        """Networks and volumes are made while the image travels: each takes as long as a small image."""
        ends = await asyncio.gather(
            self._ship(plan, lease, progress),
            self._tenancy.furnish(plan.deployment, lease, plan.body),
            return_exceptions=True,
        )
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _ship(self, plan: Plan, lease: LeaseId, progress: Progress) -> None:
        """Once a lease: a provider keeps what it was sent for as long as the lease lives."""
        if plan.image_id in self._sent.get(lease, {}):
            return
        there = await self._send_image(plan.image, lease, progress)
        self._sent = {held: sent for held, sent in self._sent.items() if held in self._books.shelf.rented}
        self._sent.setdefault(lease, {})[plan.image_id] = there

    async def _made(self, lease: LeaseId, plan: Plan) -> dict[str, Any]:
        """A container of this name that we do not know is left over from a client who went away, or a crash of
        ours, between its creation and our record: it goes."""
        remote_ids = {ref: self._books.container(ref).remote for ref in create.peers(plan.body)}
        networks = self._books.shelf.network_names(create.networks(plan.body))
        body = create.forwarded(plan.body, self._sent[lease][plan.image_id], remote_ids, networks)
        query = {"name": plan.name}
        try:
            return await self._engines.ask(
                lease, "POST", "/containers/create", query=query, body=body, limit=SLOW
            )
        except ApiError as error:
            if error.status != 409 or "in use" not in error.message:
                raise
            path = f"/containers/{plan.name}"
            await self._engines.call(lease, "DELETE", path, query={"force": "1", "v": "1"})
            return await self._engines.ask(
                lease, "POST", "/containers/create", query=query, body=body, limit=SLOW
            )


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
