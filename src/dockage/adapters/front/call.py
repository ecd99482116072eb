"""One request of a client on its way through the front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from dockage.domain.errors import PeerError
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.docker.front_replies import API_VERSION
from dockage.wire.http import HttpServer, Request

BODY_MAX = 4 << 20
HEADERS = (
    ("api-version", API_VERSION),
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    ("server", "dockage"),
)
JSON = (*HEADERS, ("content-type", "application/json"))


@dataclass
class Call:
    server: HttpServer
    request: Request
    path: str
    """Without version and query."""
    query: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    """What the route's ``{...}`` stand for."""

    def flag(self, name: str) -> bool:
        """As the engine reads booleans: anything but these is true."""
        return self.query.get(name, "").lower() not in ("", "0", "no", "false", "none")

    def every(self, name: str) -> list[str]:
        """All values of a parameter that may be given several times."""
        pairs = parse_qsl(self.request.target.partition("?")[2], keep_blank_values=True, max_num_fields=256)
        return [value for key, value in pairs if key == name]

    async def json_body(self) -> dict[str, Any]:
        """``{}`` for an empty one. Raises ApiError(400)."""
        body = await self.raw_body()
        kind = self.request.headers.get("content-type").partition(";")[0].strip()
        if body and kind != "application/json":
            raise ApiError(400, f"unsupported Content-Type header ({kind}): must be 'application/json'")
        try:
            found = msgspec.json.decode(body) if body.strip() else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(400, f"invalid JSON: {error}") from error
        if not isinstance(found, dict):
            raise ApiError(400, "the body must be a JSON object")
        return found

    async def raw_body(self) -> bytes:
        try:
            return await self.server.read_body(BODY_MAX)
        except PeerError as error:
            raise error if error.code != "http.oversized" else ApiError(413, error.message) from error

    async def answer(self, body: object, status: int = 200) -> None:
        await self.server.answer(status, JSON, msgspec.json.encode(body) + b"\n")

    async def done(self, status: int = 204) -> None:
        await self.server.answer(status, HEADERS, b"")

    async def refuse(self, status: int, message: str) -> None:
        await self.answer({"message": message}, status)
