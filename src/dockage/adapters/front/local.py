"""The tenant's own engine: it holds the images, and builds, pulls and pushes them.

What concerns images is relayed to it byte for byte (buildx speaks HTTP/2 over the upgraded connection); the front
itself asks it only whether an image is there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.ports.peers import Stream
from dockage.ports.renting import ImageStore, Puller
from dockage.protocol.docker import front_images
from dockage.protocol.docker.front_errors import ApiError, no_image
from dockage.protocol.docker.front_replies import parse_version
from dockage.wire.connection import connect_unix
from dockage.wire.http import HttpClient, Request
from dockage.wire.relay import both_ways, json_lines

from .call import Call
from .engines import message_of

CONNECT = 5.0
PATIENCE = 30.0
"""Seconds for a small answer."""
VERSIONED = re.compile(r"/v(\d{1,2}\.\d{1,3})(/.*)", re.DOTALL)
NO_ENGINE = (
    "dockage has no local Docker engine, and images are built and pushed there. Install Docker on this machine "
    "(or set tenant.engine to its socket); or make the image elsewhere, and bring it in with 'docker load -i "
    "image.tar' or, pushed to a registry, 'docker pull'"
)


class LocalEngine:
    def __init__(
        self, socket: Path | None, store: ImageStore | None = None, puller: Puller | None = None
    ) -> None:
        self._socket = socket
        self.store = store if socket is None else None
        """Our own images, where there is no engine."""
        self.puller = puller
        self._ping: dict[str, str] = {}

    async def relay(self, call: Call) -> None:
        """This request and whatever follows on the connection. Raises ApiError(501) without an engine."""
        version = parse_version((await self.ping()).get("api-version", ""))
        engine = await self._connect()
        try:
            await engine.write(_head(call.request, version))
            await both_ways(call.server.raw(), engine)
        finally:
            engine.abort()

    async def check(self) -> None:
        """Raises ApiError(501) without an engine, Unavailable while it does not answer."""
        (await self._connect()).abort()

    async def image(self, ref: str) -> dict[str, Any]:
        """Its inspect. Raises ApiError(404) after which a client pulls it."""
        if self.store is not None:
            return stored(self.store, ref)
        if self._socket is None or not ref:
            raise no_image(ref)
        async with self._asking() as client:
            response = await client.request("GET", f"/images/{quote(ref, safe='/:@')}/json")
            body = await response.read_body()
        if response.status == 400:
            raise ApiError(400, message_of(body).removeprefix(f"no such image: {ref}: "))
        if response.status > 400:
            raise no_image(ref)
        return msgspec.json.decode(body, type=dict[str, Any])

    async def json(self, path: str) -> dict[str, Any]:
        """``{}`` if there is no engine, or it does not answer: for what is only shown."""
        try:
            async with self._asking() as client:
                response = await client.request("GET", path)
                body = await response.read_body()
            return msgspec.json.decode(body, type=dict[str, Any]) if response.status < 400 else {}
        except (DockageError, msgspec.MsgspecError):
            return {}

    async def lines(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """An endless answer's JSON lines. Raises Unavailable when it breaks, and ApiError without an engine."""
        stream = await self._connect()
        try:
            response = await HttpClient(stream).request("GET", path)
            if response.status != 200:
                raise Unavailable("engine.strange", f"the local engine answers {response.status} to {path}")
            async for line in json_lines(response.body()):
                yield line
        finally:
            stream.abort()

    async def import_tar(self, query: Sequence[tuple[str, str]], tar: AsyncIterator[bytes]) -> str:
        """The id of the image made of *tar* (Engine API v1.44, ImageCreate with fromSrc). Raises ApiError."""
        stream = await self._connect()
        try:
            client = HttpClient(stream)
            headers = [("content-type", "application/x-tar")]
            response = await client.request("POST", "/images/create?" + urlencode(query), headers, tar)
            said: dict[str, Any] = {}
            async for said in json_lines(response.body()):
                if "error" in said or "message" in said:
                    raise ApiError(max(500, response.status), str(said.get("error") or said.get("message")))
            return str(said.get("status") or "")
        finally:
            stream.abort()

    async def ping(self) -> dict[str, str]:
        """The headers of its ``/_ping``, remembered; {} without an engine or while it does not answer."""
        if not self._ping and self._socket is not None:
            try:
                async with self._asking() as client:
                    response = await client.request("GET", "/_ping")
                    await response.read_body()
                self._ping = dict(response.headers)
            except DockageError:
                return {}
        return self._ping

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[HttpClient]:
        stream = await self._connect()
        try:
            async with asyncio.timeout(PATIENCE):
                yield HttpClient(stream)
        except TimeoutError:
            raise Unavailable("engine.slow", "the local Docker engine does not answer") from None
        finally:
            stream.abort()

    async def _connect(self) -> Stream:
        if self._socket is None:
            raise ApiError(501, NO_ENGINE)
        try:
            return await connect_unix(self._socket, CONNECT)
        except (OSError, TimeoutError) as error:
            self._ping = {}  # it may come back as another version
            raise Unavailable(
                "engine.unreachable", f"the local Docker engine does not answer on {self._socket}: {error}"
            ) from error


def stored(store: ImageStore, ref: str) -> dict[str, Any]:
    """As ``image``."""
    try:
        found = store.find(ref)
    except UsageError as error:
        raise no_image(ref) if error.code == "image.unknown" else error from error
    return front_images.inspected(found.manifest, found.tags, found.digests)


def _head(request: Request, version: tuple[int, ...]) -> bytes:
    """The request's head as it came, but for the version, and that the connection ends with the answer: a next
    request on it may not be the local engine's."""
    fields = [pair for pair in request.headers if request.wants_upgrade or pair[0] != "connection"]
    if not request.wants_upgrade:
        fields.append(("connection", "close"))
    lines = [f"{request.method} {_at_most(request.target, version)} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _at_most(target: str, version: tuple[int, ...]) -> str:
    """An engine refuses a client that is newer than it."""
    found = VERSIONED.fullmatch(target)
    if found is None or not version:
        return target
    spoken = min(parse_version(found[1]), version)
    return f"/v{spoken[0]}.{spoken[1]}{found[2]}"
