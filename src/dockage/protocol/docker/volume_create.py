"""The body of ``POST /volumes/create``: a name, labels, and how large it may become."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .fields import labels
from .names import is_name
from .refusal import Refused
from .values import is_default

_SIZE = re.compile(r"(\d{1,12})([kmgt]?)b?", re.IGNORECASE)
_UNIT = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class VolumeWish(NamedTuple):
    name: str
    size: int
    """Bytes; 0 = not said."""
    labels: dict[str, str]


def parse(body: dict[str, Any]) -> VolumeWish:
    """Raises Refused(400). The one driver option is ``size``: all others mount something of the machine."""
    known = {"Name", "Driver", "DriverOpts", "Labels"}
    if unknown := [key for key, value in body.items() if key not in known and not is_default(value)]:
        raise Refused(400, f"{unknown[0][:80]} is not offered for volumes")
    if not is_default(body.get("Driver")) and body["Driver"] != "local":
        raise Refused(400, "only the local volume driver is offered")
    given = body.get("Labels") or {}
    if reason := labels(given):
        raise Refused(400, f"Labels: {reason}")
    return VolumeWish(_name(body.get("Name")), _size(body.get("DriverOpts")), given)


def _name(name: Any) -> str:
    if is_default(name):
        return ""
    if not isinstance(name, str) or not is_name(name):
        raise Refused(400, "a volume's name is made of [a-zA-Z0-9][a-zA-Z0-9_.-]")
    return name


def _size(options: Any) -> int:
    if is_default(options):
        return 0
    if not isinstance(options, dict) or options.keys() != {"size"}:
        raise Refused(400, "the only volume option is size: no path, device or server can be mounted")
    found = _SIZE.fullmatch(options["size"]) if isinstance(options["size"], str) else None
    if found is None:
        raise Refused(400, "size must be a number with k, m, g or t")
    return int(found[1]) * _UNIT[found[2].lower()]
