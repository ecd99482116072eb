"""Every request that a lease answers, one line each. What is not here is refused.

``{container}``, ``{exec}``, ``{image}``, ``{network}`` and ``{volume}`` are looked up among the lease's own objects
(by name, id or unique beginning of an id) and replaced by what was found; a tenant's text never reaches a path of
the engine. Only the query parameters named here are passed on. Spec: docs/spec/07-engine-api.md.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from .refusal import Refused


class Action(Enum):
    """How a request is answered. The first four need no knowledge of the endpoint."""

    RELAY = "the engine's answer, as it comes"
    UPLOAD = "the body goes to the engine as it comes; the answer comes back"
    LINES = "one JSON object a line, each rewritten"
    HIJACK = "after a 101, raw bytes both ways"
    PING = "answered by the gate"
    CONTAINER_LIST = "containers with the lease's label, names and labels rewritten"
    CONTAINER_CREATE = "the body is rebuilt from the allow-list; volumes and networks of the lease only"
    CONTAINER_INSPECT = "without the provider's paths, cgroup and names"
    CONTAINER_STATS = "from the provider's own meter, a line a second"
    CONTAINER_RENAME = "the new name gets the lease's prefix"
    CONTAINER_UPDATE = "resources from the allow-list, within the lease's limits"
    CONTAINER_REMOVE = "and its anonymous volumes with v=1"
    CONTAINER_PRUNE = "stopped containers with the lease's label"
    EXEC_CREATE = "never privileged"
    EXEC_START = "hijacked, unless detached"
    EXEC_INSPECT = "without the provider's process id"
    IMAGE_LIST = "images that this lease was given"
    IMAGE_INSPECT = "without tags and the provider's paths"
    IMAGE_REMOVE = "the lease's tag goes; the layers too when nobody else has them"
    NETWORK_LIST = "networks with the lease's label"
    NETWORK_CREATE = "a bridge that the lease's firewall covers"
    NETWORK_INSPECT = "with the tenant's names"
    NETWORK_REMOVE = "not the default one"
    NETWORK_CONNECT = "one of the lease's containers, which gets its name as an alias"
    NETWORK_DISCONNECT = "one of the lease's containers"
    NETWORK_PRUNE = "the lease's own without containers"
    VOLUME_LIST = "volumes with the lease's label"
    DISK_USE = "the lease's volumes with what each holds; nothing else"
    VOLUME_CREATE = "on a file system of its own size, in the lease's disk"
    VOLUME_INSPECT = "with the tenant's name"
    VOLUME_REMOVE = "and its file system"
    VOLUME_PRUNE = "anonymous ones without containers; named ones too with the filter all=true"


class Route(NamedTuple):
    method: str
    path: str
    action: Action
    query: tuple[str, ...] = ()


A = Action
ROUTES: tuple[Route, ...] = (
    Route("GET", "/_ping", A.PING),
    Route("HEAD", "/_ping", A.PING),
    # containers
    Route("GET", "/containers/json", A.CONTAINER_LIST, ("all", "limit", "size", "filters")),
    Route("POST", "/containers/create", A.CONTAINER_CREATE, ("name", "platform")),
    Route("POST", "/containers/prune", A.CONTAINER_PRUNE, ("filters",)),
    Route("GET", "/containers/{container}/json", A.CONTAINER_INSPECT, ("size",)),
    Route("DELETE", "/containers/{container}", A.CONTAINER_REMOVE, ("v", "force")),
    Route("POST", "/containers/{container}/start", A.RELAY, ("detachKeys",)),
    Route("POST", "/containers/{container}/stop", A.RELAY, ("t", "signal")),
    Route("POST", "/containers/{container}/restart", A.RELAY, ("t", "signal")),
    Route("POST", "/containers/{container}/kill", A.RELAY, ("signal",)),
    Route("POST", "/containers/{container}/pause", A.RELAY),
    Route("POST", "/containers/{container}/unpause", A.RELAY),
    Route("POST", "/containers/{container}/wait", A.RELAY, ("condition",)),
    Route("POST", "/containers/{container}/resize", A.RELAY, ("h", "w")),
    Route("POST", "/containers/{container}/rename", A.CONTAINER_RENAME, ("name",)),
    Route("POST", "/containers/{container}/update", A.CONTAINER_UPDATE),
    Route(
        "POST",
        "/containers/{container}/attach",
        A.HIJACK,
        ("detachKeys", "logs", "stream", "stdin", "stdout", "stderr"),
    ),
    Route(
        "GET",
        "/containers/{container}/logs",
        A.RELAY,
        ("follow", "stdout", "stderr", "since", "until", "timestamps", "tail", "details"),
    ),
    Route("GET", "/containers/{container}/stats", A.CONTAINER_STATS, ("stream", "one-shot")),
    Route("GET", "/containers/{container}/top", A.RELAY, ("ps_args",)),
    Route("GET", "/containers/{container}/changes", A.RELAY),
    Route("GET", "/containers/{container}/export", A.RELAY),
    Route("HEAD", "/containers/{container}/archive", A.RELAY, ("path",)),
    Route("GET", "/containers/{container}/archive", A.RELAY, ("path",)),
    Route("PUT", "/containers/{container}/archive", A.UPLOAD, ("path", "noOverwriteDirNonDir", "copyUIDGID")),
    # exec
    Route("POST", "/containers/{container}/exec", A.EXEC_CREATE),
    Route("POST", "/exec/{exec}/start", A.EXEC_START),
    Route("POST", "/exec/{exec}/resize", A.RELAY, ("h", "w")),
    Route("GET", "/exec/{exec}/json", A.EXEC_INSPECT),
    # about the lease
    Route("GET", "/system/df", A.DISK_USE),
    Route("GET", "/events", A.LINES, ("since", "until", "filters")),
    # images of the lease
    Route("GET", "/images/json", A.IMAGE_LIST),
    Route("GET", "/images/{image}/json", A.IMAGE_INSPECT),
    Route("DELETE", "/images/{image}", A.IMAGE_REMOVE, ("force", "noprune")),
    # networks
    Route("GET", "/networks", A.NETWORK_LIST, ("filters",)),
    Route("POST", "/networks/create", A.NETWORK_CREATE),
    Route("POST", "/networks/prune", A.NETWORK_PRUNE, ("filters",)),
    Route("GET", "/networks/{network}", A.NETWORK_INSPECT, ("verbose", "scope")),
    Route("DELETE", "/networks/{network}", A.NETWORK_REMOVE),
    Route("POST", "/networks/{network}/connect", A.NETWORK_CONNECT),
    Route("POST", "/networks/{network}/disconnect", A.NETWORK_DISCONNECT),
    # volumes
    Route("GET", "/volumes", A.VOLUME_LIST, ("filters",)),
    Route("POST", "/volumes/create", A.VOLUME_CREATE),
    Route("POST", "/volumes/prune", A.VOLUME_PRUNE, ("filters",)),
    Route("GET", "/volumes/{volume}", A.VOLUME_INSPECT),
    Route("DELETE", "/volumes/{volume}", A.VOLUME_REMOVE, ("force",)),
)


class Match(NamedTuple):
    """A request that is allowed so far: the objects it names are still to be found in the lease."""

    route: Route
    references: dict[str, str]
    """Kind -> the tenant's word for it: ``{"container": "web"}``."""
    query: dict[str, str]


