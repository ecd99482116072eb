"""Handlers of what goes to registries where there is no local engine: pull and login."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec

from dockage.domain.errors import DockageError, UsageError
from dockage.ports.renting import ImageStore, Line, Puller
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.registry import Credentials, credentials
from dockage.wire.relay import stream

from .call import JSON, Call
from .local import NO_ENGINE
from .parts import Parts

ABSENT = ("registry.unknown", "registry.denied")
"""What an engine answers with 404: a registry does not say which of the two it is."""


async def pull(call: Call, parts: Parts, store: ImageStore) -> None:
    """POST /images/create. What fails before it has begun has a status, as at an engine; after that, a line."""
    await call.raw_body()
    mine = credentials(call.request.headers.get("x-registry-auth"))
    lines = _puller(parts).pull(_name(call), call.query.get("platform", ""), mine)
    async with aclosing(lines):
        try:
            first = await anext(lines)
        except UsageError as error:
            raise ApiError(404, error.message) if error.code in ABSENT else error from error
        await stream(call.server, 200, JSON, _told(first, lines))


async def login(call: Call, parts: Parts, store: ImageStore) -> None:
    """POST /auth"""
    try:
        mine = msgspec.convert(await call.json_body(), Credentials)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"not credentials: {error}") from error
    try:
        await _puller(parts).login(mine)
    except UsageError as error:
        raise ApiError(401, error.message) if error.code == "registry.denied" else error from error
    await call.answer({"IdentityToken": "", "Status": "Login Succeeded"})


def _puller(parts: Parts) -> Puller:
    if parts.local.puller is None:
        raise ApiError(501, NO_ENGINE)
    return parts.local.puller


def _name(call: Call) -> str:
    name, tag = call.query.get("fromImage", ""), call.query.get("tag", "")
    if not name:
        raise ApiError(501, NO_ENGINE)
    if tag:
        return f"{name}{'@' if tag.startswith('sha256:') else ':'}{tag}"
    if ":" not in name.rpartition("/")[2]:
        raise ApiError(
            400, f"dockage pulls one image at a time without a local engine: name a tag of {name[:200]}"
        )
    return name


async def _told(first: Line, lines: AsyncGenerator[Line]) -> AsyncIterator[bytes]:
    yield _encoded(first)
    try:
        async for line in lines:
            yield _encoded(line)
    except DockageError as error:
        yield _encoded({"errorDetail": {"message": error.message}, "error": error.message})


def _encoded(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\r\n"
