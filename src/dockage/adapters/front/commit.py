"""``docker commit``: the files of a container on a lease become an image of the tenant's own engine.

They come as one tar (``export``) and are imported as one layer, so the image shares none with the one that the
container was made of. Its settings are the container's, and what the request changes of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from dockage.protocol.docker import front_views as views
from dockage.protocol.docker.dockerfile import instructions
from dockage.protocol.docker.front_errors import ApiError, ended
from dockage.protocol.docker.front_state import Container
from dockage.wire.relay import attended

from .call import Call
from .engines import message_of
from .parts import Parts


async def commit(call: Call, parts: Parts) -> None:
    """Engine API v1.44, ImageCommit."""
    container = parts.books.container(call.query.get("container", ""))
    if container.ended:
        raise ended(container.name, container.ended)
    wanted = await call.json_body()

    async def make() -> None:
        doc = await parts.watch.look(container)
        config = {**doc.get("Config", {}), **{name: value for name, value in wanted.items() if value}}
        async with _still(parts, container, doc, call.query.get("pause", "1")):
            image = await _imported(call, parts, container, instructions(config))
        made = {"imageID": image, "comment": call.query.get("comment", "")}
        parts.watch.announce("container", "commit", container.id, {"name": container.name, **made})
        await call.answer({"Id": image}, 201)

    await attended(call.server, make())


@asynccontextmanager
async def _still(parts: Parts, container: Container, doc: dict[str, Any], pause: str) -> AsyncIterator[None]:
    """Nothing is written meanwhile, unless the user wants it so."""
    held = views.state_of(doc) == "running" and pause not in ("0", "false", "False")
    path = f"/containers/{container.remote}"
    if held:
        await parts.engines.call(container.lease, "POST", f"{path}/pause")
    try:
        yield
    finally:
        if held:
            await parts.engines.call(container.lease, "POST", f"{path}/unpause")


async def _imported(call: Call, parts: Parts, container: Container, settings: list[str]) -> str:
    asked = parse_qsl(call.request.target.partition("?")[2])
    query = [("fromSrc", "-"), ("message", call.query.get("comment", ""))]
    query += [(name, call.query[name]) for name in ("repo", "tag") if call.query.get(name)]
    query += [("changes", line) for line in settings]
    query += [pair for pair in asked if pair[0] == "changes"]
    async with parts.engines.connected(container.lease) as client:
        response = await client.request("GET", f"/containers/{container.remote}/export")
        if response.status != 200:
            raise ApiError(response.status, message_of(await response.read_body()))
        return await parts.local.import_tar(query, response.body())
