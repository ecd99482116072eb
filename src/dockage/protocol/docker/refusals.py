"""What of a request body cannot be had: asked by the tenant's front before anything is paid, and by the
provider's filter because it must.

One function for both, so that they cannot disagree. Everything that fields.py does not name is refused unless
it has its default value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import fields
from .fields import CONFIG, EMPTY_IS_A_WISH, ENDPOINT, HOST_CONFIG, Field
from .refusal import Refusal, Refused
from .values import is_default
from .volumes import volume_uses

REPORTED_MAX = 20
SECTIONS = frozenset({"HostConfig", "NetworkingConfig"})


def refusals(body: object) -> list[Refusal]:
    """Every field of *body* (any JSON value) that cannot be honoured; empty if it can be created."""
    if not isinstance(body, dict):
        return [Refusal("body", "must be a JSON object")]
    found = _section(body, CONFIG, "", skip=SECTIONS)
    found += _section(body.get("HostConfig"), HOST_CONFIG, "HostConfig.")
    found += _networking(body.get("NetworkingConfig"))
    found = found or _swap(body.get("HostConfig") or {})
    return found[:REPORTED_MAX] or _mounts(body)


def update_refusals(body: object) -> list[Refusal]:
    """The same for ``POST /containers/{id}/update``."""
    if not isinstance(body, dict):
        return [Refusal("body", "must be a JSON object")]
    found = _section(body, fields.RESOURCES, "") or _swap(body)
    return found[:REPORTED_MAX]


def _section(
    body: object, table: Mapping[str, Field], prefix: str, skip: frozenset[str] = frozenset()
) -> list[Refusal]:
    if body is None:
        return []
    if not isinstance(body, dict):
        return [Refusal(prefix.rstrip("."), "must be an object")]
    pairs = ((name, value) for name, value in body.items() if name not in skip)
    return [
        Refusal(prefix + name[:80], reason)
        for name, value in pairs
        if (reason := _reason(table, name, value))
    ]


def _reason(table: Mapping[str, Field], name: str, value: object) -> str:
    if is_default(value) and not (name in EMPTY_IS_A_WISH and value is not None):
        return ""
    known = table.get(name)
    return known.check(value) if known else "is not known to dockage, so it cannot be promised"


def _networking(config: object) -> list[Refusal]:
    if is_default(config):
        return []
    if not isinstance(config, dict) or not isinstance(config.get("EndpointsConfig") or {}, dict):
        return [Refusal("NetworkingConfig", "must be an object with EndpointsConfig")]
    found = [
        Refusal(f"NetworkingConfig.{name[:80]}", "is not known to dockage")
        for name, value in config.items()
        if name != "EndpointsConfig" and not is_default(value)
    ]
    for name, endpoint in (config.get("EndpointsConfig") or {}).items():
        found += endpoint_refusals(endpoint, f"NetworkingConfig.EndpointsConfig.{name[:80]}.")
    return found


def endpoint_refusals(endpoint: object, prefix: str = "EndpointConfig.") -> list[Refusal]:
    """Also for ``POST /networks/{id}/connect``."""
    return _section(endpoint, ENDPOINT, prefix)


def _mounts(body: dict[str, Any]) -> list[Refusal]:
    try:
        volume_uses(body)
    except Refused as refused:
        return [Refusal("HostConfig.Mounts", refused.message)]
    return []


def _swap(host: dict[str, Any]) -> list[Refusal]:
    swap, memory = host.get("MemorySwap") or 0, host.get("Memory") or 0
    if swap in (0, memory):
        return []
    return [Refusal("HostConfig.MemorySwap", "no swap is offered: leave it out, or make it equal to Memory")]


def check(found: list[Refusal]) -> None:
    """Raises Refused(400) which names every refusal."""
    if found:
        raise Refused(400, "this cannot be had on dockage: " + "; ".join(str(each) for each in found))
