"""Handlers of containers and execs: create and list are the front's, the rest goes to the lease that holds them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec

from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.units import SECOND
from dockage.protocol.docker import front_create as create_body
from dockage.protocol.docker import front_filters as filters
from dockage.protocol.docker import front_views as views
from dockage.protocol.docker.front_errors import ApiError, ended, name_taken
from dockage.protocol.docker.front_state import Container
from dockage.protocol.docker.refusals import update_refusals
from dockage.wire.http import Response
from dockage.wire.relay import attended, pass_on, stream

from . import listing, relay
from .call import JSON, Call
from .engines import SLOW, id_of, message_of, target
from .parts import Parts

KILLED = 137
"""128 and SIGKILL: what becomes of a container whose lease ends."""
PAUSE = 0.5
"""Seconds between two looks at a lease that may have ended."""
DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?")


async def create(call: Call, parts: Parts) -> None:
    body = await call.json_body()

    async def place() -> None:
        container, warnings = await parts.placing.create(call.query.get("name", ""), body)
        if until := parts.changes.sleeps(container):
            warnings = [*warnings, f"{container.name} sleeps until {until} (dockage.schedule)"]
        await call.answer({"Id": container.id, "Warnings": warnings}, 201)

    await attended(call.server, place())


async def list_all(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    await call.answer(await listing.chosen(parts, call.query, wanted, call.flag("all")))


async def inspect(call: Call, parts: Parts) -> None:
    container = parts.books.container(call.names["id"])
    await call.answer(await shown(parts, container, call.flag("size")))


async def shown(parts: Parts, container: Container, size: bool = False) -> dict[str, Any]:
    """Its inspect, now or as it was last seen. Raises ApiError(404)."""
    if container.ended:
        return listing.last_inspect(parts, container, "")
    try:
        doc = await parts.watch.look(container, size=size)
    except ApiError:
        raise
    except DockageError as error:
        await parts.watch.check_end(container.lease)
        newest = parts.books.shelf.containers.get(container.id, container)
        return listing.last_inspect(parts, newest, error.message)
    newest = parts.books.shelf.containers.get(container.id, container)
    return views.inspect(doc, newest, parts.watch.around(newest))


# -- start and stop ------------------------------------------------------------------------------------
async def start(call: Call, parts: Parts) -> None:
    container = parts.books.container(call.names["id"])
    await call.raw_body()  # some clients send "{}"

    async def begin() -> None:
        if not container.ended and parts.changes.delays(container):
            parts.books.change(container.id, lambda one: replace(one, asleep=True))
            await parts.changes.started(container)
            return await call.done()
        placed = await parts.placing.revive(container) if container.ended else container
        status = await _with_ports(parts, placed, f"/containers/{placed.remote}/start", _start_query(call))
        await parts.changes.started(placed)
        await call.done(status)

    await attended(call.server, begin())


def _start_query(call: Call) -> dict[str, str]:
    return {name: value for name, value in call.query.items() if name == "detachKeys"}


async def restart(call: Call, parts: Parts) -> None:
    """One whose lease has ended is placed again, as by ``start``."""
    container = parts.books.container(call.names["id"])
    if container.ended:
        return await start(call, parts)
    status = await _with_ports(parts, container, f"/containers/{container.remote}/restart", call.query)
    await call.done(status)


async def wait(call: Call, parts: Parts) -> None:
    """For one whose lease has ended there is nothing to wait for: it tells how it ended, and why. Nor does a lease that
    ends meanwhile, or a connection that breaks, end the wait with less."""
    container = parts.books.container(call.names["id"])
    await call.raw_body()
    if container.ended:
        return await call.answer(_how_it_ended(parts, container, container.ended))
    path = target(f"/containers/{container.remote}/wait", call.query)
    try:
        async with parts.engines.asked(container.lease, "POST", path) as response:
            if response.status >= 400:
                return await pass_on(call.server, response, JSON)
            await stream(call.server, 200, JSON, _waited(parts, container, path, response))
    except Unavailable:
        if call.server.answering:
            raise
        await stream(call.server, 200, JSON, _waited(parts, container, path, None))


async def _waited(
    parts: Parts, container: Container, path: str, response: Response | None
) -> AsyncIterator[bytes]:
    try:
        answer = await response.read_body() if response else None
    except Unavailable:
        answer = None
    yield answer if answer is not None else await _waited_again(parts, container, path)


async def _waited_again(parts: Parts, container: Container, path: str) -> bytes:
    """Until the container or its lease has ended: a provider that is silent loses the lease."""
    while not (reason := await parts.watch.check_end(container.lease)):
        await asyncio.sleep(PAUSE)
        try:
            async with parts.engines.asked(container.lease, "POST", path) as response:
                if response.status < 400:
                    return await response.read_body()
                reason = message_of(await response.read_body())  # it was removed meanwhile
                break
        except Unavailable:
            continue
    return msgspec.json.encode(_how_it_ended(parts, container, reason)) + b"\n"


def _how_it_ended(parts: Parts, container: Container, reason: str) -> dict[str, Any]:
    newest = parts.books.shelf.containers.get(container.id, container)
    code = views.exit_code(listing.last_inspect(parts, newest, "")) if newest.ended else KILLED
    return {"StatusCode": code, "Error": {"Message": reason}}


async def _with_ports(parts: Parts, container: Container, path: str, query: dict[str, str]) -> int:
    """Ports first: if one is busy, nothing was started."""
    was_open = parts.published.is_open(container.id)
    bound = await parts.published.open(container)
    try:
        status, _ = await _call(parts, container, "POST", path, query)
    except BaseException:
        if not was_open:
            parts.published.close(container.id)
        raise
    parts.books.change(container.id, lambda one: replace(_begun(one, container), bound=bound))
    return status


def _begun(newest: Container, before: Container) -> Container:
    """It runs, as far as nothing else was heard of it meanwhile: its event comes later, and whoever is told meanwhile
    what is to run (a deputy, a standby) would not start it."""
    if newest.seen != before.seen or newest.seen == b"{}":
        return newest
    doc = views.in_state(msgspec.json.decode(newest.seen), "running")
    return replace(newest, seen=msgspec.json.encode(doc))


async def stop(call: Call, parts: Parts) -> None:
    container = _alive(parts, call.names["id"])
    path = f"/containers/{container.remote}/stop"
    status, _ = await _call(parts, container, "POST", path, call.query)
    parts.published.close(container.id)
    if container.asleep:
        parts.books.change(container.id, lambda one: replace(one, asleep=False))
    await call.done(status)


async def _look_again(parts: Parts, container: Container) -> None:
    """So that its state is known if its lease ends now. It may be gone already (``--rm``)."""
    try:
        await parts.watch.look(container)
    except DockageError:
        pass


async def _call(
    parts: Parts, container: Container, method: str, path: str, query: dict[str, str], body: object = None
) -> tuple[int, Any]:
    patience = query.get("t") or "0"
    if not patience.removeprefix("-").isdecimal():
        raise ApiError(400, f"invalid t: {patience[:40]!r}")
    limit = min(SLOW + max(0, int(patience[:9])), 5 * SLOW)
    try:
        return await parts.engines.call(container.lease, method, path, query=query, body=body, limit=limit)
    except Unavailable:
        if reason := await parts.watch.check_end(container.lease):
            raise ended(container.name, reason) from None
        raise


def _alive(parts: Parts, ref: str) -> Container:
    container = parts.books.container(ref)
    if container.ended:
        raise ended(container.name, container.ended)
    return container


# -- passed on -----------------------------------------------------------------------------------------
async def forward(call: Call, parts: Parts) -> None:
    """Any other action on one container, its answer as it comes."""
    container = _alive(parts, call.names["id"])
    path = f"/containers/{container.remote}/{call.names['action']}"
    if call.request.method == "PUT":
        await _relay(call, parts, container, path, call.server.body())
        return
    body = await call.raw_body()
    await _relay(call, parts, container, path, body or None)


async def stats(call: Call, parts: Parts) -> None:
    container = _alive(parts, call.names["id"])
    path = f"/containers/{container.remote}/stats"

    def named(line: Any) -> Any:
        return views.stat(line, parts.books.shelf.containers.get(container.id, container))

    await relay.relay(call, parts.engines, container.lease, path, rewrite=named)


async def _relay(
    call: Call, parts: Parts, container: Container, path: str, body: bytes | AsyncIterator[bytes] | None
) -> None:
    try:
        status = await relay.relay(call, parts.engines, container.lease, path, body=body)
    except Unavailable:
        if not call.server.answering and (reason := await parts.watch.check_end(container.lease)):
            raise ended(container.name, reason) from None
        raise
    if status == 404:
        await _look_again(parts, container)


async def rename(call: Call, parts: Parts) -> None:
    container = _alive(parts, call.names["id"])
    if not call.query.get("name"):
        raise ApiError(400, "Neither old nor new names may be empty")
    name = create_body.check_name(call.query["name"])
    if name == container.name:
        raise ApiError(400, "Renaming a container with the same name as its current name")
    holder = next((one for one in parts.books.shelf.containers.values() if one.name == name), None)
    if holder is not None:
        raise name_taken(name, holder.id)
    await _call(parts, container, "POST", f"/containers/{container.remote}/rename", {"name": name})
    parts.books.change(container.id, lambda one: replace(one, name=name))
    await call.done()


async def update(call: Call, parts: Parts) -> None:
    """Whoever wants more gets a larger lease first; what was changed is remembered for the next placement."""
    container = _alive(parts, call.names["id"])
    change = await call.json_body()
    if found := update_refusals(change):
        raise ApiError(400, "; ".join(str(one) for one in found))
    body = create_body.updated(views.body_of(container), change)
    need = create_body.need(body)
    await parts.placing.grow(container, need)
    _, answer = await _call(parts, container, "POST", f"/containers/{container.remote}/update", {}, change)
    parts.books.change(container.id, lambda one: replace(one, need=need, body=msgspec.json.encode(body)))
    await call.answer(answer)


async def remove(call: Call, parts: Parts) -> None:
    container = parts.books.container(call.names["id"])
    if not container.ended:
        await _remove(parts, container, call.query)
    parts.watch.forget(container)
    await parts.changes.removed(container)
    await call.done()


async def _remove(parts: Parts, container: Container, query: dict[str, str]) -> None:
    try:
        await _call(parts, container, "DELETE", f"/containers/{container.remote}", query)
    except ApiError as error:
        newest = parts.books.shelf.containers.get(container.id)
        if error.status != 404 and not (newest is not None and newest.ended):
            raise


async def prune(call: Call, parts: Parts) -> None:
    wanted = filters.parse(call.query.get("filters", ""))
    moment = _until(wanted.pop("until", ()), parts.clock.now() // SECOND)
    deleted = []
    for item in await listing.chosen(parts, {}, wanted, every=True):
        over = item["State"] in ("exited", "created", "dead") and (not moment or item["Created"] < moment)
        container = parts.books.shelf.containers.get(item["Id"])
        if over and container is not None:
            if not container.ended:
                await _remove(parts, container, {})
            parts.watch.forget(container)
            deleted.append(container.id)
    parts.watch.pruned("container")
    await call.answer({"ContainersDeleted": deleted or None, "SpaceReclaimed": 0})


def _until(values: tuple[str, ...], now: int) -> int:
    """Seconds since the epoch; 0 = no limit. Unix timestamps and durations such as ``24h`` are known."""
    if not values:
        return 0
    head = values[0].partition(".")[0]
    if head.isascii() and head.isdigit():
        return int(head[:12])
    found = DURATION.fullmatch(values[0])
    if found is None or not any(found.groups()):
        raise ApiError(400, f"invalid until: {values[0][:40]!r}")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return now - hours * 3600 - minutes * 60 - seconds


# -- exec ----------------------------------------------------------------------------------------------
async def exec_create(call: Call, parts: Parts) -> None:
    container = _alive(parts, call.names["id"])
    body = await call.json_body()
    body.pop("Container", None)  # docker-py says it twice, and with our id
    path = f"/containers/{container.remote}/exec"
    _, made = await _call(parts, container, "POST", path, {}, body)
    exec_id = id_of(made if isinstance(made, dict) else {})
    parts.remember_exec(exec_id, container.id)
    await call.answer({"Id": exec_id}, 201)


async def exec_forward(call: Call, parts: Parts) -> None:
    container = _of_exec(call, parts)
    path = f"/exec/{call.names['id']}/{call.names['action']}"
    body = await call.raw_body()
    await relay.relay(call, parts.engines, container.lease, path, body=body or None)


async def exec_inspect(call: Call, parts: Parts) -> None:
    container = _of_exec(call, parts)
    doc = await parts.engines.ask(container.lease, "GET", f"/exec/{call.names['id']}/json")
    await call.answer({**doc, "ContainerID": container.id})


def _of_exec(call: Call, parts: Parts) -> Container:
    ref = call.names["id"]
    if ref not in parts.execs:
        raise ApiError(404, f"No such exec instance: {ref}")
    return _alive(parts, parts.execs[ref])
