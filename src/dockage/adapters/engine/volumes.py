"""Handlers of volumes. Each is an engine volume that binds a folder of the lease's own file system: so the quota
is the room's, while labels, first-use copying and "in use" stay the engine's.

The folder is below the mount point, not the mount point itself: after a reboot, before the room has mounted it
again, it does not exist, and a container that restarts too early fails instead of filling the provider's disk.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dockage.domain.errors import UsageError
from dockage.domain.units import GIB, MIB
from dockage.ports.hosting import LEASE_LABEL
from dockage.protocol.docker import filters, names, views
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.volume_create import parse

from . import lookup
from .exchange import Exchange

VOLUMES_MAX = 64
SHARE = 4
"""A volume without a size may hold a quarter of the lease's disk (but at most 1 GiB, and at least 8 MiB)."""
LIST_FILTERS = frozenset({"label", "name", "dangling", "driver"})
PRUNE_FILTERS = frozenset({"label", "all"})


def anonymous_name() -> str:
    return names.ANONYMOUS_PREFIX + secrets.token_hex(12)


def check_name(name: str) -> None:
    if name.startswith(names.ANONYMOUS_PREFIX):
        raise Refused(
            400, f"volume names that begin with {names.ANONYMOUS_PREFIX!r} are made by the provider"
        )


async def make(
    exchange: Exchange, name: str, *, anonymous: bool, size: int = 0, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """Under the lease's lock. Raises Refused(409) when the lease's disk is not enough."""
    if len(await lookup.volumes(exchange)) >= VOLUMES_MAX:
        raise Refused(409, f"a lease has at most {VOLUMES_MAX} volumes; remove one first")
    path = await exchange.room.create_volume(exchange.lease, name, size or _default_size(exchange))
    folder = Path(path) / "data"
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    internal = {LEASE_LABEL: exchange.lease.hex()} | ({names.ANONYMOUS_LABEL: "1"} if anonymous else {})
    body = {
        "Name": names.engine_name(exchange.lease, name),
        "Driver": "local",
        "DriverOpts": {"type": "none", "o": "bind", "device": str(folder)},
        "Labels": (labels or {}) | internal,
    }
    made: dict[str, Any] = await exchange.call("POST", "/volumes/create", body=body)
    if (made.get("Labels") or {}).get(LEASE_LABEL) != exchange.lease.hex():
        raise Refused(409, f"the volume name {name!r} is taken")  # of a lease with the same prefix
    return made


def _default_size(exchange: Exchange) -> int:
    limits = exchange.place.limits
    return max(8 * MIB, min(GIB, limits.disk_bytes // SHARE)) if limits else 256 * MIB


async def forget(exchange: Exchange, tenant_names: Iterable[str]) -> list[str]:
    """Remove those that nobody uses; returns their names. Never fails for one that is busy or gone."""
    gone = []
    for name in tenant_names:
        answer = await exchange.engine.call("DELETE", f"/volumes/{names.engine_name(exchange.lease, name)}")
        if answer.ok or answer.status == 404:
            try:
                await exchange.room.remove_volume(exchange.lease, name)
            except UsageError:
                continue
            gone.append(name)
    return gone


async def forget_orphans(exchange: Exchange) -> None:
    """Anonymous volumes whose container went without ``v=1`` being said (``docker run --rm``)."""
    found = await lookup.volumes(exchange, label=[names.ANONYMOUS_LABEL], dangling=["true"])
    await forget(exchange, [names.tenant_name(exchange.lease, item["Name"]) for item in found])


# -- handlers ------------------------------------------------------------------------------------------
async def listing(exchange: Exchange) -> None:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, LIST_FILTERS)
    found = await lookup.volumes(exchange, **{key: values for key, values in wanted.items() if key != "name"})
    shown = [views.volume(exchange.place, item) for item in found]
    named = [item for item in shown if filters.names_match(wanted, item["Name"])]
    await exchange.answer({"Volumes": named, "Warnings": None})


async def disk_use(exchange: Exchange) -> None:
    sizes = await exchange.room.volume_sizes(exchange.lease)
    shown = [views.volume(exchange.place, item) for item in await lookup.volumes(exchange)]
    used = [{**item, "UsageData": {"Size": sizes.get(item["Name"], -1), "RefCount": -1}} for item in shown]
    nothing: dict[str, Any] = {"LayersSize": 0, "Images": [], "Containers": [], "BuildCache": []}
    await exchange.answer(nothing | {"Volumes": used})


async def inspect(exchange: Exchange) -> None:
    found = await lookup.volume(exchange, exchange.match.references["volume"])
    await exchange.answer(views.volume(exchange.place, found))


async def create(exchange: Exchange) -> None:
    wish = parse(await exchange.json_body())
    check_name(wish.name)
    name = wish.name or secrets.token_hex(32)
    async with exchange.state.lock:
        wanted = names.engine_name(exchange.lease, name)
        known = [item for item in await lookup.volumes(exchange) if item["Name"] == wanted]
        made = (
            known[0]
            if known
            else await make(exchange, name, anonymous=not wish.name, size=wish.size, labels=wish.labels)
        )
    await exchange.answer(views.volume(exchange.place, made), 201)


async def remove(exchange: Exchange) -> None:
    name = exchange.match.references["volume"]
    try:
        found = await lookup.volume(exchange, name)
    except Refused:
        if exchange.query.get("force") in ("1", "true"):
            return await exchange.done()
        raise
    async with exchange.state.lock:
        await exchange.call("DELETE", f"/volumes/{found['Name']}")
        await exchange.room.remove_volume(exchange.lease, name)
    await exchange.done()


async def prune(exchange: Exchange) -> None:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, PRUNE_FILTERS)
    everything = wanted.get("all", ["false"])[0] in ("1", "true")
    label = wanted.get("label", []) + ([] if everything else [names.ANONYMOUS_LABEL])
    async with exchange.state.lock:
        found = await lookup.volumes(exchange, label=label, dangling=["true"])
        gone = await forget(exchange, [names.tenant_name(exchange.lease, item["Name"]) for item in found])
    await exchange.answer({"VolumesDeleted": gone, "SpaceReclaimed": 0})
