"""A tenant's word for something -> the engine's, looked for among the objects of the lease and nowhere else.

Each function asks the engine with the lease's label as a filter, so what it cannot find does not exist for this
tenant: another lease's container and none at all give the same 404.
"""

from __future__ import annotations

from typing import Any

from dockage.protocol.docker import filters, names, views
from dockage.protocol.docker.refusal import Refused, not_found
from dockage.protocol.images import lease_repository, lease_tag

from .exchange import Exchange

Json = dict[str, Any]
EXECS_MAX = 4096


def _labelled(exchange: Exchange) -> dict[str, str]:
    return {"filters": filters.encode(filters.of_lease(exchange.lease))}


async def containers(exchange: Exchange) -> list[Json]:
    found: list[Json] = await exchange.call(
        "GET", "/containers/json", params={"all": "1"} | _labelled(exchange)
    )
    exchange.state.containers.update(item["Id"] for item in found)
    return found


async def container(exchange: Exchange, reference: str) -> str:
    """The full id. Raises Refused(404)."""
    if reference in exchange.state.containers:
        return reference
    return str((await container_item(exchange, reference))["Id"])


async def container_item(exchange: Exchange, reference: str) -> Json:
    """The entry of the list. Docker's order: full id, name, unique beginning of an id."""
    wanted = "/" + names.prefix(exchange.lease) + reference
    found = await containers(exchange)
    named = [item for item in found if item["Id"] == reference or wanted in (item.get("Names") or [])]
    return _single(
        "container", reference, named or [item for item in found if item["Id"].startswith(reference)]
    )


async def execution(exchange: Exchange, reference: str) -> str:
    """An exec's id: one that we made, or one whose container is of the lease (after a restart of ours)."""
    if reference in exchange.state.execs:
        return reference
    if not names.is_full_id(reference):
        raise not_found("exec instance", reference)
    answer = await exchange.engine.call("GET", f"/exec/{reference}/json")
    owner = answer.json().get("ContainerID", "") if answer.ok else ""
    if owner not in exchange.state.containers:
        await containers(exchange)
    if owner not in exchange.state.containers:
        raise not_found("exec instance", reference)
    remember(exchange, reference)
    return reference


def remember(exchange: Exchange, execution: str) -> None:
    known = exchange.state.execs
    known[execution] = None
    while len(known) > EXECS_MAX:
        del known[next(iter(known))]


async def images(exchange: Exchange) -> list[Json]:
    params = {"filters": filters.encode({"reference": [lease_repository(exchange.lease)]})}
    found: list[Json] = await exchange.call("GET", "/images/json", params=params)
    return found


async def image(exchange: Exchange, reference: str) -> str:
    """The tenant's full id of an image that this lease was given."""
    if not names.is_image_id(reference):
        raise Refused(404, f"No such image: {reference[:200]} (a lease knows images by id only)")
    wanted = "sha256:" + reference.removeprefix("sha256:")
    given = [views.image_id(exchange.lease, item) for item in await images(exchange)]
    fitting = [{"Id": id} for id in given if id.startswith(wanted)]
    return str(_single("image", reference, fitting)["Id"])


async def image_config(exchange: Exchange, reference: str) -> tuple[str, Json]:
    """The lease's own tag of an image, and its ``Config``. By the tag, since what the engine calls an image depends on
    its store; and, for a whole id, without asking for the list, which is long on an engine with many tenants."""
    digits = reference.removeprefix("sha256:")
    if names.is_full_id(digits):
        tag = lease_tag(exchange.lease, "sha256:" + digits)
        answer = await exchange.engine.call("GET", f"/images/{tag}/json")
        if answer.ok:
            return tag, answer.json().get("Config") or {}
    tag = lease_tag(exchange.lease, await image(exchange, reference))
    return tag, (await exchange.call("GET", f"/images/{tag}/json")).get("Config") or {}


async def networks(exchange: Exchange) -> list[Json]:
    found: list[Json] = await exchange.call("GET", "/networks", params=_labelled(exchange))
    return found


async def network(exchange: Exchange, reference: str) -> Json:
    found = await networks(exchange)
    default = reference in (names.DEFAULT_NETWORK, "default")
    wanted = exchange.place.network if default else names.prefix(exchange.lease) + reference
    named = [item for item in found if reference == item["Id"] or wanted == item["Name"]]
    return _single(
        "network", reference, named or [item for item in found if item["Id"].startswith(reference)]
    )


async def network_name(exchange: Exchange, reference: str) -> str:
    """The engine's; of the one that each lease has without asking for it the id, which it keeps."""
    if reference not in (names.DEFAULT_NETWORK, "default"):
        return str((await network(exchange, reference))["Name"])
    if not exchange.state.network:
        exchange.state.network = str((await network(exchange, reference))["Id"])
    return exchange.state.network


async def volumes(exchange: Exchange, **more: list[str]) -> list[Json]:
    wanted = filters.of_lease(exchange.lease, more)
    found = await exchange.call("GET", "/volumes", params={"filters": filters.encode(wanted)})
    return list(found.get("Volumes") or [])


async def volume(exchange: Exchange, reference: str) -> Json:
    wanted = names.prefix(exchange.lease) + reference
    return _single("volume", reference, [each for each in await volumes(exchange) if each["Name"] == wanted])


def _single(kind: str, reference: str, found: list[Json]) -> Json:
    if not found:
        raise (
            Refused(404, f"get {reference[:200]}: no such volume")
            if kind == "volume"
            else not_found(kind, reference)
        )
    if len(found) > 1:
        raise Refused(400, f"{reference[:80]} is the beginning of more than one {kind}'s id")
    return found[0]
