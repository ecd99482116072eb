"""A small client of the Docker Engine API on a unix socket, for our own calls (not for relaying a tenant's).

The version is negotiated (newer engines refuse old clients, older ones refuse new): the rule is to name the
lower of both. ``EngineClient`` is for the event loop; ``BlockingEngine`` is for threads that walk or split big things.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from dockage.domain.errors import PeerError, Unavailable, UsageError

from .connection import Connection, connect_unix
from .http import HttpClient

API_NEWEST = (1, 44)
"""What we were written against; engine 29 speaks nothing older, 20.10 nothing newer than 1.41."""
QUICK = 30.0
"""Seconds for one call. A kill or a removal of a busy container takes up to 10."""
CONNECT = 5.0
ANSWER_MAX = 64 << 20
"""The list of images of an engine with thousands of them takes 10 MiB."""
CALLS_MAX = 16
"""Of our own at once; the others wait."""
KEPT = 16
"""Connections that wait for their next exchange. The engine takes 0.5 ms for a new one."""

Params = dict[str, str]


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status < 400

    def json(self) -> Any:
        """None for an empty body."""
        return msgspec.json.decode(self.body) if self.body else None

    @property
    def message(self) -> str:
        """The engine's own words about a refusal."""
        try:
            return str(msgspec.json.decode(self.body)["message"])
        except (msgspec.MsgspecError, ValueError, LookupError, TypeError):
            return self.body[:200].decode(errors="replace")


class EngineClient:
    """Made anywhere, used inside one event loop, closed there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: list[tuple[Connection, HttpClient]] = []
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._prefix = ""

    async def close(self) -> None:
        while self._kept:
            self._kept.pop()[0].abort()
        await asyncio.sleep(0)  # closing takes a turn of the loop
        self._prefix = ""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[HttpClient]:
        """For one exchange; kept for the next one if its answer was read to its end. Raises
        Unavailable("engine.unreachable")."""
        connection, client = self._take() or await self._connect()
        try:
            yield client
        finally:
            if client.may_ask_again and len(self._kept) < KEPT:
                self._kept.append((connection, client))
            else:
                connection.abort()

    def _take(self) -> tuple[Connection, HttpClient] | None:
        while self._kept:
            connection, client = self._kept.pop()
            if connection.is_quiet:
                return connection, client
            connection.abort()
        return None

    async def _connect(self) -> tuple[Connection, HttpClient]:
        try:
            connection = await connect_unix(self.path, CONNECT)
        except (OSError, TimeoutError) as error:
            raise unreachable(self.path, error) from error
        return connection, HttpClient(connection)

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
        """An engine that was started anew has closed the connections that we kept, and nobody may have noticed yet: a
        question is asked again then (RFC 9112 §9.3.1)."""
        if method == "GET" and self._kept:
            try:
                return await self._ask(method, path, params, body, timeout)
            except Unavailable as error:
                if error.code == "engine.unreachable":
                    raise
            while self._kept:
                self._kept.pop()[0].abort()
        try:
            return await self._ask(method, path, params, body, timeout)
        except Unavailable as error:
            raise error if error.code == "engine.unreachable" else unreachable(self.path, error) from error

    async def _ask(self, method: str, path: str, params: Params, body: object, timeout: float) -> Answer:
        tar = isinstance(body, AsyncIterable)
        kind = "application/x-tar" if tar else "application/json"
        headers = (("content-type", kind),) if body is not None else ()
        data = aiter(body) if isinstance(body, AsyncIterable) else _encoded(body)
        target = path + ("?" + urlencode(params) if params else "")
        try:
            async with asyncio.timeout(timeout), self._calls, self.connected() as client:
                response = await client.request(method, target, headers, data)
                return Answer(response.status, await response.read_body(ANSWER_MAX))
        except (PeerError, TimeoutError) as error:
            raise unreachable(self.path, error) from error


def _encoded(body: object) -> bytes | None:
    return msgspec.json.encode(body) if body is not None else None


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
