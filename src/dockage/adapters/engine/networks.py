"""Handlers of networks. A tenant's network is a bridge whose interface name the lease's firewall covers."""

from __future__ import annotations

from typing import Any

from dockage.ports.hosting import LEASE_LABEL
from dockage.protocol.docker import filters, names, views
from dockage.protocol.docker.create import endpoint_of
from dockage.protocol.docker.network_create import NetworkWish, parse
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.refusals import check, endpoint_refusals
from dockage.protocol.docker.values import is_default

from . import lookup
from .exchange import Exchange

NETWORKS_MAX = 8
"""Of one lease, besides the default one: an engine has about thirty bridge networks in its default pools."""
LIST_FILTERS = frozenset({"label", "name", "id", "driver", "scope", "type", "dangling"})
PRUNE_FILTERS = frozenset({"label"})


async def listing(exchange: Exchange) -> None:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, LIST_FILTERS)
    rest = {key: values for key, values in wanted.items() if key != "name"}
    confined = filters.encode(filters.of_lease(exchange.lease, rest))
    found = await exchange.call("GET", "/networks", params={"filters": confined})
    shown = [views.network(exchange.place, item) for item in found]
    await exchange.answer([item for item in shown if filters.names_match(wanted, item["Name"])])


async def inspect(exchange: Exchange) -> None:
    id = (await lookup.network(exchange, exchange.match.references["network"]))["Id"]
    await exchange.answer(views.network(exchange.place, await exchange.call("GET", f"/networks/{id}")))


async def create(exchange: Exchange) -> None:
    wish = parse(await exchange.json_body())
    async with exchange.state.lock:
        found = await lookup.networks(exchange)
        body = _body(exchange, wish, found)
        made = await exchange.call("POST", "/networks/create", body=body)
    await exchange.answer({"Id": made["Id"], "Warning": ""}, 201)


def _body(exchange: Exchange, wish: NetworkWish, found: list[dict[str, Any]]) -> dict[str, Any]:
    name = names.engine_name(exchange.lease, wish.name)
    if any(item["Name"] == name for item in found):
        raise Refused(409, f"network with name {wish.name} already exists")
    taken = {int(number) for item in found if (number := (item.get("Labels") or {}).get(names.NETWORK_LABEL))}
    if len(taken) >= NETWORKS_MAX:
        raise Refused(409, f"a lease has at most {NETWORKS_MAX} networks of its own; remove one first")
    number = min(set(range(1, NETWORKS_MAX + 1)) - taken)
    return {
        "Name": name,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": wish.internal,
        "Options": exchange.room.network_options(exchange.lease, number),
        "Labels": wish.labels | {LEASE_LABEL: exchange.lease.hex(), names.NETWORK_LABEL: str(number)},
    }


async def remove(exchange: Exchange) -> None:
    found = await lookup.network(exchange, exchange.match.references["network"])
    if found["Name"] == exchange.place.network:
        raise Refused(403, f"{names.DEFAULT_NETWORK} is the lease's own network and goes with it")
    async with exchange.state.lock:
        await exchange.call("DELETE", f"/networks/{found['Id']}")
    await exchange.done()


async def connect(exchange: Exchange) -> None:
    network = await lookup.network(exchange, exchange.match.references["network"])
    body = await exchange.json_body()
    check(endpoint_refusals(body.get("EndpointConfig")))
    item = await _container(exchange, body)
    named = network["Name"] != exchange.place.network
    name = names.tenant_name(exchange.lease, item["Names"][0]) if named else ""
    endpoint = endpoint_of(body.get("EndpointConfig") or {}, name)
    joined = {"Container": item["Id"], "EndpointConfig": endpoint}
    await exchange.call("POST", f"/networks/{network['Id']}/connect", body=joined)
    await exchange.server.answer(200, (), b"")


async def disconnect(exchange: Exchange) -> None:
    network = (await lookup.network(exchange, exchange.match.references["network"]))["Id"]
    body = await exchange.json_body()
    item = await _container(exchange, body)
    left = {"Container": item["Id"], "Force": body.get("Force") is True}
    await exchange.call("POST", f"/networks/{network}/disconnect", body=left)
    await exchange.server.answer(200, (), b"")


async def _container(exchange: Exchange, body: dict[str, Any]) -> dict[str, Any]:
    for key, value in body.items():
        if key not in ("Container", "EndpointConfig", "Force") and not is_default(value):
            raise Refused(400, f"{key[:80]} is not known to dockage")
    reference = body.get("Container")
    if not isinstance(reference, str) or not reference:
        raise Refused(400, "Container must be a name or an id")
    return await lookup.container_item(exchange, reference)


async def prune(exchange: Exchange) -> None:
    """One by one: the engine's own prune would take the default network along."""
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, PRUNE_FILTERS)
    confined = filters.encode(filters.of_lease(exchange.lease, wanted))
    gone = []
    async with exchange.state.lock:
        for item in await exchange.call("GET", "/networks", params={"filters": confined}):
            if item["Name"] != exchange.place.network:
                answer = await exchange.engine.call("DELETE", f"/networks/{item['Id']}")
                gone += [names.tenant_name(exchange.lease, item["Name"])] if answer.ok else []
    await exchange.answer({"NetworksDeleted": gone})
