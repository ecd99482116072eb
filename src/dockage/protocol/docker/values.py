"""Checks of single JSON values: each answers ``""`` when the value will do, else the reason it will not.

They take any JSON value whatever: a peer's numbers may be strings, its lists may be null.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

Check = Callable[[Any], str]

COUNT_LIMIT = 4096
"""Entries of one list or map. The longest real environment seen has some hundred."""


def is_default(value: object) -> bool:
    """What Go's encoder sends for a field nobody set."""
    return value is None or value in ("", 0, False) or value == {} or value == []


def text(limit: int = 4096) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            return "must be a string"
        return "" if len(value) <= limit and "\0" not in value else f"must have at most {limit} characters"

    return check


def flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def number(low: int, high: int, why: str = "") -> Check:
    def check(value: Any) -> str:
        if type(value) is not int:
            return "must be a whole number"
        return "" if low <= value <= high else why or f"must be between {low} and {high}"

    return check


def one_of(allowed: Iterable[object], why: str) -> Check:
    known = list(allowed)

    def check(value: Any) -> str:
        return "" if any(value == item and type(value) is type(item) for item in known) else why

    return check


def nothing(why: str) -> Check:
    """Only the default will do."""
    return lambda value: why


def each(check: Check) -> Check:
    """A list; null is an empty one."""

    def check_all(value: Any) -> str:
        if not isinstance(value, list):
            return "must be a list"
        if len(value) > COUNT_LIMIT:
            return f"must have at most {COUNT_LIMIT} entries"
        return next((reason for item in value if (reason := check(item))), "")

    return check_all


def mapping(key: Check, item: Check) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "must be an object"
        if len(value) > COUNT_LIMIT:
            return f"must have at most {COUNT_LIMIT} entries"
        return next((bad for pair in value.items() if (bad := key(pair[0]) or item(pair[1]))), "")

    return check


def matching(pattern: str, why: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        return "" if isinstance(value, str) and compiled.fullmatch(value) else why

    return check


def either(*checks: Check) -> Check:
    """The last reason is told."""

    def check(value: Any) -> str:
        reasons = [one(value) for one in checks]
        return "" if "" in reasons else reasons[-1]

    return check


def record(fields: dict[str, Check]) -> Check:
    """An object of which only *fields* may differ from their defaults."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "must be an object"
        for name, item in value.items():
            if is_default(item):
                continue
            known = fields.get(name)
            reason = known(item) if known else "is not offered here"
            if reason:
                return f"{name[:80]} {reason}"
        return ""

    return check


def anything(value: Any) -> str:
    return ""


def ip_address(value: Any) -> str:
    try:
        return "" if isinstance(value, str) and ipaddress.ip_address(value) else "must be an IP address"
    except ValueError:
        return "must be an IP address"


def inner_path(value: Any) -> str:
    """An absolute path inside a container. The engine resolves it below the container's root; here it only
    has to be one that cannot be misread on the way."""
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 1024:
        return "must be an absolute path in the container, at most 1024 characters"
    parts = value.split("/")
    if "\0" in value or ".." in parts or ":" in value or not any(part not in ("", ".") for part in parts):
        return "must be a plain path below / without '..' or ':'"
    return ""
