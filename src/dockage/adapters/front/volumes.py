"""Handlers of named volumes: objects of the front, with data at the lease of the deployment that uses them.

A volume with data keeps its lease: ``compose down`` leaves both, ``down -v`` and ``volume rm`` give them back.
"""

from __future__ import annotations

import secrets

import msgspec

from dockage.domain.errors import DockageError
from dockage.protocol.docker import front_create as create_body
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_replies as replies
from dockage.protocol.docker import volume_create
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_state import Volume

from .call import Call
from .parts import Parts

VOLUMES_MAX = 1000
ANONYMOUS = "com.docker.volume.anonymous"


async def create(call: Call, parts: Parts) -> None:
    body = await call.json_body()
    wish = volume_create.parse(body)
    known = parts.books.shelf.volumes.get(wish.name)
    if known is None:
        if len(parts.books.shelf.volumes) >= VOLUMES_MAX:
            raise ApiError(400, f"at most {VOLUMES_MAX} volumes are kept; remove some first")
        labels = wish.labels if wish.name else {**wish.labels, ANONYMOUS: ""}
        name = wish.name or secrets.token_hex(32)
        known = parts.tenancy.new_volume({**body, "Name": name, "Labels": labels})
    await call.answer(replies.volume(known), 201)


async def list_all(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    dangling = wanted.pop("dangling", ())
    docs = [replies.volume(one) for one in parts.books.shelf.volumes.values()]
    if dangling:
        used = users(parts)
        docs = [doc for doc in docs if (doc["Name"] in used) != (dangling[0] in ("1", "true"))]
    await call.answer({"Volumes": filters.select(docs, wanted, filters.VOLUME), "Warnings": None})


def users(parts: Parts) -> dict[str, list[str]]:
    """Volume name to the ids of the containers that mount it."""
    found: dict[str, list[str]] = {}
    for container in parts.books.shelf.containers.values():
        for name in create_body.volumes(msgspec.json.decode(container.body)).values():
            found.setdefault(name, []).append(container.id)
    return found


async def inspect(call: Call, parts: Parts) -> None:
    await call.answer(replies.volume(parts.books.volume(call.names["id"])))


async def remove(call: Call, parts: Parts) -> None:
    name = call.names["id"]
    if call.flag("force") and name not in parts.books.shelf.volumes:
        return await call.done()
    await _remove(parts, parts.books.volume(name))
    await call.done()


async def _remove(parts: Parts, volume: Volume) -> None:
    """Raises ApiError(409) while a container mounts it."""
    if ids := users(parts).get(volume.name):
        raise ApiError(409, f"remove {volume.name}: volume is in use - [{', '.join(ids)}]")
    if volume.lease:
        try:
            await parts.engines.call(volume.lease, "DELETE", f"/volumes/{volume.name}")
        except DockageError as error:
            gone = isinstance(error, ApiError) and error.status == 404
            if not gone and not await parts.watch.check_end(volume.lease):
                raise
    parts.books.forget(volume)
    parts.watch.announce("volume", "destroy", volume.name, {"driver": "local"})
    parts.tenancy.settle(volume.deployment)


async def prune(call: Call, parts: Parts) -> None:
    """As the engine: anonymous ones, or with the filter ``all`` every one that no container mounts."""
    wanted = filters.parse(call.query.get("filters", ""))
    everything = wanted.pop("all", ("false",))[0] in ("1", "true")
    used, deleted = users(parts), []
    docs = [replies.volume(one) for one in parts.books.shelf.volumes.values()]
    for doc in filters.select(docs, wanted, filters.VOLUME):
        volume = parts.books.shelf.volumes.get(doc["Name"])
        if volume is not None and volume.name not in used and (everything or ANONYMOUS in doc["Labels"]):
            await _remove(parts, volume)
            deleted.append(volume.name)
    parts.watch.pruned("volume")
    await call.answer({"VolumesDeleted": deleted, "SpaceReclaimed": 0})
