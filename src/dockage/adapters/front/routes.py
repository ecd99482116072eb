"""Which handler answers which request. What is not here is 404, as in the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_replies import API_VERSION, MIN_API_VERSION, parse_version
from dockage.wire.http import HttpServer, Request

from . import commit, containers, networks, system, volumes
from .call import Call
from .local import VERSIONED
from .parts import Parts

Handler = Callable[[Call, Parts], Awaitable[None]]


class Route(NamedTuple):
    method: str
    path: str
    """``{id}`` and ``{action}`` stand for one segment each."""
    handler: Handler


_BOTH = ("GET", "HEAD")
ROUTES: tuple[Route, ...] = (
    *(Route(method, "/_ping", system.ping) for method in _BOTH),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/events", system.events),
    Route("GET", "/system/df", system.disk_use),
    Route("GET", "/plugins", system.no_plugins),
    Route("POST", "/commit", commit.commit),
    # containers
    Route("GET", "/containers/json", containers.list_all),
    Route("POST", "/containers/create", containers.create),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{id}/json", containers.inspect),
    Route("POST", "/containers/{id}/start", containers.start),
    Route("POST", "/containers/{id}/stop", containers.stop),
    Route("POST", "/containers/{id}/restart", containers.restart),
    Route("POST", "/containers/{id}/wait", containers.wait),
    Route("POST", "/containers/{id}/rename", containers.rename),
    Route("POST", "/containers/{id}/exec", containers.exec_create),
    Route("GET", "/containers/{id}/stats", containers.stats),
    Route("POST", "/containers/{id}/update", containers.update),
    Route("DELETE", "/containers/{id}", containers.remove),
    *(
        Route(method, "/containers/{id}/{action}", containers.forward)
        for method in ("HEAD", "PUT", "POST", "GET")
    ),
    Route("GET", "/exec/{id}/json", containers.exec_inspect),
    Route("POST", "/exec/{id}/{action}", containers.exec_forward),
    # networks
    Route("GET", "/networks", networks.list_all),
    Route("POST", "/networks/create", networks.create),
    Route("POST", "/networks/prune", networks.prune),
    Route("GET", "/networks/{id}", networks.inspect),
    Route("DELETE", "/networks/{id}", networks.remove),
    Route("POST", "/networks/{id}/connect", networks.connect),
    Route("POST", "/networks/{id}/disconnect", networks.disconnect),
    # volumes
    Route("GET", "/volumes", volumes.list_all),
    Route("POST", "/volumes/create", volumes.create),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("GET", "/volumes/{id}", volumes.inspect),
    Route("DELETE", "/volumes/{id}", volumes.remove),
)
LOCAL = ("images", "build", "grpc", "session", "auth", "distribution")
"""First segments of what is relayed to the local engine whole."""
FLAGS = frozenset(
    "all copyUIDGID details follow force link logs noOverwriteDirNonDir one-shot size stderr stdin stdout stream "
    "timestamps v".split()
)
BUILDER = "buildx_buildkit_"
"""How the containers are called in which buildx (driver docker-container) builds."""
SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")


def find(server: HttpServer, request: Request) -> tuple[Handler, Call]:
    """Raises ApiError(400) for a version or a path that cannot be served, 404 for an unknown one."""
    path, _, query = request.target.partition("?")
    path = _without_version(path)
    call = Call(server, request, path, _query(query))
    segments = [unquote(part) for part in path.strip("/").split("/")]
    if segments[0] in LOCAL:
        return system.to_local, call
    if segments[0] in SWARM:
        return system.no_swarm, call
    if segments[0] == "containers" and _container(segments, call).startswith(BUILDER):
        return system.no_builder, call
    for route in _BY_SHAPE.get((request.method, len(segments)), ()):
        if (names := _names(route, segments)) is not None:
            call.names = names
            return route.handler, call
    raise ApiError(404, "page not found")


def _container(segments: list[str], call: Call) -> str:
    """The one that is meant, by whatever name; ``""`` where none is."""
    named = segments[1] if len(segments) > 1 else ""
    return call.query.get("name", "").removeprefix("/") if named == "create" else named


def _query(text: str) -> dict[str, str]:
    try:
        pairs = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=64))
    except ValueError as error:
        raise ApiError(400, f"the query cannot be read: {error}") from error
    return {name: _plain_flag(value) if name in FLAGS else value for name, value in pairs.items()}


def _plain_flag(value: str) -> str:
    """docker-py says True and False; the engine reads anything but these words as true."""
    return "0" if value.strip().lower() in ("", "0", "no", "false", "none") else "1"


def _without_version(path: str) -> str:
    found = VERSIONED.fullmatch(path)
    if found is None:
        return path
    asked, newest, oldest = (parse_version(text) for text in (found[1], API_VERSION, MIN_API_VERSION))
    if asked > newest:
        raise ApiError(
            400,
            f"client version {found[1]} is too new. Maximum supported API version is {API_VERSION}",
        )
    if asked < oldest:
        raise ApiError(
            400,
            f"client version {found[1]} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version",
        )
    return found[2]


def _names(route: Route, segments: list[str]) -> dict[str, str] | None:
    names = {}
    for pattern, segment in zip(route.path.strip("/").split("/"), segments, strict=True):
        if pattern.startswith("{"):
            names[pattern[1:-1]] = segment
        elif pattern != segment:
            return None
    return names


def _by_shape() -> dict[tuple[str, int], list[Route]]:
    """Literal routes before patterns, so that ``/containers/json`` is never a container called json."""
    shapes: dict[tuple[str, int], list[Route]] = {}
    for route in sorted(ROUTES, key=lambda route: route.path.count("{")):
        shapes.setdefault((route.method, len(route.path.strip("/").split("/"))), []).append(route)
    return shapes


_BY_SHAPE = _by_shape()
