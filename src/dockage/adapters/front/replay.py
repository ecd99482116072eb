"""A recipe set up in a lease, and the records of a deployment moved to where it was set up.

Counterpart: ``protocol/docker/recipe.py``. The rule: a replay may be cut anywhere and be done again. Networks and
volumes that are there are kept; a container is kept if it was made by the very same step, else made anew.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId, short
from dockage.ports.renting import LeaseInfo, Placed, Progress, Spot
from dockage.protocol.docker import front_create as create
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import Container, Rented
from dockage.protocol.docker.recipe import STEP_LABEL, Recipe, RecipeContainer

from .engines import SLOW, LeaseEngines, id_of
from .parts import Parts
from .placing import SendImage

STOP = 30.0
"""Seconds for one container: ten of them are its own."""


class Replay:
    def __init__(self, engines: LeaseEngines, send_image: SendImage) -> None:
        self._engines, self._send_image = engines, send_image

    async def set_up(
        self, recipe: Recipe, lease: LeaseId, progress: Progress, *, start: bool = True
    ) -> Placed:
        """Raises UsageError("recipe.image-changed" and what sending an image raises), ApiError with the engine's
        refusal, Unavailable, PeerError."""
        for image, reference in recipe.images.items():
            await self._ship(lease, image, reference, progress)
        for network in recipe.networks:
            await self._furnish(lease, "/networks/create", network.body)
        for volume in recipe.volumes:
            await self._furnish(lease, "/volumes/create", volume.body)
        placed: dict[str, Spot] = {}
        for step in recipe.containers:
            progress(f"creating {step.name}")
            placed[step.id] = Spot(lease, await self._make(lease, step, placed))
        if start:
            await self.start(recipe, placed, progress)
        return placed

    async def start(self, recipe: Recipe, placed: Placed, progress: Progress) -> None:
        """What ran, in the order of its making; what runs already stays as it is."""
        for step in recipe.containers:
            if step.runs:
                progress(f"starting {step.name}")
                place = placed[step.id]
                await self._engines.call(place.lease, "POST", f"/containers/{place.remote}/start", limit=SLOW)

    async def stop(self, placed: Placed) -> None:
        """The newest first. What does not run answers so, and what is gone is stopped, too."""
        for spot in reversed(list(placed.values())):
            path = f"/containers/{spot.remote}/stop"
            try:
                await self._engines.call(spot.lease, "POST", path, query={"t": "10"}, limit=STOP)
            except ApiError as error:
                if error.status not in (304, 404):
                    raise

    async def _ship(self, lease: LeaseId, image: str, reference: str, progress: Progress) -> None:
        """By what it is; an engine that keeps images under another number (the containerd store) is asked by name."""
        try:
            there = await self._send_image(image, lease, progress)
        except UsageError as error:
            if error.code != "image.unknown":
                raise
            there = await self._send_image(reference, lease, progress)
        if there != image:
            raise UsageError(
                "recipe.image-changed",
                f"{reference} is another image now than the one that deployment was made of ({image[:19]}); "
                "deploy it again to use the new one",
            )

    async def _furnish(self, lease: LeaseId, path: str, body: dict[str, Any]) -> None:
        try:
            await self._engines.call(lease, "POST", path, body=body)
        except ApiError as error:
            if error.status != 409:  # it is there
                raise

    async def _make(self, lease: LeaseId, step: RecipeContainer, placed: Placed) -> str:
        asked = msgspec.json.decode(step.body, type=dict[str, Any])
        labelled = {**asked, "Labels": {**create.labels(asked), STEP_LABEL: step.step}}
        others = {id_: place.remote for id_, place in placed.items()}
        body = create.forwarded(labelled, step.image, others, {})
        try:
            return await self._created(lease, step.name, body)
        except ApiError as error:
            if error.status != 409 or "in use" not in error.message:
                raise
        if remote := await self._made_before(lease, step):
            return remote
        await self._engines.call(lease, "DELETE", f"/containers/{step.name}", query={"force": "1", "v": "1"})
        return await self._created(lease, step.name, body)

    async def _created(self, lease: LeaseId, name: str, body: dict[str, Any]) -> str:
        query = {"name": name}
        return id_of(
            await self._engines.ask(lease, "POST", "/containers/create", query=query, body=body, limit=SLOW)
        )

    async def _made_before(self, lease: LeaseId, step: RecipeContainer) -> str:
        there = await self._engines.ask(lease, "GET", f"/containers/{step.name}/json")
        config = there.get("Config")
        labels = config.get("Labels") if isinstance(config, dict) else None
        same = isinstance(labels, dict) and labels.get(STEP_LABEL) == step.step
        return id_of(there) if same else ""


async def adopt(parts: Parts, deployment: str, placed: Placed) -> None:
    """The user's docker and published ports follow *deployment* to where a replay set it up. Its lease before that is
    forgotten if it has ended; if it has not, it is kept and paid until the deployment is empty, unless its owner ends
    it. What our user's last change removed comes back where *placed* has it. Raises UsageError("lease.ended") if the
    new one has."""
    for lease in {place.lease for place in placed.values()}:
        info = parts.engines.info(lease)
        if info is None:
            raise UsageError("lease.ended", f"the lease {short(lease)} has ended meanwhile")
        await _furnishings_follow(parts, deployment, lease)
        _rented(parts, deployment, info)
    await _brought_back(parts, deployment, placed)
    for id_, place in placed.items():
        parts.published.close(id_)
        if moved := parts.books.change(id_, partial(_moved, place)):
            await parts.watch.after_change(moved)


async def _brought_back(parts: Parts, deployment: str, placed: Placed) -> None:
    now = parts.books.shelf.in_deployment(deployment)
    before = parts.books.shelf.before.get(deployment)
    gone = placed.keys() - {one.id for one in now}
    if not gone or before is None or not gone <= {one.id for one in before.containers}:
        return
    old = {one.id for one in before.containers}
    for one in now:
        parts.published.close(one.id)
        if one.id not in old and one.lease in {place.lease for place in placed.values()}:
            await _discarded(parts, one)
    parts.books.forget(*now)  # all, so that they are in their old order again
    parts.books.keep(*before.containers)


async def _discarded(parts: Parts, one: Container) -> None:
    """What was new, and in the way of what comes back. It may be gone already."""
    path, query = f"/containers/{one.remote}", {"force": "1", "v": "1"}
    try:
        await parts.engines.call(one.lease, "DELETE", path, query=query, limit=SLOW)
    except ApiError as error:
        if error.status != 404:
            raise


def _moved(place: Spot, container: Container) -> Container:
    return replace(container, lease=place.lease, remote=place.remote, ended="", seen=b"{}")


async def _furnishings_follow(parts: Parts, deployment: str, lease: LeaseId) -> None:
    _, found = await parts.engines.call(lease, "GET", "/networks")
    if not isinstance(found, list):
        raise PeerError("engine.strange", "the provider's engine answered something else than a list")
    ids = {str(one.get("Name")): id_of(one) for one in found if isinstance(one, dict)}
    shelf = parts.books.shelf
    networks = [one for one in shelf.networks.values() if one.deployment == deployment and one.name in ids]
    volumes = [one for one in shelf.volumes.values() if one.deployment == deployment]
    parts.books.keep(
        *(replace(one, lease=lease, remote=ids[one.name]) for one in networks),
        *(replace(one, lease=lease) for one in volumes),
    )


def _rented(parts: Parts, deployment: str, info: LeaseInfo) -> None:
    before = parts.books.rented(deployment)
    wishes = before[-1].wishes if before else {}
    gone = [one for one in before if parts.engines.info(one.lease) is None]
    parts.books.forget(*gone, *(one for one in before if one.lease == info.id))  # the newest comes last
    parts.books.keep(Rented(info.id, deployment, info.provider, info.msat_hour, wishes))
    parts.watch.follow(info.id)
