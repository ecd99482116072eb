"""A registry for one image and one pull, on the loopback: for an engine that does not take ``docker load``.

Engines allow plain HTTP on 127.0.0.0/8. The name holds a secret, so that no other user of the machine can pull; it is
gone when the pull has ended. OCI distribution-spec v1.1, the pull side.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dockage.domain.errors import PeerError, Unavailable
from dockage.protocol.image_archive import OCI, oci_manifest, sha256
from dockage.protocol.images import CHUNK, Manifest
from dockage.wire.archive import Find
from dockage.wire.frames import PIECE
from dockage.wire.http import HttpServer, Request, error_response
from dockage.wire.splice import SocketStream

IDLE = 60.0
_VERSION = ("docker-distribution-api-version", "registry/2.0")


@asynccontextmanager
async def registry(image: Manifest, find: Find) -> AsyncIterator[str]:
    """What to pull, as ``127.0.0.1:port/name:tag``, while the block runs."""
    shelf = _Shelf(image, find)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await shelf.serve(SocketStream(reader, writer))
        except asyncio.CancelledError:
            pass  # the pull is over; start_server would log it as a failure
        finally:
            serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=PIECE)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}/{shelf.name}:image"
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class _Shelf:
    def __init__(self, image: Manifest, find: Find) -> None:
        self.name = f"dockage/{secrets.token_hex(16)}"
        self._manifest = oci_manifest(image)
        self._small = {image.image: image.config, sha256(self._manifest): self._manifest}
        self._layers = dict(zip(image.diff_ids, image.layers, strict=True))
        self._find = find

    async def serve(self, stream: SocketStream) -> None:
        server = HttpServer(stream)
        try:
            while request := await self._next(server):
                await self._answer(server, request)
        except (PeerError, Unavailable, TimeoutError):
            pass
        finally:
            stream.abort()

    async def _next(self, server: HttpServer) -> Request | None:
        try:
            async with asyncio.timeout(IDLE):
                return await server.read_request()
        except PeerError as error:  # such as a TLS hello, after which the engine tries plain HTTP
            await error_response(server, 400, error.message)
            return None

    async def _answer(self, server: HttpServer, request: Request) -> None:
        path = request.target.partition("?")[0]
        what, _, which = path.removeprefix(f"/v2/{self.name}/").partition("/")
        if request.method not in ("GET", "HEAD"):
            await error_response(server, 405, "this registry only gives")
        elif path == "/v2/":
            await server.answer(200, [_VERSION], b"{}")
        elif what == "manifests" and which in ("image", sha256(self._manifest)):
            await self._give(server, self._manifest, f"{OCI}.manifest.v1+json")
        elif what == "blobs" and which in self._small:
            await self._give(server, self._small[which], "application/octet-stream")
        elif what == "blobs" and which in self._layers and (file := self._find(self._layers[which])):
            await _give_file(server, file, self._layers[which].size, which)
        else:
            await error_response(server, 404, "not here")

    async def _give(self, server: HttpServer, content: bytes, kind: str) -> None:
        await server.answer(200, _headers(kind, sha256(content)), content)


async def _give_file(server: HttpServer, path: Path, size: int, digest: str) -> None:
    length = ("content-length", str(size))
    await server.respond(200, [*_headers("application/octet-stream", digest), length])
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK):
            await server.send(piece)
    await server.end()


def _headers(kind: str, digest: str) -> list[tuple[str, str]]:
    return [_VERSION, ("content-type", kind), ("docker-content-digest", digest)]
