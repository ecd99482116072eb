"""``ports.Copies`` without a Docker front: each deployment is one container, and each host just remembers its own.

What a real front promises is kept: a replay may be repeated, and what a lease's provider cannot be asked is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.ports.renting import Placed, Progress, Spot
from dockage.protocol.docker.recipe import Recipe, RecipeContainer

IMAGE = "sha256:" + "1" * 64


class FakeCopies:
    def __init__(self, reach: Callable[[LeaseId], Awaitable[Any]]) -> None:
        """*reach*: raises Unavailable where a lease's provider does not answer."""
        self._reach = reach
        self.recipes: dict[str, Recipe] = {}
        self.leads: dict[str, Placed] = {}
        self.made: set[Spot] = set()
        self.running: set[Spot] = set()
        self.adopted: list[tuple[str, LeaseId]] = []

    def deploy(
        self, name: str, lease: LeaseId, need: Resources, labels: dict[str, str], *, time: int = 1
    ) -> None:
        """As our user's docker would; made anew, the second *time*, it is another container."""
        body = msgspec.json.encode({"Image": "app", "Labels": labels})
        id_ = hashlib.sha256(f"{name}/{time}".encode()).hexdigest()
        self.recipes[name] = Recipe(name, (RecipeContainer(id_, name, IMAGE, "app", need, body),))
        spot = Spot(lease, id_)
        self.leads[name] = {id_: spot}
        self.made.add(spot)
        self.running.add(spot)

    # -- ports.Copies --------------------------------------------------------------------------------
    def deployments(self) -> Sequence[str]:
        return list(self.recipes)

    def lease_of(self, deployment: str) -> LeaseId | None:
        spots = list(self.leads.get(deployment, {}).values())
        return spots[0].lease if spots else None

    def where(self, deployment: str) -> Placed:
        return self.leads.get(deployment, {})

    def recipe(self, deployment: str) -> Recipe:
        if deployment not in self.recipes:
            raise UsageError("recipe.unknown", f"there is no container in deployment {deployment}")
        recipe, where = self.recipes[deployment], self.where(deployment)
        return replace(
            recipe,
            containers=tuple(replace(one, runs=where[one.id] in self.running) for one in recipe.containers),
        )

    async def replay(
        self, recipe: Recipe, lease: LeaseId, progress: Progress, *, start: bool = True
    ) -> Placed:
        await self._reach(lease)
        placed = {one.id: Spot(lease, one.id) for one in recipe.containers}
        self.made |= set(placed.values())
        if start:
            await self.start_replayed(recipe, placed, progress)
        return placed

    async def start_replayed(self, recipe: Recipe, placed: Placed, progress: Progress) -> None:
        for spot in placed.values():
            await self._reach(spot.lease)
            self.running.add(spot)

    async def stop_replayed(self, placed: Placed) -> None:
        for spot in placed.values():
            await self._reach(spot.lease)
            self.running.discard(spot)

    async def adopt(self, deployment: str, placed: Placed) -> None:
        for spot in placed.values():
            await self._reach(spot.lease)
        known = self.leads[deployment]
        self.leads[deployment] = {id_: placed.get(id_, spot) for id_, spot in known.items()}
        self.adopted.append((deployment, next(iter(placed.values())).lease))
