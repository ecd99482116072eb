"""What every part of the control API says and understands: JSON, and what does not fit is named."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from dockage.domain.errors import UsageError

from .views import dump

T = TypeVar("T")


def reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=dump(value), status=status, content_type="application/json")


async def asked(request: web.Request, kind: type[T]) -> T:
    """Its body; no body is an empty one. Raises UsageError("control.malformed")."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise UsageError("control.malformed", f"the request does not fit: {error}") from None
