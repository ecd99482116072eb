"""One request on its way through the gate, with what its handlers need."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LeaseRoom
from dockage.protocol.docker.create import Place
from dockage.protocol.docker.names import scrub
from dockage.protocol.docker.refusal import Refused
from dockage.protocol.docker.routes import Match
from dockage.wire.engine import Answer, EngineClient
from dockage.wire.http import JSON, HttpServer, Request

JSON_BODY_LIMIT = 1 << 20
SLOW = 600.0
"""Seconds for a call that may copy an image's files into a new volume, or remove a large container."""


@dataclass
class LeaseState:
    """What the gate keeps in memory of one lease. Nothing of it is the truth: that is in the engine."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whatever makes containers, networks or volumes: counts and names are decided under it."""
    running: int = 0
    held: str = ""
    """Why nothing may be started at present; "" = everything may."""
    containers: set[str] = field(default_factory=set)
    """Full ids known to be of this lease: an id is never used twice, so it never has to be forgotten."""
    network: str = ""
    """The id of the default network, once it was asked for: the lease has it for as long as it lasts."""
    execs: dict[str, None] = field(default_factory=dict)
    streams: set[asyncio.Timeout] = field(default_factory=set)
    """Whoever is served now: cut when the lease ends."""


@dataclass(frozen=True)
class Exchange:
    server: HttpServer
    request: Request
    match: Match
    place: Place
    room: LeaseRoom
    engine: EngineClient
    state: LeaseState

    @property
    def lease(self) -> LeaseId:
        return self.place.lease

    @property
    def query(self) -> dict[str, str]:
        return self.match.query

    async def json_body(self) -> dict[str, Any]:
        """The request's body; an empty one is ``{}``. Raises Refused(400)."""
        try:
            body = await self.server.read_body(JSON_BODY_LIMIT)
            found = msgspec.json.decode(body) if body.strip() else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"the body is not JSON: {error}") from error
        except PeerError as error:
            raise error if error.code != "http.oversized" else Refused(400, error.message) from error
        if not isinstance(found, dict):
            raise Refused(400, "the body must be a JSON object")
        return found

    async def call(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: object = None
    ) -> Any:
        """The engine's JSON. Raises Refused with the engine's status and scrubbed words."""
        answer = await self.engine.call(method, path, params=params, body=body, timeout=SLOW)
        if not answer.ok:
            raise self.refused(answer)
        return answer.json()

    def refused(self, answer: Answer) -> Refused:
        return Refused(answer.status, scrub(self.lease, answer.message))

    async def answer(self, body: object, status: int = 200) -> None:
        await self.server.answer(status, JSON, msgspec.json.encode(body) + b"\n")

    async def done(self) -> None:
        """204."""
        await self.server.answer(204, (), b"")
