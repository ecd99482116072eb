"""The body of ``POST /networks/create``: a plain bridge with the provider's addresses."""

from __future__ import annotations

from typing import Any, NamedTuple

from .fields import labels
from .names import is_name
from .refusal import Refused
from .values import is_default

RESERVED = frozenset({"bridge", "host", "none", "default"})
ACCEPTED = frozenset(
    {"Name", "CheckDuplicate", "Driver", "Scope", "EnableIPv4", "Internal", "Attachable", "Labels"}
)
REASONS = {
    "IPAM": "a network's addresses are chosen by the provider (yours could be those of its own network)",
    "Options": "networks have no options here",
    "EnableIPv6": "networks of a lease are IPv4",
}


class NetworkWish(NamedTuple):
    name: str
    internal: bool
    labels: dict[str, str]


def parse(body: dict[str, Any]) -> NetworkWish:
    """Raises Refused(400)."""
    for key, value in body.items():
        if key not in ACCEPTED and not is_default(value) and not _empty_ipam(key, value):
            raise Refused(400, REASONS.get(key, f"{key[:80]} is not offered for networks"))
    if not is_default(body.get("Driver")) and body["Driver"] != "bridge":
        raise Refused(400, "only the bridge driver is offered")
    if not is_default(body.get("Scope")) and body["Scope"] != "local":
        raise Refused(400, "only the scope local is offered")
    name, given = body.get("Name"), body.get("Labels") or {}
    if not isinstance(name, str) or not is_name(name) or name in RESERVED:
        raise Refused(400, "a network's name is made of [a-zA-Z0-9][a-zA-Z0-9_.-], and not a predefined one")
    if reason := labels(given):
        raise Refused(400, f"Labels: {reason}")
    return NetworkWish(name, body.get("Internal") is True, given)


def _empty_ipam(key: str, value: Any) -> bool:
    """What clients send who want none: ``{"Driver": "default", "Config": []}``."""
    return (
        key == "IPAM"
        and isinstance(value, dict)
        and value.get("Driver") in (None, "", "default")
        and all(is_default(item) for name, item in value.items() if name != "Driver")
    )
