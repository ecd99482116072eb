"""Questions to the engines of leases, each with a limit: a provider who vanished costs a refusal and not a hanging
terminal. A stream that answered is kept for the next question for a while: opening one costs as much as a small answer.
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
from dockage.domain.lease import LeaseState
from dockage.ports.peers import Stream
from dockage.ports.renting import LeaseInfo, Leases
from dockage.protocol.docker.front_errors import ApiError
from dockage.wire.heads import HeaderPairs
from dockage.wire.http import HttpClient, Response

CONNECT = 15.0
"""Seconds until the provider took the stream."""
QUICK = 3.0
"""Seconds for what ``docker ps`` waits for."""
SLOW = 900.0
"""Seconds for what may copy an image's files into a volume."""
USUAL = 60.0
KEPT, KEPT_SEC = 4, 30.0
"""Idle streams of a lease, and seconds for which one is used again: its provider closes it after 60."""

Query = Mapping[str, str]
ID = re.compile(r"[0-9a-f]{64}")


def target(path: str, query: Query) -> str:
    return path + ("?" + urlencode(query) if query else "")


class LeaseEngines:
    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._kept: dict[LeaseId, list[tuple[float, Stream, HttpClient]]] = {}

    def drop(self, lease: LeaseId) -> None:
        """It was given back: nothing of it is kept."""
        for _, stream, _ in self._kept.pop(lease, ()):
            stream.abort()

    def info(self, lease: LeaseId) -> LeaseInfo | None:
        """None once it has ended."""
        return next((info for info in self._leases.all() if info.id == lease), None)

    async def end_of(self, lease: LeaseId) -> str:
        """Why *lease* ended or is ending, ``""`` if it is not, as far as anybody can tell."""
        info = self.info(lease)
        if info is not None and info.state != LeaseState.ENDING.value:
            return ""
        try:
            (await self._leases.engine(lease)).abort()
        except Unavailable as error:
            return error.message if error.code == "lease.ended" else ""
        return ""

    @asynccontextmanager
    async def connected(self, lease: LeaseId) -> AsyncIterator[HttpClient]:
        """For one exchange. Raises Unavailable."""
        stream = await self._open(lease)
        try:
            yield HttpClient(stream)
        finally:
            stream.abort()

    async def _open(self, lease: LeaseId) -> Stream:
        try:
            async with asyncio.timeout(CONNECT):
                return await self._leases.engine(lease)
        except TimeoutError:
            raise _slow(lease, CONNECT) from None

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
        headers, data = _json_body(body)
        try:
            async with (
                asyncio.timeout(limit),
                self.asked(lease, method, target(path, query or {}), headers, data) as response,
            ):
                status, answer = response.status, await response.read_body()
        except TimeoutError:
            raise _slow(lease, limit) from None
        if status >= 400:
            raise ApiError(status, message_of(answer))
        return status, _json(answer)

    @asynccontextmanager
    async def asked(
        self,
        lease: LeaseId,
        method: str,
        path: str,
        headers: HeaderPairs = (),
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[Response]:
        """The answer's head, on a stream of its own for as long as the block lasts; if the answer was read to its end,
        the stream is kept for the next question. Raises Unavailable, PeerError."""
        stream, client, response = await self._begin(lease, method, path, headers, body)
        try:
            yield response
        except BaseException:
            stream.abort()
            raise
        if client.may_ask_again:
            self._keep(lease, stream, client)
        else:
            stream.abort()

    async def _begin(
        self,
        lease: LeaseId,
        method: str,
        path: str,
        headers: HeaderPairs,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> tuple[Stream, HttpClient, Response]:
        """A kept stream may have ended unnoticed, so only what may be asked twice is asked on one."""
        if method in ("GET", "HEAD") and body is None and (kept := self._take(lease)):
            try:
                return await _on(*kept, method, path, headers, None)
            except Unavailable:
                pass
        stream = await self._open(lease)
        return await _on(stream, HttpClient(stream), method, path, headers, body)

    def _take(self, lease: LeaseId) -> tuple[Stream, HttpClient] | None:
        """The one that was used last; older ones go in time."""
        kept, now = self._kept.get(lease, []), asyncio.get_running_loop().time()
        while kept:
            since, stream, client = kept.pop()
            if now - since < KEPT_SEC:
                return stream, client
            stream.abort()
        return None

    def _keep(self, lease: LeaseId, stream: Stream, client: HttpClient) -> None:
        kept = self._kept.setdefault(lease, [])
        kept.append((asyncio.get_running_loop().time(), stream, client))
        if len(kept) > KEPT:
            kept.pop(0)[1].abort()

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


async def _on(
    stream: Stream,
    client: HttpClient,
    method: str,
    path: str,
    headers: HeaderPairs,
    body: bytes | AsyncIterator[bytes] | None,
) -> tuple[Stream, HttpClient, Response]:
    try:
        return stream, client, await client.request(method, path, headers, body)
    except BaseException:
        stream.abort()
        raise


def _json_body(body: object) -> tuple[HeaderPairs, bytes | None]:
    return (
        ((("content-type", "application/json"),), msgspec.json.encode(body))
        if body is not None
        else ((), None)
    )


def _slow(lease: LeaseId, limit: float) -> Unavailable:
    return Unavailable(
        "peer.slow", f"the provider of lease {short(lease)} did not answer within {limit:.0f} s; try again"
    )


def _json(answer: bytes) -> Any:
    try:
        return msgspec.json.decode(answer) if answer.strip() else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(
            "engine.strange", f"the provider's engine answered something else: {error}"
        ) from error


def message_of(answer: bytes) -> str:
    try:
        return str(msgspec.json.decode(answer)["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError):
        return answer[:2000].decode(errors="replace") or "the engine gave no reason"
