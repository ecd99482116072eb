"""Handlers of containers and execs."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec

from dockage.protocol.docker import filters, names, views
from dockage.protocol.docker.create import Creation, Resolved, Wants, creation, limited, wants
from dockage.protocol.docker.execution import exec_body, start_body
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.refusals import check, refusals, update_refusals
from dockage.protocol.docker.update import update_body
from dockage.protocol.docker.volumes import VolumeUse, with_declared
from dockage.wire.relay import only

from . import lookup, relay, volumes
from .exchange import Exchange

CONTAINERS_MAX = 128
"""Of one lease; each costs the engine memory that no meter of the lease sees."""
LIST_FILTERS = frozenset(
    "label name id status exited health network volume ancestor before since expose publish".split()
)
PRUNE_FILTERS = frozenset({"label", "label!", "until"})


async def listing(exchange: Exchange) -> None:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, LIST_FILTERS)
    confined = filters.of_lease(exchange.lease, await _in_engine_terms(exchange, wanted))
    params = {key: value for key, value in exchange.query.items() if key != "filters"}
    found = await exchange.call(
        "GET", "/containers/json", params=params | {"filters": filters.encode(confined)}
    )
    if "size" in exchange.query:
        found = [await _sized(exchange, item) for item in found]
    shown = [views.listed(exchange.place, item) for item in found]
    await exchange.answer([item for item in shown if filters.names_match(wanted, _bare_name(item))])


async def _sized(exchange: Exchange, item: dict[str, Any]) -> dict[str, Any]:
    """The engine sees only links where a container's layer lies on the lease's disk."""
    if "SizeRootFs" not in item:
        return item  # nobody asked
    written = await exchange.room.written(exchange.lease, str(item["Id"]))
    seen = item.get("SizeRw")  # left out of a list where it is 0, there and in what we answer
    if written is None:
        return item
    right = {"SizeRw": written, "SizeRootFs": item["SizeRootFs"] - (seen or 0) + written}
    return {
        key: value
        for key, value in (item | right).items()
        if key != "SizeRw" or written or "Names" not in item
    }


def _bare_name(item: dict[str, Any]) -> str:
    return str((item["Names"] or ["/"])[0])[1:]


async def _in_engine_terms(exchange: Exchange, wanted: filters.Filters) -> filters.Filters:
    """``name`` is left to us: the engine would match it against its own names."""
    terms = {key: values for key, values in wanted.items() if key != "name"}
    for key in ("before", "since"):
        if key in terms:
            terms[key] = [await lookup.container(exchange, value) for value in terms[key]]
    if "network" in terms:
        known = {item["Name"]: item["Id"] for item in await lookup.networks(exchange)}
        default = {names.DEFAULT_NETWORK: exchange.place.network}
        own = (default.get(value, names.prefix(exchange.lease) + value) for value in terms["network"])
        terms["network"] = [known.get(name, "none-of-the-lease") for name in own]
    if "volume" in terms:
        prefix = names.prefix(exchange.lease)
        terms["volume"] = [prefix + value if names.is_name(value) else value for value in terms["volume"]]
    return terms


async def inspect(exchange: Exchange) -> None:
    id = await lookup.container(exchange, exchange.match.references["container"])
    found = await exchange.call("GET", f"/containers/{id}/json", params=exchange.query)
    await exchange.answer(views.inspected(exchange.place, await _sized(exchange, found)))


# -- making and removing -------------------------------------------------------------------------------
async def create(exchange: Exchange) -> None:
    body = await exchange.json_body()
    check(refusals(body))
    name = exchange.query.get("name", "").removeprefix("/") or f"dockage-{secrets.token_hex(6)}"
    engine_name = names.engine_name(exchange.lease, name)
    async with exchange.state.lock:
        need = wants(body)
        image = await _begin(exchange, need)
        resolved = await _resolve(exchange, need, *image)
        try:
            made = await _make(exchange, engine_name, creation(body, name, exchange.place, resolved))
        except BaseException:
            await volumes.forget(exchange, resolved.anonymous)
            raise
    await exchange.answer(made, 201)


async def _begin(exchange: Exchange, need: Wants) -> tuple[str, dict[str, Any]]:
    """The image's tag and config. Three questions take the engine as long as one. Raises Refused(409) without room."""
    try:
        async with asyncio.TaskGroup() as tasks:
            image = tasks.create_task(lookup.image_config(exchange, need.image))
            there = tasks.create_task(lookup.containers(exchange))
            tasks.create_task(volumes.forget_orphans(exchange))
    except BaseExceptionGroup as group:
        raise only(group) from None
    if len(there.result()) >= CONTAINERS_MAX:
        raise Refused(409, f"a lease has at most {CONTAINERS_MAX} containers; remove one first")
    return image.result()


