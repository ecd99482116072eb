"""A deployment as a value: all that is needed to set it up again in another lease, on any provider.

Counterparts: ``recipe_of`` takes it down from the front's books, ``adapters/front/replay.py`` cooks it. A controller
keeps the newest in its desired state (``encode``), obtains a lease of ``recipe.need`` with ``recipe.wishes`` under a
name of its own, and calls ``DockerFront.replay``; ``DockerFront.adopt`` lets docker and published ports follow. Not in
it: what containers wrote, what is in volumes. Environments may hold secrets: whoever reads a recipe reads them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.resources import Resources

from . import front_create as create
from .front_state import Container, Publish, Shelf
from .front_views import is_alive
from .names import is_full_id, is_name
from .refusals import refusals

RECIPE_MAX = 1 << 20
"""Bytes, encoded. A create body is 2 kB."""
CONTAINERS_MAX, NETWORKS_MAX, VOLUMES_MAX = 128, 64, 256
"""The first is what a lease may have (spec 07)."""
IMAGE = re.compile(r"sha256:[0-9a-f]{64}")
STEP_LABEL = "dockage.step"
"""On each container that a replay makes: which step of which recipe it is, so that a replay may be cut and repeated."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class RecipeNetwork(Part, frozen=True):
    name: str
    internal: bool = False
    labels: dict[str, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        """For ``POST /networks/create`` of the lease."""
        return {
            "Name": self.name,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Internal": self.internal,
            "Labels": self.labels,
        }


class RecipeVolume(Part, frozen=True):
    name: str
    options: dict[str, str] = {}
    """``DriverOpts``: its size."""
    labels: dict[str, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        """For ``POST /volumes/create`` of the lease."""
        return {"Name": self.name, "Labels": self.labels, "DriverOpts": self.options}


class RecipeContainer(Part, frozen=True):
    id: str
    """Ours, 64 hex digits: what the user's docker calls it wherever it runs."""
    name: str
    image: str
    """``sha256:`` of its config: the same content everywhere."""
    reference: str
    """What the user calls the image; it may mean another one by now."""
    need: Resources
    body: bytes
    """The create body (JSON) for a lease's engine: other containers by our ids, networks by name, no host ports."""
    runs: bool = True
    ports: tuple[Publish, ...] = ()
    """What is published on the tenant's machine, and so what a gateway may be asked for."""

    @property
    def step(self) -> str:
        """Changes with anything that would make another container."""
        return hashlib.sha256(b"\0".join((self.name.encode(), self.image.encode(), self.body))).hexdigest()[
            :32
        ]


class Recipe(Part, frozen=True):
    """In the order in which a replay makes things: each container comes after those it shares something with."""

    deployment: str
    containers: tuple[RecipeContainer, ...] = ()
    networks: tuple[RecipeNetwork, ...] = ()
    volumes: tuple[RecipeVolume, ...] = ()
    wishes: dict[str, str] = {}
    """The ``dockage.*`` labels by which its lease was chosen."""

    @property
    def need(self) -> Resources:
        return sum((one.need for one in self.containers), Resources())

    @property
    def images(self) -> dict[str, str]:
        """Id to the user's name for it, each once."""
        return {one.image: one.reference for one in self.containers}


# -- as bytes ------------------------------------------------------------------------------------------
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Recipe)


def encode(recipe: Recipe) -> bytes:
    """Equal recipes are equal bytes. Raises UsageError("recipe.large")."""
    data = _ENCODER.encode(recipe)
    if len(data) > RECIPE_MAX:
        raise UsageError(
            "recipe.large",
            f"deployment {recipe.deployment} takes {len(data)} bytes to describe, at most {RECIPE_MAX} are carried: "
            "shorten environments and labels, or move them into the image",
        )
    return data


def decode(data: bytes) -> Recipe:
    """Raises PeerError("recipe.malformed") for anything that a replay could trip over."""
    if len(data) > RECIPE_MAX:
        raise _malformed(f"{len(data)} bytes, at most {RECIPE_MAX}")
    try:
        recipe = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(str(error)) from error
    _check(recipe)
    return recipe


def _malformed(why: str) -> PeerError:
    return PeerError("recipe.malformed", f"not a recipe: {why}")


def _check(recipe: Recipe) -> None:
    for kind, count, limit in (
        ("containers", len(recipe.containers), CONTAINERS_MAX),
        ("networks", len(recipe.networks), NETWORKS_MAX),
        ("volumes", len(recipe.volumes), VOLUMES_MAX),
    ):
        if count > limit:
            raise _malformed(f"{count} {kind}, at most {limit}")
    for names in (
        [one.name for one in recipe.containers],
        [one.name for one in recipe.networks],
        [one.name for one in recipe.volumes],
        [one.id for one in recipe.containers],
    ):
        if len(set(names)) != len(names) or not all(map(is_name, names)):
            raise _malformed("a name is empty, strange, or there twice")
    made: set[str] = set()
    for one in recipe.containers:
        _check_container(one, made, {network.name for network in recipe.networks})
        made.add(one.id)


def _check_container(one: RecipeContainer, made: set[str], networks: set[str]) -> None:
    if not is_full_id(one.id) or not IMAGE.fullmatch(one.image):
        raise _malformed(f"container {one.name[:80]} or its image has no full id")
    try:
        body = msgspec.json.decode(one.body, type=dict[str, Any])
        found = refusals(body)
        strangers = set(create.peers(body)) - made
        unknown = set(create.networks(body)) - networks
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise _malformed(f"the body of container {one.name[:80]}: {error}") from error
    if found:
        raise _malformed(f"container {one.name[:80]}: {found[0]}")
    if strangers or unknown:
        raise _malformed(
            f"container {one.name[:80]} needs what is not in the recipe: {min(strangers | unknown)[:80]}"
        )


# -- from the books ------------------------------------------------------------------------------------
def recipe_of(shelf: Shelf, deployment: str) -> Recipe:
    """*deployment* as it is now; of a lease that has ended, as it was then. Raises UsageError("recipe.unknown") for one
    without containers, and UsageError("recipe.incomplete") for a container of which we do not know what it is."""
    kept = [one for one in shelf.in_deployment(deployment) if not _is_one_off(one)]
    if not kept:
        raise UsageError(
            "recipe.unknown", f"there is no container in deployment {deployment}: `dockage ps` lists them"
        )
    bodies = {one.id: msgspec.json.decode(one.body, type=dict[str, Any]) for one in kept}
    return Recipe(
        deployment=deployment,
        containers=tuple(_container(one, bodies[one.id], shelf) for one in _ordered(kept, bodies, shelf)),
        networks=tuple(_networks(shelf, deployment, bodies.values())),
        volumes=tuple(_volumes(shelf, deployment, bodies.values())),
        wishes=next(
            (one.wishes for one in reversed(shelf.rented.values()) if one.deployment == deployment), {}
        ),
    )


def _is_one_off(container: Container) -> bool:
    """Of ``docker compose run``: a command that somebody typed, not a part of the deployment."""
    body = msgspec.json.decode(container.body, type=dict[str, Any])
    return create.labels(body).get("com.docker.compose.oneoff", "").lower() == "true"


def _ordered(
    kept: Iterable[Container], bodies: Mapping[str, dict[str, Any]], shelf: Shelf
) -> list[Container]:
    """Oldest first, but nobody before whom it shares a network or volumes with: that one may have been made anew."""
    found: dict[str, Container] = {}

    def add(one: Container, above: tuple[str, ...]) -> None:
        for peer in create.peers(bodies[one.id]):
            other = shelf.find_container(peer)
            if other is not None and other.id in bodies and other.id not in above:
                add(other, (*above, one.id))
        found.setdefault(one.id, one)

    for one in kept:
        add(one, ())
    return list(found.values())


def _container(one: Container, body: dict[str, Any], shelf: Shelf) -> RecipeContainer:
    seen = msgspec.json.decode(one.seen, type=dict[str, Any])
    image = one.image_id or str(seen.get("Image"))
    if not IMAGE.fullmatch(image):
        raise UsageError(
            "recipe.incomplete", f"container {one.name} was never seen at its provider; try again"
        )
    others = {peer: other.id for peer in create.peers(body) if (other := shelf.find_container(peer))}
    return RecipeContainer(
        id=one.id,
        name=one.name,
        image=image,
        reference=one.image,
        need=one.need,
        body=msgspec.json.encode(
            create.forwarded(body, image, others, shelf.network_names(create.networks(body)))
        ),
        runs=one.ran if one.ended else one.asleep or is_alive(seen),
        ports=one.ports,
    )


def _networks(shelf: Shelf, deployment: str, bodies: Iterable[dict[str, Any]]) -> Iterable[RecipeNetwork]:
    used = {name for body in bodies for name in create.networks(body)}
    for one in shelf.networks.values():
        if one.deployment == deployment or used & {one.name, one.id}:
            asked = msgspec.json.decode(one.body, type=dict[str, Any])
            yield RecipeNetwork(one.name, asked.get("Internal") is True, create.labels(asked))


def _volumes(shelf: Shelf, deployment: str, bodies: Iterable[dict[str, Any]]) -> Iterable[RecipeVolume]:
    used = {name for body in bodies for name in create.volumes(body).values()}
    for one in shelf.volumes.values():
        if one.deployment == deployment or one.name in used:
            asked = msgspec.json.decode(one.body, type=dict[str, Any])
            options = {str(key): str(value) for key, value in create.section(asked, "DriverOpts").items()}
            yield RecipeVolume(one.name, options, create.labels(asked))
