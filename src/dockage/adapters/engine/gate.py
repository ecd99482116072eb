"""The provider's gate: one HTTP request of a lease's tenant, through the filter, to the engine and back.

Counterpart: the tenant's Docker front. The rule: what reaches the engine was built here from checked parts; a
tenant's path, header or body is never passed on as such (except what containers themselves read and write).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.ports.hosting import LeaseRoom
from dockage.ports.peers import Stream
from dockage.protocol.docker import filters, views
from dockage.protocol.docker.create import Place
from dockage.protocol.docker.names import scrub
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.routes import Action, match
from dockage.wire.engine import EngineClient
from dockage.wire.http import HttpServer, Request, error_response

from . import containers, images, lookup, networks, relay, stats, volumes
from .exchange import Exchange, LeaseState

RUNNING_MAX = 128
"""Requests of one lease at a time: ``compose up`` attaches to each of its containers. An attached stream whose
client went away silently counts until the container's next output, as in Docker itself."""
IDLE = 60.0
"""Seconds for a request's head to arrive."""
HELD_METHODS = frozenset({"GET", "HEAD", "DELETE"})
EVENT_FILTERS = frozenset({"type", "event", "container", "image", "label"})

Handler = Callable[[Exchange], Awaitable[None]]


class EngineGate:
    """Serves the leases of one engine. Made anywhere, used in one event loop, closed there."""

    def __init__(self, engine_socket: Path, room: LeaseRoom) -> None:
        self._room = room
        self._engine = EngineClient(engine_socket)
        self._states: dict[LeaseId, LeaseState] = {}

    async def close(self) -> None:
        await self._engine.close()

    def forget(self, lease: LeaseId) -> None:
        """The lease ended: drop what is remembered of it, and cut who is served: an attachment to a container that
        never ran would wait for ever."""
        if state := self._states.pop(lease, None):
            for stream in state.streams:
                stream.reschedule(0)

    def hold(self, lease: LeaseId, why: str) -> None:
        """Until ``release`` the tenant can look and remove, but start, thaw or change nothing: a pause for want of
        payment must not be lifted by the one who does not pay. Kept in memory only: repeat it after a restart."""
        self._state(lease).held = why

    def release(self, lease: LeaseId) -> None:
        self._state(lease).held = ""

    def _state(self, lease: LeaseId) -> LeaseState:
        return self._states.setdefault(lease, LeaseState())

    async def serve(self, lease: LeaseId, limits: Resources | None, stream: Stream) -> None:
        """Requests one after the other until the peer closes, one is hijacked, or one breaks the protocol.

        Every refusal is an HTTP answer on *stream*. Owns and closes it; never raises for what a peer or the
        engine does."""
        room = self._room
        place = Place(lease, room.cgroup_parent(lease), room.network(lease), limits, room.guard(lease))
        server, state = HttpServer(stream), self._state(lease)
        limit = asyncio.timeout(None)  # until ``forget``
        state.streams.add(limit)
        try:
            async with limit:
                while request := await self._next(server):
                    await self._guarded(server, request, place)
                await stream.finish()
        except (PeerError, Unavailable, TimeoutError):
            pass  # the answer, if one could be given, was given
        finally:
            state.streams.discard(limit)
            stream.abort()

    async def _next(self, server: HttpServer) -> Request | None:
        try:
            async with asyncio.timeout(IDLE):
                return await server.read_request()
        except PeerError as error:
            await error_response(server, 400, error.message)
            return None

    async def _guarded(self, server: HttpServer, request: Request, place: Place) -> None:
        """An error before the answer's head is an answer; after it, only the end of the connection can tell."""
        try:
            await self._counted(server, request, place)
        except Refused as refused:
            await _tell(server, refused.status, refused)
        except UsageError as error:
            await _tell(server, 409, UsageError(error.code, scrub(place.lease, error.message)))
        except TimeoutError as error:
            await _tell(server, 504, Unavailable("engine.slow", f"the engine does not answer: {error}"))
        except Unavailable as error:
            await _tell(
                server, 503, Unavailable(error.code, "the provider's engine does not answer; try again")
            )

    async def _counted(self, server: HttpServer, request: Request, place: Place) -> None:
        state = self._state(place.lease)
        if state.held and request.method not in HELD_METHODS:
            raise Refused(402, state.held)
        if state.running >= RUNNING_MAX:
            raise Refused(
                429, f"more than {RUNNING_MAX} requests of this lease at a time; wait for one to end"
            )
        state.running += 1
        try:
            found = match(request.method, request.target)
            exchange = Exchange(server, request, found, place, self._room, self._engine, state)
            await HANDLERS[found.route.action](exchange)
        finally:
            state.running -= 1


