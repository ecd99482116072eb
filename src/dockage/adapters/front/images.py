"""Handlers of images where there is no local engine: what our own store can do, and a clear no to the rest.

With a local engine nothing of this is asked; then everything about images is relayed to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import msgspec

from dockage.domain.errors import UsageError
from dockage.ports.renting import ImageStore, StoredImage
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_images as views
from dockage.protocol.docker.front_errors import ApiError, no_image
from dockage.wire.relay import stream

from . import pulls
from .call import HEADERS, JSON, Call
from .local import NO_ENGINE, stored
from .parts import Parts

SESSION = 30.0
"""Seconds in which a client hangs up."""
_NAMED = re.compile(r"/images/(?P<name>.+)/(?P<what>json|history|tag|get)")


async def serve(call: Call, parts: Parts, store: ImageStore) -> None:
    """Raises ApiError(501) for what needs an engine."""
    path = unquote(call.path)
    whole = _WHOLE.get((call.request.method, path))
    if whole is not None:
        await whole(call, parts, store)
    elif found := _NAMED.fullmatch(path):
        await _of_one(call, store, found["name"], found["what"])
    elif call.request.method == "DELETE" and path.startswith("/images/"):
        await _remove(call, parts, store, path.removeprefix("/images/"))
    else:
        raise ApiError(501, NO_ENGINE)


async def _of_one(call: Call, store: ImageStore, name: str, what: str) -> None:
    match call.request.method, what:
        case "GET", "json":
            await call.answer(stored(store, name))
        case "GET", "history":
            await call.answer(views.history(*_find(store, name)[:2]))
        case "GET", "get":
            await _send(call, store, [name])
        case "POST", "tag":
            repository, tag = call.query.get("repo", ""), call.query.get("tag", "")
            _find(store, name)
            await store.tag(name, f"{repository}:{tag}" if tag else repository)
            await call.done(201)
        case _:
            raise ApiError(501, NO_ENGINE)


def _find(store: ImageStore, name: str) -> StoredImage:
    try:
        return store.find(name)
    except UsageError as error:
        raise no_image(name) if error.code == "image.unknown" else error from error


async def _list(call: Call, parts: Parts, store: ImageStore) -> None:
    await call.answer(listing(store, filters.parse(call.query.get("filters", ""))))


def listing(store: ImageStore, wanted: filters.Filters) -> list[dict[str, Any]]:
    """Newest first; ``before`` and ``since`` name images."""
    items = [views.listed(each.manifest, each.tags, each.digests) for each in store.all()]
    ids = [item["Id"] for item in items]
    for name in wanted.get("since", ()):
        items = [x for x in items if ids.index(x["Id"]) < ids.index(_find(store, name).manifest.image)]
    for name in wanted.get("before", ()):
        items = [x for x in items if ids.index(x["Id"]) > ids.index(_find(store, name).manifest.image)]
    return views.filtered(items, wanted)


async def _load(call: Call, parts: Parts, store: ImageStore) -> None:
    names = await store.load(call.server.body())
    lines = [f"Loaded image{' ID' if name.startswith('sha256:') else ''}: {name}\n" for name in names]
    body = b"".join(msgspec.json.encode({"stream": line}) + b"\n" for line in lines)
    await call.server.answer(200, JSON, body)


async def _get(call: Call, parts: Parts, store: ImageStore) -> None:
    names = call.every("names")
    if not names:
        raise ApiError(400, "which images? names is missing")
    await _send(call, store, names)


async def _send(call: Call, store: ImageStore, names: Sequence[str]) -> None:
    for name in names:
        _find(store, name)
    await stream(call.server, 200, [*HEADERS, ("content-type", "application/x-tar")], store.save(names))


async def _remove(call: Call, parts: Parts, store: ImageStore, name: str) -> None:
    image, force = _find(store, name), call.flag("force")
    users = [one.name for one in parts.books.shelf.containers.values() if _uses(store, one.image, image)]
    if users and len(image.tags) < 2 and not force:
        why = f"conflict: unable to remove {name} (must force): container {users[0]} needs it to start again"
        raise ApiError(409, why)
    untagged, deleted = await store.remove(name, force)
    await call.answer([*({"Untagged": one} for one in untagged), *({"Deleted": one} for one in deleted)])


def _uses(store: ImageStore, reference: str, image: StoredImage) -> bool:
    try:
        return store.find(reference).manifest.image == image.manifest.image
    except UsageError:
        return False


async def _prune(call: Call, parts: Parts, store: ImageStore) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    dangling = wanted.get("dangling", ("true",))[0] in ("1", "true")
    found = [each for each in store.all() if not (dangling and (each.tags or each.digests))]
    kept = [one.image for one in parts.books.shelf.containers.values()]
    unused = [each for each in found if not any(_uses(store, one, each) for one in kept)]
    deleted = [one for each in unused for one in (await store.remove(each.manifest.image, True))[1]]
    freed = sum(each.manifest.size for each in unused)
    await call.answer({"ImagesDeleted": [{"Deleted": one} for one in deleted], "SpaceReclaimed": freed})


async def _no_cache(call: Call, parts: Parts, store: ImageStore) -> None:
    """What is never built leaves no cache: ``docker system prune`` goes on."""
    await call.answer({"CachesDeleted": [], "SpaceReclaimed": 0})


async def _idle_session(call: Call, parts: Parts, store: ImageStore) -> None:
    """A client of 2021 opens it beside ``/build`` and shows the refusal of whichever is first, of this one without its
    words: so it is let in, and hears at once that nobody is there. (Else it would wait 10 s for that.)"""
    if not call.request.wants_upgrade:
        raise ApiError(501, NO_ENGINE)
    session = await call.server.upgrade()
    await session.finish()
    with suppress(TimeoutError):
        async with asyncio.timeout(SESSION):
            while await session.read(1 << 16):
                pass


Handler = Callable[[Call, Parts, ImageStore], Awaitable[None]]
_WHOLE: dict[tuple[str, str], Handler] = {
    ("GET", "/images/json"): _list,
    ("POST", "/images/load"): _load,
    ("POST", "/images/create"): pulls.pull,
    ("POST", "/auth"): pulls.login,
    ("POST", "/session"): _idle_session,
    ("POST", "/build/prune"): _no_cache,
    ("GET", "/images/get"): _get,
    ("POST", "/images/prune"): _prune,
}
