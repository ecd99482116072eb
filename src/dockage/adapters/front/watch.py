"""Keeps the records true: follows the events of each lease's engine, and notices when a lease has ended.

Counterpart: the provider's gate, which shows the lease's own events only. Whatever happens while the connection is
down is made up for by a look at everything when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import LeaseId, short
from dockage.ports.machine import Clock
from dockage.protocol.docker import front_create
from dockage.protocol.docker import front_replies as replies
from dockage.protocol.docker import front_views as views
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import NOWHERE, Container
from dockage.wire.relay import json_lines, only
from dockage.wire.tasks import spawn

from .books import Books
from .engines import QUICK, LeaseEngines, target
from .hub import EventHub
from .published import Published

log = structlog.get_logger("dockage.front")

FILTER = '{"type":["container"]}'
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts to reach a lease's events."""
FORGOTTEN_MAX = 256
STATES = {"start": "running", "unpause": "running", "pause": "paused", "die": "exited"}
"""What each event makes of a container."""


class Watch:
    def __init__(
        self,
        books: Books,
        engines: LeaseEngines,
        published: Published,
        hub: EventHub,
        clock: Clock,
        tasks: asyncio.TaskGroup,
        settle: Callable[[str], None],
    ) -> None:
        self._books, self._engines, self._published, self._hub = books, engines, published, hub
        self._clock, self._tasks, self._settle = clock, tasks, settle
        self._followed: dict[LeaseId, asyncio.Task[None]] = {}
        self._forgotten: dict[tuple[LeaseId, str], Container] = {}

    # -- what a view needs ---------------------------------------------------------------------------
    def around(self, container: Container) -> views.Around:
        return views.Around(
            self.labels(container.lease), self._published.bound(container.id), self._books.network_ids()
        )

    def labels(self, lease: LeaseId) -> dict[str, str]:
        """``dockage.*`` labels of everything in *lease*, from the lease itself or, once it ended, its record."""
        rented = self._books.shelf.rented.get(lease)
        info = self._engines.info(lease)
        found = {"dockage.lease": lease.hex()}
        if info is not None:
            found |= {"dockage.provider": info.provider.hex(), "dockage.price-msat-hour": str(info.msat_hour)}
            if info.reason:
                found["dockage.reason"] = info.reason
        elif rented is not None and rented.provider:
            found |= {
                "dockage.provider": rented.provider.hex(),
                "dockage.price-msat-hour": str(rented.msat_hour),
            }
        return found

    def now_text(self) -> str:
        return datetime.fromtimestamp(self._clock.now() / 1e9, UTC).isoformat().replace("+00:00", "Z")

    def created(self, container: Container, labels: Mapping[str, str]) -> None:
        """Told by us: the engine's event comes before anybody knows whose container it is."""
        attributes = {
            **labels,
            **self.labels(container.lease),
            "image": container.image,
            "name": container.name,
        }
        self.announce("container", "create", container.id, attributes)

    def announce(self, kind: str, action: str, id_: str, attributes: dict[str, str]) -> None:
        self._hub.publish(replies.event(kind, action, id_, attributes, self._clock.now()))

    def pruned(self, kind: str) -> None:
        """The space is a provider's, and counted by nobody."""
        self.announce(kind, "prune", "", {"reclaimed": "0"})

    # -- one container -------------------------------------------------------------------------------
    async def look(self, container: Container, limit: float = QUICK, size: bool = False) -> dict[str, Any]:
        """Its inspect as the engine has it now, remembered. Raises ApiError(404) after forgetting one that is
        gone, ApiError or Unavailable else."""
        path, query = f"/containers/{container.remote}/json", {"size": "1"} if size else {}
        try:
            doc = await self._engines.ask(container.lease, "GET", path, query=query, limit=limit)
        except ApiError as error:
            if error.status == 404:
                self.forget(container)
            raise
        self.remember(container, doc)
        return doc

    def look_soon(self, container: Container) -> None:
        """So that it is known what to show if its lease ends before anything happens to it. A container that removes
        itself is gone then."""
        if views.removes_itself(container):
            return

        async def look() -> None:
            try:
                await self.look(container)
            except DockageError as error:
                log.info("look.failed", container=container.name, why=error.message)

        spawn(self._tasks, look())

    def remember(self, container: Container, doc: dict[str, Any]) -> None:
        """The journal is only written when the state changed: clients inspect many times a second."""
        newest = self._books.shelf.containers.get(container.id)
        if newest is None or newest.remote != container.remote or newest.ended:
            return
        asleep = newest.asleep and not views.is_alive(doc)
        seen = replace(newest, seen=msgspec.json.encode(doc), asleep=asleep)
        if seen.seen == newest.seen:
            return
        before = views.state_of(msgspec.json.decode(newest.seen))
        if before != views.state_of(doc) or newest.seen == b"{}":
            self._books.keep(seen)
        else:
            self._books.show(seen)

    def forget(self, container: Container) -> None:
        """It no longer exists: no port, no record; the lease follows if it was the last."""
        self._published.close(container.id)
        newest = self._books.shelf.containers.get(container.id)
        if newest is None:
            return
        self._forgotten[container.lease, container.remote] = newest
        while len(self._forgotten) > FORGOTTEN_MAX:
            del self._forgotten[next(iter(self._forgotten))]
        self._books.forget(newest)
        self._settle(container.deployment)

    # -- one lease -----------------------------------------------------------------------------------
    def follow(self, lease: LeaseId) -> None:
        """Read the lease's events until it ends or is released."""
        if lease not in self._followed:
            self._followed[lease] = self._tasks.create_task(self._follow(lease))

    def unfollow(self, lease: LeaseId) -> None:
        if task := self._followed.get(lease):
            task.cancel()

    async def check_end(self, lease: LeaseId) -> str:
        """Why it ended ("" = it has not); if so, everything in it is known to be over afterwards."""
        reason = await self._engines.end_of(lease)
        if reason:
            self._engines.drop(lease)
            self._end(lease, reason)
        return reason

    def _end(self, lease: LeaseId, reason: str) -> None:
        finished = self.now_text()
        for container in self._books.at(lease):
            if not container.ended:
                doc = views.inspect(msgspec.json.decode(container.seen), container, self.around(container))
                self._published.close(container.id)
                over = msgspec.json.encode(views.after_the_end(doc, reason, finished))
                ran = container.asleep or views.is_alive(msgspec.json.decode(container.seen))
                self._books.keep(replace(container, ended=reason, seen=over, ran=ran, asleep=False))
                self.announce("container", "die", container.id, {"name": container.name, "exitCode": "137"})
                if views.removes_itself(container):
                    self.forget(container)
        networks = [one for one in self._books.shelf.networks.values() if one.lease == lease]
        if networks or self._books.at(lease):
            log.warning("lease.ended", lease=short(lease), why=reason)
        volumes = [one for one in self._books.shelf.volumes.values() if one.lease == lease]
        self._books.keep(
            *(replace(one, lease=NOWHERE, remote="") for one in networks),
            *(
                replace(one, lease=NOWHERE) for one in volumes
            ),  # its data is lost; the next lease makes it anew
        )

    async def _follow(self, lease: LeaseId) -> None:
        pause = FIRST_PAUSE
        try:
            while lease in self._books.shelf.rented:
                try:
                    await self._read(lease)
                    pause = FIRST_PAUSE
                except DockageError as error:
                    log.debug("events.broken", lease=short(lease), code=error.code, why=error.message)
                if await self.check_end(lease):
                    return
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
        except Exception:
            log.exception("events.crashed", lease=short(lease))
        finally:
            self._followed.pop(lease, None)

    async def _read(self, lease: LeaseId) -> None:
        async with self._engines.connected(lease) as client:
            response = await client.request("GET", target("/events", {"filters": FILTER}))
            if response.status != 200:
                raise Unavailable("engine.strange", f"the lease's events answer {response.status}")
            try:  # the look comes after the stream is open, so that nothing falls between
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._catch_up(lease))
                    await self._take(lease, response.body())
            except BaseExceptionGroup as group:
                raise only(group) from None

    async def _take(self, lease: LeaseId, body: Any) -> None:
        async for event in json_lines(body):
            await self._on_event(lease, event)

    async def _on_event(self, lease: LeaseId, event: dict[str, Any]) -> None:
        actor = event.get("Actor")
        remote = str(actor.get("ID") or "") if isinstance(actor, dict) else ""
        container = self._books.by_remote(lease, remote) or self._forgotten.get((lease, remote))
        if container is None or not isinstance(event.get("timeNano"), int):
            return
        action = str(event.get("Action") or "")
        if action == "create":
            return  # see ``created``
        if action == "start":
            self._plugged("connect", container, event["timeNano"])
        self._hub.publish(views.event(event, container, self.labels(lease)))
        if action == "die":
            self._plugged("disconnect", container, event["timeNano"])
        match action:
            case "destroy":
                self.forget(container)
            case "die" | "start" | "pause" | "unpause" as action if views.removes_itself(container):
                await self._ports_follow(container, self._noted(container, action))
            case "die" | "start" | "pause" | "unpause" | "update" | "rename":
                await self.after_change(container)
            case _:
                pass

    def _plugged(self, action: str, container: Container, at_ns: int) -> None:
        """As an engine tells of each start and end: our user's networks, for the lease's own are nobody's here."""
        ids = self._books.network_ids()
        for name in front_create.joined(views.body_of(container)):
            about = {"container": container.id, "name": name, "type": "bridge"}
            id_ = ids.get(name) or replies.fixed_id(name)
            self._hub.publish(replies.event("network", action, id_, about, at_ns))

    def _noted(self, container: Container, action: str) -> dict[str, Any]:
        """What is known of a container that removes itself: its event says all, for nobody starts it again. In a row of
        ``docker run --rm`` a look at each event would take the provider as long as the runs do."""
        newest = self._books.shelf.containers.get(container.id, container)
        doc = views.in_state(msgspec.json.decode(newest.seen), STATES[action])
        if container.id in self._books.shelf.containers:
            self._books.show(replace(newest, seen=msgspec.json.encode(doc)))
        return doc

    async def after_change(self, container: Container) -> None:
        """Look, then listen or stop listening. A container that its engine is about to start again keeps its
        ports."""
        try:
            doc = await self.look(container)
        except DockageError:
            return  # gone, or out of reach: then the stream ends too, and this comes again
        await self._ports_follow(container, doc)

    async def _ports_follow(self, container: Container, doc: dict[str, Any]) -> None:
        newest = self._books.shelf.containers.get(container.id)
        if newest is None:
            return
        if not views.is_alive(doc):
            self._published.close(container.id)
        elif not self._published.is_open(container.id) and newest.ports:
            await self.listen(newest)

    async def listen(self, container: Container) -> None:
        """For a container that runs already: a busy port can only be logged."""
        try:
            bound = await self._published.open(container)
        except ApiError as error:
            log.warning("port.busy", container=container.name, why=error.message)
            return
        self._books.change(container.id, lambda one: replace(one, bound=bound))

    async def _catch_up(self, lease: LeaseId) -> None:
        """What happened while nobody followed: a container gone, ended, or started."""
        known = self._books.at(lease)
        try:
            for container in known:
                await self.after_change(container)
        except Exception:
            log.exception("events.crashed", lease=short(lease))
