"""What each part of the control API says and understands: JSON, ids by their beginnings; what does not fit is named."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from dockage.domain.errors import UsageError
from dockage.domain.units import SECOND, Duration, Instant

from .views import dump

T = TypeVar("T")


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the history, and in which steps: minutes, hours or days are what it is kept in."""

    since_sec: Annotated[int, msgspec.Meta(ge=0, le=1 << 33)] = 0
    step_sec: Annotated[int, msgspec.Meta(ge=60, le=366 * 86_400)] = 3600

    @property
    def since(self) -> Instant:
        return Instant(self.since_sec * SECOND)

    @property
    def step(self) -> Duration:
        return Duration(self.step_sec * SECOND)


def reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=dump(value), status=status, content_type="application/json")


async def asked(request: web.Request, kind: type[T]) -> T:
    """Its body; no body is an empty one. Raises UsageError("control.malformed")."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError("control.malformed", f"the request does not fit: {error}") from None


def matches(prefix: str, known: Any) -> list[Any]:
    return [key for key in known if len(prefix) >= 4 and key.hex().startswith(prefix.lower())]


def find(prefix: str, known: Any) -> Any:
    """By a unique prefix of at least four hex digits."""
    found = matches(prefix, known)
    if len(found) != 1:
        what = "more than one begins" if found else "nothing begins"
        raise NotFound("control.not-found", f"{what} with {prefix!r}: give at least four hex digits")
    return found[0]


class NotFound(UsageError):
    """What the user named is not there."""
