"""Whether the containers of a lease are as they should be, by what its engine lists: the gate of a rollout.

As ``docker ps`` shows them: one that runs and is not unhealthy is well, so is one that has done its work and ended with
0, and one that was never started. What has a health check is well once it says so.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId
from dockage.ports.peers import Stream
from dockage.wire.http import HttpClient

EXITED = re.compile(r"Exited \((\d{1,3})\)")
LISTED_MAX = 128


def wellness(engine: Callable[[LeaseId], Awaitable[Stream]]) -> Callable[[LeaseId], Awaitable[bool | None]]:
    async def look(lease: LeaseId) -> bool | None:
        stream = await engine(lease)
        try:
            response = await HttpClient(stream).request("GET", "/containers/json?all=1")
            return judged(_listing(await response.read_body())) if response.status == 200 else None
        finally:
            stream.abort()

    return look


def judged(listing: list[dict[str, Any]]) -> bool | None:
    """False: one of them failed; None: one only begins, or there is none."""
    found = [_one(str(one.get("State")), str(one.get("Status"))) for one in listing[:LISTED_MAX]]
    if False in found:
        return False
    return None if None in found or not found else True


def _one(state: str, status: str) -> bool | None:
    match state:
        case "running" if "(unhealthy)" in status:
            return False
        case "running" if "health: starting" in status:
            return None
        case "running" | "created" | "paused":
            return True
        case "exited" if (code := EXITED.match(status)) and int(code[1]) == 0:
            return True
        case "exited" | "dead":
            return False
        case _:  # restarting, removing
            return None


def _listing(body: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(body, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError(
            "engine.strange", f"the engine's list of containers cannot be read: {error}"
        ) from None
