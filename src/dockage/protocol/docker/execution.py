"""Bodies of ``POST /containers/{id}/exec`` and ``POST /exec/{id}/start``."""

from __future__ import annotations

from typing import Any

from .refusal import Refusal
from .refusals import check
from .values import Check, each, flag, is_default, matching, nothing, number, text

_COMMON: dict[str, Check] = {
    "Tty": flag,
    "ConsoleSize": each(number(0, 10_000)),
    "DetachKeys": matching(r"[a-zA-Z0-9@^\[\]\\_,-]{0,60}", "must be keys such as ctrl-p,ctrl-q"),
}
EXEC: dict[str, Check] = {
    **_COMMON,
    "AttachStdin": flag,
    "AttachStdout": flag,
    "AttachStderr": flag,
    "Detach": flag,
    "Env": each(text(131_072)),
    "Cmd": each(text(131_072)),
    "User": text(128),
    "WorkingDir": text(1024),
    "Privileged": nothing("no container of a stranger gets the provider's machine"),
}
START: dict[str, Check] = {**_COMMON, "Detach": flag}


def exec_body(body: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused(400)."""
    return _kept(body, EXEC)


def start_body(body: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused(400)."""
    return _kept(body, START)


def _kept(body: dict[str, Any], table: dict[str, Check]) -> dict[str, Any]:
    given = {name: value for name, value in body.items() if not is_default(value)}
    unknown = nothing("is not known to dockage")
    reasons = {name: table.get(name, unknown)(value) for name, value in given.items()}
    check([Refusal(name[:80], reason) for name, reason in reasons.items() if reason])
    return given
