"""Questions to the engines of leases. One stream of ``ports.Leases`` carries one exchange; nothing is kept open.

Every call has a limit, so that a provider who vanished costs a refusal and not a hanging terminal.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import msgspec

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId, short
from dockage.ports import LeaseInfo, Leases
from dockage.protocol.docker.front_errors import ApiError
from dockage.wire.http import HttpClient, Response

CONNECT = 15.0
"""Seconds until the provider took the stream."""
QUICK = 3.0
"""Seconds for what ``docker ps`` waits for."""
SLOW = 900.0
"""Seconds for what may copy an image's files into a volume."""
USUAL = 60.0

Query = Mapping[str, str]
ID = re.compile(r"[0-9a-f]{64}")


def target(path: str, query: Query) -> str:
    return path + ("?" + urlencode(query) if query else "")


class LeaseEngines:
    def __init__(self, leases: Leases) -> None:
        self._leases = leases

    def info(self, lease: LeaseId) -> LeaseInfo | None:
        """None once it has ended."""
        return next((info for info in self._leases.all() if info.id == lease), None)

    async def end_of(self, lease: LeaseId) -> str:
        """Why *lease* ended, ``""`` if it has not, as far as anybody can tell."""
        if self.info(lease) is not None:
            return ""
        try:
            (await self._leases.engine(lease)).abort()
        except Unavailable as error:
            return error.message if error.code == "lease.ended" else ""
        return ""

    @asynccontextmanager
    async def connected(self, lease: LeaseId) -> AsyncIterator[HttpClient]:
        """For one exchange. Raises Unavailable."""
        try:
            async with asyncio.timeout(CONNECT):
                stream = await self._leases.engine(lease)
        except TimeoutError:
            raise _slow(lease, CONNECT) from None
        try:
            yield HttpClient(stream)
        finally:
            stream.abort()

    async def call(
        self,
        lease: LeaseId,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        limit: float = USUAL,
    ) -> tuple[int, Any]:
        """The status (below 400) and the JSON. Raises ApiError with the engine's refusal, Unavailable, PeerError."""
        try:
            async with asyncio.timeout(limit), self.connected(lease) as client:
                response = await _ask(client, method, target(path, query or {}), body)
                answer = await response.read_body()
        except TimeoutError:
            raise _slow(lease, limit) from None
        if response.status >= 400:
            raise ApiError(response.status, message_of(answer))
        return response.status, _json(answer)

    async def ask(
        self,
        lease: LeaseId,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        limit: float = USUAL,
    ) -> dict[str, Any]:
        """The same for an answer that must be an object."""
        _, doc = await self.call(lease, method, path, query=query, body=body, limit=limit)
        if not isinstance(doc, dict):
            raise PeerError("engine.strange", "the provider's engine answered something else than an object")
        return doc


def id_of(doc: Mapping[str, Any]) -> str:
    """Of something that was made. Raises PeerError for an answer without one."""
    found = doc.get("Id")
    if not isinstance(found, str) or not ID.fullmatch(found):
        raise PeerError("engine.strange", "the provider's engine made something without an id")
    return found


async def _ask(client: HttpClient, method: str, path: str, body: object) -> Response:
    if body is None:
        return await client.request(method, path)
    headers = (("content-type", "application/json"),)
    return await client.request(method, path, headers, msgspec.json.encode(body))


def _slow(lease: LeaseId, limit: float) -> Unavailable:
    return Unavailable(
        "peer.slow", f"the provider of lease {short(lease)} did not answer within {limit:.0f} s; try again"
    )


def _json(answer: bytes) -> Any:
    try:
        return msgspec.json.decode(answer) if answer.strip() else None
    except msgspec.MsgspecError as error:
        raise PeerError(
            "engine.strange", f"the provider's engine answered something else: {error}"
        ) from error


def message_of(answer: bytes) -> str:
    try:
        return str(msgspec.json.decode(answer)["message"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        return answer[:2000].decode(errors="replace") or "the engine gave no reason"
