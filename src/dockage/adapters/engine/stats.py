"""Handler of ``/stats``: lines from the provider's meter, one a second, for as long as somebody reads them.

As in Docker, a container that does not run shows zeros, and one that was removed ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from dockage.protocol.docker import names
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.stats import ContainerUse, document
from dockage.wire.http import JSON
from dockage.wire.relay import stream

from . import lookup
from .exchange import Exchange

PERIOD = 1.0
Line = bytes


async def stats(exchange: Exchange) -> None:
    id_ = await lookup.container(exchange, exchange.match.references["container"])
    follow, once = _flag(exchange, "stream", "1"), _flag(exchange, "one-shot", "0")
    if follow and once:
        raise Refused(400, "cannot have stream=true and one-shot=true")
    name = await _name(exchange, id_)
    if follow:
        await stream(exchange.server, 200, JSON, _lines(exchange, id_, name))
    else:
        await exchange.server.answer(200, JSON, await _single(exchange, id_, name, once))


def _flag(exchange: Exchange, name: str, default: str) -> bool:
    return exchange.query.get(name, default).lower() not in ("", "0", "no", "false", "none")


async def _name(exchange: Exchange, id_: str) -> str:
    """Raises Refused(404)."""
    found = await exchange.call("GET", f"/containers/{id_}/json")
    return "/" + names.tenant_name(exchange.lease, str(found.get("Name")))


async def _single(exchange: Exchange, id_: str, name: str, once: bool) -> Line:
    """Two samples a second apart, so that a rate can be told, unless only totals are wanted."""
    before = None
    now = await exchange.room.used(exchange.lease, id_)
    if now is not None and not once:
        await asyncio.sleep(PERIOD)
        before, now = now, await exchange.room.used(exchange.lease, id_)
    return _line(exchange, id_, name, now, before)


async def _lines(exchange: Exchange, id_: str, name: str) -> AsyncIterator[Line]:
    before = None
    while True:
        now = await exchange.room.used(exchange.lease, id_)
        if now is None and not await _is_there(exchange, id_):
            return
        yield _line(exchange, id_, name, now, before)
        before = now
        await asyncio.sleep(PERIOD)


async def _is_there(exchange: Exchange, id_: str) -> bool:
    return (await exchange.engine.call("GET", f"/containers/{id_}/json")).status != 404


def _line(
    exchange: Exchange, id_: str, name: str, now: ContainerUse | None, before: ContainerUse | None
) -> Line:
    return msgspec.json.encode(document(id_, name, exchange.place.limits, now, before)) + b"\n"
