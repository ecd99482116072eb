"""Handlers of images: a lease sees those it was given (the receiver of layers tagged them), by id only."""

from __future__ import annotations

from dockage.protocol.docker import views
from dockage.protocol.images import lease_tag

from . import lookup
from .exchange import Exchange


async def listing(exchange: Exchange) -> None:
    await exchange.answer([views.image(exchange.lease, item) for item in await lookup.images(exchange)])


async def inspect(exchange: Exchange) -> None:
    id = await lookup.image(exchange, exchange.match.references["image"])
    found = await exchange.call("GET", f"/images/{lease_tag(exchange.lease, id)}/json")
    await exchange.answer(views.image(exchange.lease, found))


async def remove(exchange: Exchange) -> None:
    """The lease's tag goes; what nobody else has a tag on goes with it."""
    id = await lookup.image(exchange, exchange.match.references["image"])
    found = await exchange.call("DELETE", f"/images/{lease_tag(exchange.lease, id)}", params=exchange.query)
    await exchange.answer([{"Untagged": id}, *(item for item in found or [] if "Deleted" in item)])
