"""Compose makes a changed container anew: create, stop and remove the old one, rename, start. Whoever keeps the
deployment is asked before the first of these, and told after the last.

Counterpart: ``node/controller_rollout.py``, by way of ``daemon/updating.py``. The one rule: what a deployment was
before is remembered until the next change, so that all of it can be brought back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dockage.ports.renting import Progress
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker.front_state import Before, Container
from dockage.protocol.docker.front_views import body_of

from .books import Books

Begin = Callable[[str, Mapping[str, str], Progress], Awaitable[bool | None]]
"""(deployment, labels of what is new) -> once our user's commands may go on: True for a new change, False for one that
goes on; None: it is changed as it is, and nobody wants to be told."""
Through = Callable[[str], Awaitable[None]]
Asleep = Callable[[str, Mapping[str, str]], str]
"""(deployment, its labels) -> until when nothing of it is to run, for people; "" where it may."""
CONDITIONS = (b":service_healthy:", b":service_completed_successfully:")
"""In the label in which compose keeps ``depends_on``."""
SERVICE = ("com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.container-number")


async def _nobody(_deployment: str, _labels: Mapping[str, str], _progress: Progress) -> None:
    pass


async def _no_end(_deployment: str) -> None:
    pass


class Changes:
    def __init__(self, books: Books) -> None:
        self._books = books
        self.begin: Begin = _nobody
        self.through: Through = _no_end
        self.asleep: Asleep = lambda _name, _labels: ""
        self.replaced: set[str] = set()
        """Containers that make room for others before these start: a lease need not hold both."""
        self._open: dict[str, dict[str, str]] = {}
        """Deployment to its containers that are being replaced, and what replaces each: "" while it is made."""

    def sleeps(self, container: Container) -> str:
        """Until when, by a schedule of any of its deployment's containers; "" where it may run."""
        labels: dict[str, str] = {}
        for one in self._books.shelf.in_deployment(container.deployment):
            if b"dockage.schedule" in one.body:
                labels = {**create.wishes(body_of(one)), **labels}
        return self.asleep(container.deployment, labels) if labels else ""

    def delays(self, container: Container) -> bool:
        """Whether a start waits for the hour. Not where compose waits for one container before it starts the next: it
        would give up."""
        bodies = [one.body for one in self._books.shelf.in_deployment(container.deployment)]
        waited_for = any(word in body for body in bodies for word in CONDITIONS)
        return not waited_for and bool(self.sleeps(container))

    async def before_create(self, deployment: str, body: dict[str, Any], progress: Progress) -> None:
        """Waits until the container that this one replaces, if any, may be stopped."""
        old = self._replaced(deployment, body)
        if old is None:
            return
        self.replaced.add(old.id)
        new = await self.begin(deployment, create.wishes(body), progress)
        if new is None:
            return
        if new and deployment not in self._open:
            self._books.keep(Before(deployment, tuple(self._books.shelf.in_deployment(deployment))))
        self._open.setdefault(deployment, {})[old.id] = ""

    def created(self, made: Container, body: dict[str, Any]) -> None:
        going = self._open.get(made.deployment, {})
        old = self._replaced(made.deployment, body, but=made.id)
        if old is not None and old.id in going:
            going[old.id] = made.id

    async def started(self, container: Container) -> None:
        await self._done(container)

    async def removed(self, container: Container) -> None:
        """The new one, before it was started: our user broke it off."""
        await self._done(container)

    async def _done(self, container: Container) -> None:
        self.replaced.discard(container.id)
        going = self._open.get(container.deployment)
        if going is None:
            return
        for old in [old for old, new in going.items() if new == container.id]:
            del going[old]
        if not going:
            del self._open[container.deployment]
            await self.through(container.deployment)

    def _replaced(self, deployment: str, body: dict[str, Any], but: str = "") -> Container | None:
        """The container of the same service and number, as compose counts them."""
        names = _service(create.labels(body))
        if not all(names):
            return None
        for one in self._books.shelf.in_deployment(deployment):
            if one.id != but and not one.ended and _service(create.labels(body_of(one))) == names:
                return one
        return None


def _service(labels: dict[str, str]) -> tuple[str, ...]:
    if labels.get("com.docker.compose.oneoff", "").lower() == "true":
        return ("",)
    return tuple(labels.get(name, "") for name in SERVICE)