async def _resolve(exchange: Exchange, need: Wants, image: str, config: dict[str, Any]) -> Resolved:
    uses = with_declared(need.volumes, config.get("Volumes"), need.tmpfs)
    containers = {each: await lookup.container(exchange, each) for each in need.containers}
    networks = {each: await lookup.network_name(exchange, each) for each in need.networks}
    named = tuple(use if use.name else use._replace(name=volumes.anonymous_name()) for use in uses)
    anonymous = tuple(use.name for use, asked in zip(named, uses, strict=True) if not asked.name)
    await _make_volumes(exchange, named, anonymous)
    return Resolved(image, named, anonymous, containers, networks)


async def _make_volumes(exchange: Exchange, uses: tuple[VolumeUse, ...], anonymous: tuple[str, ...]) -> None:
    known = {item["Name"] for item in await lookup.volumes(exchange)} if uses else set()
    for use in uses:
        if names.engine_name(exchange.lease, use.name) not in known:
            if use.name not in anonymous:
                volumes.check_name(use.name)
            await volumes.make(exchange, use.name, anonymous=use.name in anonymous)


async def _make(exchange: Exchange, name: str, wish: Creation) -> dict[str, Any]:
    made = await exchange.call("POST", "/containers/create", params={"name": name}, body=wish.body)
    id = str(made["Id"])
    try:
        await exchange.room.enclose(exchange.lease, id)
        for network, endpoint in wish.later:
            joined = {"Container": id, "EndpointConfig": endpoint}
            await exchange.call("POST", f"/networks/{network}/connect", body=joined)
    except BaseException:
        await exchange.engine.call("DELETE", f"/containers/{id}", params={"force": "1"})
        raise
    exchange.state.containers.add(id)
    warnings = [names.scrub(exchange.lease, str(each)) for each in made.get("Warnings") or []]
    return {"Id": id, "Warnings": warnings}


async def remove(exchange: Exchange) -> None:
    id = await lookup.container(exchange, exchange.match.references["container"])
    own = await _anonymous(exchange, id) if exchange.query.get("v") in ("1", "true") else []
    await exchange.call("DELETE", f"/containers/{id}", params=exchange.query)
    await volumes.forget(exchange, own)
    await exchange.done()


async def _anonymous(exchange: Exchange, id: str) -> list[str]:
    """The volumes that were made with the container."""
    labels = (await exchange.call("GET", f"/containers/{id}/json"))["Config"].get("Labels") or {}
    return [name for name in labels.get(names.ANONYMOUS_LABEL, "").split(",") if name]


async def prune(exchange: Exchange) -> None:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, PRUNE_FILTERS)
    confined = filters.encode(filters.of_lease(exchange.lease, wanted))
    found = await exchange.call("POST", "/containers/prune", params={"filters": confined})
    await exchange.answer(found)


async def rename(exchange: Exchange) -> None:
    id = await lookup.container(exchange, exchange.match.references["container"])
    name = names.engine_name(exchange.lease, exchange.query.get("name", "").removeprefix("/"))
    await exchange.call("POST", f"/containers/{id}/rename", params={"name": name})
    await exchange.done()


async def update(exchange: Exchange) -> None:
    id = await lookup.container(exchange, exchange.match.references["container"])
    body = await exchange.json_body()
    check(update_refusals(body))
    limited(body, exchange.place.limits)
    found = await exchange.call("POST", f"/containers/{id}/update", body=update_body(body))
    await exchange.answer(found)


# -- exec ----------------------------------------------------------------------------------------------
async def exec_create(exchange: Exchange) -> None:
    id = await lookup.container(exchange, exchange.match.references["container"])
    made = await exchange.call("POST", f"/containers/{id}/exec", body=exec_body(await exchange.json_body()))
    lookup.remember(exchange, str(made["Id"]))
    await exchange.answer(made, 201)


async def exec_start(exchange: Exchange) -> None:
    id = await lookup.execution(exchange, exchange.match.references["exec"])
    body = start_body(await exchange.json_body())
    await relay.hijack(exchange, f"/exec/{id}/start", {}, msgspec.json.encode(body))


async def exec_inspect(exchange: Exchange) -> None:
    id = await lookup.execution(exchange, exchange.match.references["exec"])
    await exchange.answer(views.executed(await exchange.call("GET", f"/exec/{id}/json")))
