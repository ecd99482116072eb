"""Images of the tenant's local engine, as something to send: written out once, then kept by content."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import IO
from urllib.parse import quote

from dockage.domain.errors import UsageError
from dockage.protocol.images import Layer, Manifest
from dockage.wire.blobs import LIMIT, BlobCache
from dockage.wire.engine import EngineClient
from dockage.wire.split import split


class EngineImages:
    """*engine*: its socket; *cache*: a folder of at most *limit* bytes, which may be emptied at any time."""

    def __init__(self, engine: Path, cache: Path, limit: int = LIMIT) -> None:
        self._engine = engine
        self._client = EngineClient(engine)
        self._cache = BlobCache(cache, limit)
        self._splitting = asyncio.Lock()

    async def manifest(self, reference: str) -> Manifest:
        """The engine is asked to write an image out only the first time. Raises UsageError("image.unknown") or
        Unavailable("engine.unreachable")."""
        answer = await self._client.call("GET", f"/images/{quote(reference, safe='/:@')}/json")
        if not answer.ok:
            why = f"the local engine has no image {reference!r} ({answer.message}); pull or build it first"
            raise UsageError("image.unknown", why)
        key = str(answer.json()["Id"])
        async with self._splitting:
            if known := await asyncio.to_thread(self._cache.manifest, key):
                return known
            manifest = await asyncio.to_thread(split, self._engine, key, self._cache)
            await asyncio.to_thread(self._cache.remember, key, manifest)
            return manifest

    def open(self, layer: Layer) -> IO[bytes]:
        return self._cache.open(layer)

    async def tidy(self) -> None:
        await asyncio.to_thread(self._cache.prune)

    async def close(self) -> None:
        await self._client.close()
