"""The ``filters`` of the Engine API, evaluated over what the front already translated.

Clients send two JSON forms: ``{"label": {"a=b": true}}`` (docker, compose v2) and ``{"label": ["a=b"]}``
(compose v1, docker-py). Values of one key are alternatives, except labels, which must all match; an unknown key
is refused as the engine does, because ignoring it would show (or prune) too much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from .front_errors import ApiError

Filters = dict[str, tuple[str, ...]]
Item = Mapping[str, Any]
ItemT = TypeVar("ItemT", bound=Mapping[str, Any])
LIMIT = 16 << 10
BUILTIN = ("bridge", "host", "none")


def parse(text: str) -> Filters:
    """Raises ApiError(400) for anything that is neither of the two forms."""
    if not text:
        return {}
    try:
        raw = msgspec.json.decode(text[:LIMIT], type=dict[str, dict[str, bool] | list[str]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"invalid filter: {error}") from error
    return {name: _values(value) for name, value in raw.items()}


def _values(value: dict[str, bool] | list[str]) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(key for key, wanted in value.items() if wanted)
    return tuple(value)


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def _labels(labels: Mapping[str, str] | None, wanted: Sequence[str]) -> bool:
    return all(has_label(labels or {}, one) for one in wanted)


def _without_labels(labels: Mapping[str, str] | None, unwanted: Sequence[str]) -> bool:
    return not any(has_label(labels or {}, one) for one in unwanted)


def name_matches(name: str, pattern: str) -> bool:
    """The engine takes a regular expression, searched with and without the leading slash."""
    try:
        return re.search(pattern[:256], name) is not None or re.search(pattern[:256], "/" + name) is not None
    except re.error:
        return pattern in name


Check = Callable[[Item, tuple[str, ...]], bool]


def _any(predicate: Callable[[Item, str], bool]) -> Check:
    return lambda item, wanted: any(predicate(item, one) for one in wanted)


def _networks(item: Item) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return found


def _on_network(item: Item, wanted: str) -> bool:
    return any(
        name == wanted or (wanted and str(end.get("NetworkID") or "").startswith(wanted))
        for name, end in _networks(item).items()
    )


def _with_volume(item: Item, wanted: str) -> bool:
    return any(wanted in (mount.get("Name"), mount.get("Destination")) for mount in item.get("Mounts") or ())


def _from_image(item: Item, wanted: str) -> bool:
    image = str(item.get("Image") or "")
    full = image if ":" in image.rpartition("/")[2] or "@" in image else image + ":latest"
    id_ = str(item.get("ImageID") or "").removeprefix("sha256:")
    return wanted in (image, full) or (bool(wanted) and id_.startswith(wanted.removeprefix("sha256:")))


def _exit_code(item: Item, wanted: str) -> bool:
    return str(item.get("Status") or "").startswith(f"Exited ({wanted})")


def _health(item: Item, wanted: str) -> bool:
    status = str(item.get("Status") or "")
    if wanted == "none":
        return "health" not in status
    return f"({wanted})" in status or (wanted == "starting" and "(health: starting)" in status)


def _port(field: str) -> Callable[[Item, str], bool]:
    def has(item: Item, wanted: str) -> bool:
        number, _, protocol = wanted.partition("/")
        return any(
            str(port.get(field)) == number and port.get("Type") == (protocol or "tcp")
            for port in item.get("Ports") or ()
        )

    return has


CONTAINER: dict[str, Check] = {
    "label": lambda item, wanted: _labels(item.get("Labels"), wanted),
    "label!": lambda item, wanted: _without_labels(item.get("Labels"), wanted),
    "name": _any(lambda item, one: any(name_matches(name[1:], one) for name in item.get("Names") or ())),
    "id": _any(lambda item, one: str(item["Id"]).startswith(one)),
    "status": _any(lambda item, one: item.get("State") == one),
    "exited": _any(_exit_code),
    "health": _any(_health),
    "network": _any(_on_network),
    "volume": _any(_with_volume),
    "ancestor": _any(_from_image),
    "publish": _any(_port("PublicPort")),
    "expose": _any(_port("PrivatePort")),
    "is-task": _any(lambda item, one: one in ("false", "0")),
    "isolation": _any(lambda item, one: one in ("", "default")),
}
NETWORK: dict[str, Check] = {
    "label": lambda item, wanted: _labels(item.get("Labels"), wanted),
    "label!": lambda item, wanted: _without_labels(item.get("Labels"), wanted),
    "name": _any(lambda item, one: name_matches(str(item["Name"]), one)),
    "id": _any(lambda item, one: str(item["Id"]).startswith(one)),
    "driver": _any(lambda item, one: item.get("Driver") == one),
    "scope": _any(lambda item, one: item.get("Scope") == one),
    "type": _any(lambda item, one: one == ("builtin" if item["Name"] in BUILTIN else "custom")),
}
VOLUME: dict[str, Check] = {
    "label": lambda item, wanted: _labels(item.get("Labels"), wanted),
    "label!": lambda item, wanted: _without_labels(item.get("Labels"), wanted),
    "name": _any(lambda item, one: name_matches(str(item["Name"]), one)),
    "driver": _any(lambda item, one: item.get("Driver") == one),
}


STATES = frozenset("created restarting running removing paused exited dead".split())
VALUES: dict[str, Callable[[str], bool]] = {
    "status": lambda value: value in STATES,
    "exited": lambda value: value.removeprefix("-").isdecimal(),
    "health": lambda value: value in ("none", "starting", "healthy", "unhealthy"),
    "dangling": lambda value: value in ("true", "false", "1", "0"),
}
"""Filters whose values the engine checks: a misspelt one must not select nothing."""


def select(items: Sequence[ItemT], filters: Filters, checks: Mapping[str, Check]) -> list[ItemT]:
    """The items that pass every key of *filters*. Raises ApiError(400) for a key that *checks* lacks, or a value
    that cannot be."""
    for name, wanted in filters.items():
        if name not in checks:
            raise ApiError(400, f"invalid filter '{name}'")
        for value in wanted:
            if name in VALUES and not VALUES[name](value):
                raise ApiError(400, f"invalid filter '{name}={value[:80]}'")
    return [item for item in items if all(checks[name](item, wanted) for name, wanted in filters.items())]


def event_matches(event: Item, filters: Filters) -> bool:
    """Whether an event of ``GET /events`` is wanted."""
    actor: Mapping[str, Any] = event.get("Actor") or {}
    attributes: Mapping[str, str] = actor.get("Attributes") or {}
    for name, wanted in filters.items():
        match name:
            case "label":
                fits = _labels(attributes, wanted)
            case "event":
                action = str(event.get("Action") or "")
                fits = action in wanted or action.partition(":")[0] in wanted
            case "type":
                fits = event.get("Type") in wanted
            case "container" | "network" | "volume":
                fits = event.get("Type") == name and _is_actor(actor, attributes, wanted)
            case "image":
                fits = attributes.get("image") in wanted or str(actor.get("ID")) in wanted
            case "scope":
                fits = "local" in wanted
            case _:
                fits = False
        if not fits:
            return False
    return True


def _is_actor(actor: Item, attributes: Mapping[str, str], wanted: Sequence[str]) -> bool:
    id_ = str(actor.get("ID") or "")
    return any(one == attributes.get("name") or (one and id_.startswith(one)) for one in wanted)
