"""Handlers of networks: objects of the front, made at a lease when a container of the deployment needs them."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import msgspec

from dockage.domain.errors import DockageError
from dockage.protocol.docker import front_create as create_body
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_replies as replies
from dockage.protocol.docker import network_create
from dockage.protocol.docker.front_errors import ApiError, ended
from dockage.protocol.docker.front_state import Network

from .call import Call
from .engines import QUICK
from .parts import Parts

NETWORKS_MAX = 1000


async def create(call: Call, parts: Parts) -> None:
    body = await call.json_body()
    name = str(body.get("Name") or "")
    if name in filters.BUILTIN:
        raise ApiError(403, f"operation is not permitted on predefined {name} network ")
    wish = network_create.parse({**body, "Driver": _driver(body)})
    if parts.books.network_ids().get(wish.name):
        raise ApiError(409, f"network with name {wish.name} already exists")
    if len(parts.books.shelf.networks) >= NETWORKS_MAX:
        raise ApiError(400, f"at most {NETWORKS_MAX} networks are kept; remove some first")
    network = Network(secrets.token_hex(32), wish.name, msgspec.json.encode(body), parts.watch.now_text())
    parts.books.keep(network)
    parts.watch.announce("network", "create", network.id, {"name": network.name, "type": "bridge"})
    await call.answer({"Id": network.id, "Warning": ""}, 201)


def _driver(body: dict[str, Any]) -> str:
    return "bridge" if body.get("Driver") in (None, "", "default", "bridge") else str(body["Driver"])


async def list_all(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    dangling = wanted.pop("dangling", ())
    docs = [replies.network(one) for one in parts.books.shelf.networks.values()]
    if dangling:
        used = _used(parts)
        docs = [doc for doc in docs if (doc["Name"] in used) != (dangling[0] in ("1", "true"))]
    else:
        docs += replies.predefined("1970-01-01T00:00:00Z")
    await call.answer(filters.select(docs, wanted, filters.NETWORK))


def _used(parts: Parts) -> set[str]:
    """The names of networks that a container asked for."""
    bodies = [msgspec.json.decode(one.body) for one in parts.books.shelf.containers.values()]
    return {name for body in bodies for name in create_body.networks(body)}


async def inspect(call: Call, parts: Parts) -> None:
    ref = call.names["id"]
    if found := parts.books.find_network(ref):
        await call.answer(await _shown(parts, found))
        return
    for doc in replies.predefined("1970-01-01T00:00:00Z"):
        if doc["Name"] == ref or (len(ref) >= 4 and doc["Id"].startswith(ref)):
            await call.answer(doc)
            return
    parts.books.network(ref)


async def _shown(parts: Parts, network: Network) -> dict[str, Any]:
    """With its addresses and members as the lease's engine has them, if it answers at once."""
    doc = replies.network(network)
    if not network.lease:
        return doc
    try:
        there = await parts.engines.ask(network.lease, "GET", f"/networks/{network.remote}", limit=QUICK)
    except DockageError:
        return doc
    members, found = {}, there.get("Containers")
    for remote, member in found.items() if isinstance(found, dict) else ():
        container = parts.books.by_remote(network.lease, remote)
        if container and isinstance(member, dict):
            members[container.id] = {**member, "Name": container.name}
    return {**doc, "Containers": members, "IPAM": there.get("IPAM") or doc["IPAM"]}


async def remove(call: Call, parts: Parts) -> None:
    if call.names["id"] in filters.BUILTIN:
        raise ApiError(403, f"{call.names['id']} is a pre-defined network and cannot be removed")
    await _remove(parts, parts.books.network(call.names["id"]))
    await call.done()


async def _remove(parts: Parts, network: Network) -> None:
    """Raises ApiError(403) while a container is on it."""
    if network.lease:
        try:
            await parts.engines.call(network.lease, "DELETE", f"/networks/{network.remote}")
        except DockageError as error:
            gone = isinstance(error, ApiError) and error.status == 404
            if not gone and not await parts.watch.check_end(network.lease):
                raise
    parts.books.forget(network)
    parts.watch.announce("network", "destroy", network.id, {"name": network.name, "type": "bridge"})


async def connect(call: Call, parts: Parts) -> None:
    await _join(call, parts, "connect")


async def disconnect(call: Call, parts: Parts) -> None:
    await _join(call, parts, "disconnect")


async def _join(call: Call, parts: Parts, action: str) -> None:
    body = await call.json_body()
    network = parts.books.network(call.names["id"])
    container = parts.books.container(str(body.get("Container") or ""))
    if container.ended:
        raise ended(container.name, container.ended)
    if action == "connect":
        network = await parts.tenancy.network_at(network, container.deployment, container.lease)
    elif network.lease != container.lease:
        raise ApiError(403, f"container {container.name} is not connected to network {network.name}")
    path = f"/networks/{network.remote}/{action}"
    await parts.engines.call(container.lease, "POST", path, body={**body, "Container": container.remote})
    edited = _with_network if action == "connect" else _without_network
    changed = msgspec.json.encode(edited(msgspec.json.decode(container.body), network.name, body))
    parts.books.change(container.id, lambda one: replace(one, body=changed))
    attributes = {"container": container.id, "name": network.name, "type": "bridge"}
    parts.watch.announce("network", action, network.id, attributes)
    await call.done(200)


def _with_network(asked: dict[str, Any], name: str, body: dict[str, Any]) -> dict[str, Any]:
    """The create body as it would be now: a container that is placed again joins the same networks."""
    networking = create_body.section(asked, "NetworkingConfig")
    ends = {
        **create_body.section(networking, "EndpointsConfig"),
        name: create_body.section(body, "EndpointConfig"),
    }
    return {**asked, "NetworkingConfig": {**networking, "EndpointsConfig": ends}}


def _without_network(asked: dict[str, Any], name: str, _: dict[str, Any]) -> dict[str, Any]:
    networking = create_body.section(asked, "NetworkingConfig")
    ends = {
        one: end for one, end in create_body.section(networking, "EndpointsConfig").items() if one != name
    }
    return {**asked, "NetworkingConfig": {**networking, "EndpointsConfig": ends}}


async def prune(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    wanted.pop("until", None)
    used, deleted = _used(parts), []
    docs = [replies.network(one) for one in parts.books.shelf.networks.values()]
    for doc in filters.select(docs, wanted, filters.NETWORK):
        network = parts.books.shelf.networks.get(doc["Id"])
        if network is not None and network.name not in used:
            await _remove(parts, network)
            deleted.append(network.name)
    parts.watch.pruned("network")
    await call.answer({"NetworksDeleted": deleted or None})
