"""Handlers of what is about the front itself: ping, version, info, disk use, events."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec

import dockage
from dockage.domain.errors import DockageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import SECOND
from dockage.ports.machine import Clock
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_replies as replies
from dockage.protocol.docker import front_views as views
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.registry import ARCHITECTURES
from dockage.wire.relay import stream

from . import images, listing, volumes
from .call import HEADERS, JSON, Call
from .engines import QUICK
from .hub import Event
from .parts import Parts

NO_SWARM = (
    "This node is not a swarm manager: dockage has no swarm. Containers run on leases in the market "
    "(docker run, docker compose up)"
)
NO_BUILDER = (
    "a builder of buildx's own wants privileges that no provider gives: build with your local engine's "
    "('docker buildx use default')"
)
OWN_VERSION = dockage.__version__
UNCACHED = (("cache-control", "no-cache, no-store, must-revalidate"), ("pragma", "no-cache"))


async def ping(call: Call, parts: Parts) -> None:
    local = await parts.local.ping()
    builder = [("builder-version", local["builder-version"])] if "builder-version" in local else []
    plain = [*HEADERS, *builder, ("content-type", "text/plain; charset=utf-8"), *UNCACHED]
    await call.server.answer(200, plain, b"" if call.request.method == "HEAD" else b"OK")


async def version(call: Call, parts: Parts) -> None:
    machine = ARCHITECTURES.get(platform.machine(), platform.machine())
    await call.answer(replies.version(OWN_VERSION, machine, platform.release()))


async def info(call: Call, parts: Parts) -> None:
    local = await parts.local.json("/info")
    states = [views.state_of(msgspec.json.decode(one.seen)) for one in parts.books.shelf.containers.values()]
    counts = {
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
    }
    await call.answer(replies.info(OWN_VERSION, _machine(parts), local, counts, parts.watch.now_text()))


def _machine(parts: Parts) -> dict[str, Any]:
    """What is rented, not what is under the desk."""
    infos = [info for lease in parts.books.shelf.rented if (info := parts.engines.info(lease))]
    return {
        "NCPU": -(-sum(info.limits.cpu_milli for info in infos) // 1000) or os.cpu_count() or 1,
        "MemTotal": sum(info.limits.memory_bytes for info in infos),
        "Architecture": platform.machine(),
        "KernelVersion": platform.release(),
    }


async def disk_use(call: Call, parts: Parts) -> None:
    local = await parts.local.json("/system/df")
    own = images.listing(parts.local.store, {}) if parts.local.store else []
    sizes, users = await _volume_sizes(parts), volumes.users(parts)
    await call.answer(
        {
            "LayersSize": local.get("LayersSize") or sum(one["Size"] for one in own),
            "Images": local.get("Images") or own,
            "Containers": await listing.items(parts, size=True),
            "Volumes": [
                {**replies.volume(one), "UsageData": {"Size": size, "RefCount": len(users.get(one.name, ()))}}
                for one in parts.books.shelf.volumes.values()
                for size in [sizes.get(one.name, -1 if one.lease else 0)]
            ],
            "BuildCache": local.get("BuildCache"),
            "BuilderSize": 0,
        }
    )


async def _volume_sizes(parts: Parts) -> dict[str, int]:
    """Bytes by name. A volume whose provider does not answer is left out; it is shown as unknown."""
    leases = {one.lease for one in parts.books.shelf.volumes.values() if one.lease}
    found = await asyncio.gather(*(_sizes_at(parts, lease) for lease in leases))
    return {name: size for some in found for name, size in some.items()}


async def _sizes_at(parts: Parts, lease: LeaseId) -> dict[str, int]:
    try:
        answer = await parts.engines.ask(lease, "GET", "/system/df", limit=QUICK)
        return {str(one["Name"]): int(one["UsageData"]["Size"]) for one in answer["Volumes"]}
    except (DockageError, LookupError, TypeError, ValueError):
        return {}


async def no_plugins(call: Call, parts: Parts) -> None:
    await call.answer([])


async def no_swarm(call: Call, parts: Parts) -> None:
    await call.refuse(503, NO_SWARM)


async def no_builder(call: Call, parts: Parts) -> None:
    """buildx makes a builder of its own where ``/grpc`` does not answer, or if told to. Its first question is after
    that container: a no here comes before it has pulled anything."""
    await parts.local.check()
    raise ApiError(501, NO_BUILDER)


async def to_local(call: Call, parts: Parts) -> None:
    if parts.local.store is not None:
        await images.serve(call, parts, parts.local.store)
    else:
        await parts.local.relay(call)


# -- events --------------------------------------------------------------------------------------------
async def events(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    since, until = _moment(call.query.get("since", "")), _moment(call.query.get("until", ""))
    with parts.hub.subscribed() as coming:
        past = parts.hub.since(since) if since is not None else []
        pieces = _lines(past, coming, wanted, until, parts.clock)
        await stream(call.server, 200, JSON, pieces)


async def _lines(
    past: list[Event], coming: AsyncIterator[Event], wanted: filters.Filters, until: int | None, clock: Clock
) -> AsyncIterator[bytes]:
    for event in past:
        if filters.event_matches(event, wanted) and (until is None or event["timeNano"] <= until):
            yield msgspec.json.encode(event) + b"\n"
    with suppress(TimeoutError, StopAsyncIteration):
        while True:  # no timeout around a yield: it would strike whoever is writing
            left = None if until is None else max(0.0, (until - clock.now()) / SECOND)
            event = await asyncio.wait_for(anext(coming), left)
            if filters.event_matches(event, wanted):
                yield msgspec.json.encode(event) + b"\n"


def _moment(text: str) -> int | None:
    """``1700000000.000000001`` in nanoseconds. Clients turn dates and durations into this themselves."""
    if not text:
        return None
    whole, _, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(whole) > 12:
        raise ApiError(400, f"invalid timestamp: {text[:40]!r}")
    return int(whole) * SECOND + int((part + "000000000")[:9])