async def _tell(server: HttpServer, status: int, error: PeerError | UsageError | Unavailable) -> None:
    if server.answering:
        raise error
    await error_response(server, status, error.message)


# -- the actions that need no knowledge of the endpoint ------------------------------------------------
async def _path(exchange: Exchange) -> str:
    """The route's path with the lease's own ids in it."""
    path, found = exchange.match.route.path, exchange.match.references
    if "container" in found:
        path = path.replace("{container}", await lookup.container(exchange, found["container"]))
    if "exec" in found:
        path = path.replace("{exec}", await lookup.execution(exchange, found["exec"]))
    return path


async def _relay(exchange: Exchange) -> None:
    path = await _path(exchange)
    async with exchange.engine.connected() as client:
        await relay.pass_on(exchange, await relay.ask(exchange, client, path))


async def _upload(exchange: Exchange) -> None:
    await relay.upload(exchange, await _path(exchange))


async def _hijack(exchange: Exchange) -> None:
    await relay.hijack(exchange, await _path(exchange), exchange.query, None)


async def _lines(exchange: Exchange) -> None:
    path, place = await _path(exchange), exchange.place
    async with exchange.engine.connected() as client:
        response = await relay.ask(exchange, client, path, query=await _event_query(exchange))
        await relay.pass_on(exchange, response, lambda line: views.event(place, line))


async def _event_query(exchange: Exchange) -> dict[str, str]:
    wanted = filters.parse(exchange.query.get("filters", ""))
    filters.only(wanted, EVENT_FILTERS)
    if "container" in wanted:
        found = [await _id_or_none(exchange, reference) for reference in wanted["container"]]
        wanted["container"] = found
    return exchange.query | {"filters": filters.encode(filters.of_lease(exchange.lease, wanted))}


async def _id_or_none(exchange: Exchange, reference: str) -> str:
    try:
        return await lookup.container(exchange, reference)
    except Refused:
        return "0" * 64  # as in Docker, events of what does not exist are none


async def _ping(exchange: Exchange) -> None:
    version = (await exchange.engine.prefix()).removeprefix("/v")
    headers = [("api-version", version), ("ostype", "linux"), ("content-type", "text/plain")]
    await exchange.server.answer(200, headers, b"OK" if exchange.request.method == "GET" else b"")


HANDLERS: dict[Action, Handler] = {
    Action.RELAY: _relay,
    Action.UPLOAD: _upload,
    Action.LINES: _lines,
    Action.HIJACK: _hijack,
    Action.PING: _ping,
    Action.CONTAINER_LIST: containers.listing,
    Action.CONTAINER_CREATE: containers.create,
    Action.CONTAINER_INSPECT: containers.inspect,
    Action.CONTAINER_STATS: stats.stats,
    Action.CONTAINER_RENAME: containers.rename,
    Action.CONTAINER_UPDATE: containers.update,
    Action.CONTAINER_REMOVE: containers.remove,
    Action.CONTAINER_PRUNE: containers.prune,
    Action.EXEC_CREATE: containers.exec_create,
    Action.EXEC_START: containers.exec_start,
    Action.EXEC_INSPECT: containers.exec_inspect,
    Action.IMAGE_LIST: images.listing,
    Action.IMAGE_INSPECT: images.inspect,
    Action.IMAGE_REMOVE: images.remove,
    Action.NETWORK_LIST: networks.listing,
    Action.NETWORK_CREATE: networks.create,
    Action.NETWORK_INSPECT: networks.inspect,
    Action.NETWORK_REMOVE: networks.remove,
    Action.NETWORK_CONNECT: networks.connect,
    Action.NETWORK_DISCONNECT: networks.disconnect,
    Action.NETWORK_PRUNE: networks.prune,
    Action.VOLUME_LIST: volumes.listing,
    Action.DISK_USE: volumes.disk_use,
    Action.VOLUME_CREATE: volumes.create,
    Action.VOLUME_INSPECT: volumes.inspect,
    Action.VOLUME_REMOVE: volumes.remove,
    Action.VOLUME_PRUNE: volumes.prune,
}
