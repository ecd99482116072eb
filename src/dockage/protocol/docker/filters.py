"""The ``filters`` parameter of the Engine API's lists: read from a tenant, confined to its lease, written anew.

Clients send two forms, ``{"label": {"a=b": true}}`` (the CLI) and ``{"label": ["a=b"]}`` (docker-compose 1.x).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from dockage.domain.identity import LeaseId

from .names import LEASE_LABEL
from .refusal import Refused

Filters = dict[str, list[str]]

KEYS_MAX, VALUES_MAX, LENGTH_MAX = 16, 64, 1024


def parse(raw: str) -> Filters:
    """Raises Refused(400) for anything but one of the two forms with ``true`` values."""
    if not raw:
        return {}
    try:
        found = msgspec.json.decode(raw.encode())
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
        raise Refused(400, f"filters is not JSON: {error}") from error
    if not isinstance(found, dict) or len(found) > KEYS_MAX:
        raise Refused(400, f"filters must be an object with at most {KEYS_MAX} keys")
    return {str(key)[:LENGTH_MAX]: _values(value) for key, value in found.items()}


def _values(value: object) -> list[str]:
    if isinstance(value, dict) and all(set is True for set in value.values()):
        value = list(value)
    if not isinstance(value, list) or len(value) > VALUES_MAX:
        raise Refused(400, f"a filter has a list of at most {VALUES_MAX} values")
    if any(not isinstance(item, str) or len(item) > LENGTH_MAX for item in value):
        raise Refused(400, f"a filter's values are strings of at most {LENGTH_MAX} characters")
    return value


def only(filters: Filters, known: frozenset[str]) -> None:
    """Raises Refused(400): a filter that is ignored would show, or prune, too much."""
    if unknown := sorted(filters.keys() - known):
        raise Refused(
            400, f"the filter {unknown[0][:60]!r} is not offered; known: {', '.join(sorted(known))}"
        )


def of_lease(lease: LeaseId, filters: Mapping[str, list[str]] | None = None) -> Filters:
    """The label filters of the tenant and the lease's own: the engine wants all of them to hold."""
    kept = dict(filters or {})
    return kept | {"label": [*kept.get("label", []), f"{LEASE_LABEL}={lease.hex()}"]}


def encode(filters: Filters) -> str:
    return json.dumps(filters, separators=(",", ":"))


def names_match(filters: Filters, name: str) -> bool:
    """The ``name`` filter on a tenant's name. Docker takes a regular expression; from a stranger we take its
    common part: a substring, anchored by ^ (or ^/) and $."""
    return not filters.get("name") or any(_name_matches(pattern, name) for pattern in filters["name"])


def _name_matches(pattern: str, name: str) -> bool:
    start, end = pattern.startswith("^"), pattern.endswith("$")
    plain = pattern.removeprefix("^").removeprefix("/").removesuffix("$").replace("\\", "")
    if start and end:
        return name == plain
    if start:
        return name.startswith(plain)
    return name.endswith(plain) if end else plain in name