_VERSION = re.compile(r"/v\d{1,2}\.\d{1,3}(?=/)")
_REFERENCE = re.compile(r"(?:sha256:)?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_PS_ARGS = re.compile(r"-?(?:ef|aux|auxw|auxww)|-e?o [a-z%,_]{1,200}|")
VALUE_MAX = 4096
FILTERS_MAX = 16_384


def match(method: str, target: str) -> Match:
    """The API version in the path is dropped: the gate speaks the one it negotiated with its engine.

    Raises Refused: 400 for a target that could be read in two ways, 403 for what is not in the table."""
    path, _, query = target.partition("?")
    version = _VERSION.match(path)
    segments = _segments(path[version.end() :] if version else path)
    for route in _BY_SHAPE.get((method, len(segments)), ()):
        if (references := _references(route, segments)) is not None:
            return Match(route, references, _query(route, query))
    shown = "/" + "/".join(segments)
    raise Refused(403, f"{method} {shown[:200]} is not offered by a lease (see docs/spec/07-engine-api.md)")


def _segments(path: str) -> list[str]:
    """Decoded once, after splitting; every part must then be a plain word."""
    if not path.startswith("/"):
        raise Refused(400, "the request target must be a path")
    try:
        parts = [unquote(part, errors="strict") for part in path[1:].split("/")]
    except UnicodeDecodeError as error:
        raise Refused(400, "the path is not UTF-8") from error
    if any(not (_REFERENCE.fullmatch(part) or part == "_ping") for part in parts):
        raise Refused(400, "the path has an empty, encoded or relative part: only plain names are understood")
    return parts


def _references(route: Route, segments: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for pattern, segment in zip(route.path[1:].split("/"), segments, strict=True):
        if pattern.startswith("{"):
            found[pattern[1:-1]] = segment
        elif pattern != segment:
            return None
    return found


def _query(route: Route, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise Refused(400, f"the query cannot be read: {error}") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused(400, "a query parameter is given twice")
    kept = {name: value for name, value in found.items() if name in route.query}
    _check_query(kept, {name for name in found if found[name] not in ("", "0", "false")} - kept.keys())
    return kept


def _check_query(kept: dict[str, str], unknown: set[str]) -> None:
    if unknown:
        raise Refused(400, f"the parameter {min(unknown)[:60]!r} is not offered here")
    for name, value in kept.items():
        if len(value) > (FILTERS_MAX if name == "filters" else VALUE_MAX) or "\0" in value:
            raise Refused(400, f"the parameter {name!r} is too long or not text")
    if not _PS_ARGS.fullmatch(kept.get("ps_args", "")):
        raise Refused(400, "ps_args runs on the provider: only -ef, aux and -o with column names are offered")
    if "path" in kept and not kept["path"]:
        raise Refused(400, "the path is empty")


def _by_shape() -> dict[tuple[str, int], list[Route]]:
    """Literal routes before patterns, so that ``/containers/json`` is never a container called json."""
    shapes: dict[tuple[str, int], list[Route]] = {}
    for route in sorted(ROUTES, key=lambda route: route.path.count("{")):
        shapes.setdefault((route.method, route.path.count("/")), []).append(route)
    return shapes


_BY_SHAPE = _by_shape()
