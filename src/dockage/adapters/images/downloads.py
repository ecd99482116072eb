"""Layers as a registry has them, on their way into our store: what was had before a cut is not had again.

A folder that may be emptied at any time; a layer leaves it once it is unpacked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from pathlib import Path
from typing import IO

from dockage.domain.errors import Unavailable
from dockage.protocol import registry
from dockage.protocol.registry import Blob

from .registry import Registry

TRIES = 5
"""In a row that bring nothing new, as Docker."""
PAUSE = 1.0


class Downloads:
    def __init__(self, folder: Path, pause: float = PAUSE) -> None:
        self._folder, self._pause = folder, pause

    def path(self, blob: Blob) -> Path:
        return self._folder / blob.digest[7:]

    async def fetch(self, source: Registry, blob: Blob) -> AsyncGenerator[int]:
        """How many bytes are here, again and again, at last all of them, checked. Raises PeerError for bytes that are
        not those, Unavailable once the registry was asked in vain too often."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, vain = self.path(blob), 0
        while (here := _size(path)) < blob.size:
            try:
                async with aclosing(_more(source, blob, path)) as parts:
                    async for here in parts:
                        vain = 0
                        yield here
                if _size(path) < blob.size:
                    raise Unavailable("registry.unreachable", "the registry ended a layer early")
            except Unavailable:
                vain += 1
                if vain == TRIES:
                    raise
                await asyncio.sleep(vain * self._pause)
        await asyncio.to_thread(_check, path, blob)
        yield here

    def retain(self, blobs: Collection[Blob]) -> None:
        """Only what is here of these stays: nobody waits for the rest any more."""
        wanted = {self.path(blob) for blob in blobs}
        for path in self._folder.glob("*"):
            if path not in wanted:
                path.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _more(source: Registry, blob: Blob, path: Path) -> AsyncGenerator[int]:
    async with source.blob(blob, _size(path)) as (begin, pieces):
        with _opened(path, begin) as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
                begin += len(piece)
                yield begin


def _opened(path: Path, begin: int) -> IO[bytes]:
    path.touch()
    file = path.open("r+b")
    file.seek(begin)
    file.truncate()
    return file


def _check(path: Path, blob: Blob) -> None:
    with path.open("rb") as file:
        found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if found != blob.digest or _size(path) != blob.size:
        path.unlink()
        raise registry.lie("layer", found, blob.digest)
