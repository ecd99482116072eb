"""A small client of the Docker Engine API on a unix socket, for our own calls (not for relaying a tenant's).

The version is negotiated (newer engines refuse old clients, older ones refuse new): the rule is to name the
lower of both. ``EngineClient`` is for the event loop; ``BlockingEngine`` is for threads that walk or split big things.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from dockage.domain.errors import Unavailable, UsageError

API_NEWEST = (1, 44)
"""What we were written against; engine 29 speaks nothing older, 20.10 nothing newer than 1.41."""
QUICK = 30.0
"""Seconds for one call. A kill or a removal of a busy container takes up to 10."""

Params = dict[str, str]


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status < 400

    def json(self) -> Any:
        """None for an empty body."""
        return json.loads(self.body) if self.body else None

    @property
    def message(self) -> str:
        """The engine's own words about a refusal."""
        try:
            return str(json.loads(self.body)["message"])
        except (ValueError, LookupError, TypeError):
            return self.body[:200].decode(errors="replace")


class EngineClient:
    """Made anywhere, used inside one event loop, closed there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session: aiohttp.ClientSession | None = None
        self._prefix = ""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session, self._prefix = None, ""

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        timeout: float = QUICK,
    ) -> Answer:
        """Any status is an answer. Raises Unavailable("engine.unreachable")."""
        return await self._send(method, await self.prefix() + path, params or {}, body, timeout)

    async def prefix(self) -> str:
        """What paths begin with in the negotiated version: ``/v1.41``."""
        if not self._prefix:
            self._prefix = negotiate((await self._send("GET", "/version", {}, None, QUICK)).json())
        return self._prefix

    async def must(self, method: str, path: str, *, params: Params | None = None, body: object = None) -> Any:
        """The answer's JSON. Raises UsageError("engine.refused") with the engine's words, or Unavailable."""
        answer = await self.call(method, path, params=params, body=body)
        if answer.status >= 500:
            raise Unavailable(
                "engine.failed", f"the Docker engine failed at {method} {path}: {answer.message}"
            )
        if not answer.ok:
            raise UsageError("engine.refused", f"the Docker engine refused {method} {path}: {answer.message}")
        return answer.json()

    async def upload(self, path: str, body: AsyncIterable[bytes], timeout: float) -> Answer:
        """POST a tar stream."""
        await self.call("GET", "/_ping")
        return await self._send("POST", self._prefix + path, {}, body, timeout)

    async def _send(self, method: str, path: str, params: Params, body: object, timeout: float) -> Answer:
        tar = isinstance(body, AsyncIterable)
        payload: dict[str, Any] = {"data": body} if tar else {} if body is None else {"json": body}
        headers = {"Content-Type": "application/x-tar"} if tar else {}
        try:
            async with self._open().request(
                method,
                "http://engine" + path,
                params=params,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                **payload,
            ) as response:
                return Answer(response.status, await response.read())
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise unreachable(self.path, error) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(path=str(self.path), limit=16)
            # with Accept-Encoding the engine gzips archives and nobody unpacks them
            self._session = aiohttp.ClientSession(connector=connector, skip_auto_headers=["Accept-Encoding"])
        return self._session


def negotiate(version: Any) -> str:
    """The path prefix of the newest API that both sides speak, from the body of ``GET /version``."""
    try:
        major, _, minor = version["ApiVersion"].partition(".")
        spoken = min(API_NEWEST, (int(major), int(minor)))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise Unavailable("engine.strange", "the engine's /version names no ApiVersion") from None
    return f"/v{spoken[0]}.{spoken[1]}"


def unreachable(path: Path, error: BaseException) -> Unavailable:
    return Unavailable(
        "engine.unreachable",
        f"the Docker engine does not answer on {path} ({type(error).__name__}: {error}); "
        "start it, or name the right socket",
    )


class BlockingEngine(http.client.HTTPConnection):
    """The same socket for a thread: ``http.client`` over AF_UNIX."""

    def __init__(self, path: Path, timeout: float = QUICK) -> None:
        super().__init__("engine", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
