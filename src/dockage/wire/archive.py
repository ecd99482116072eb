"""An archive of images as a stream of bytes; what is in it says ``protocol/image_archive.py``.

Counterpart: ``split.py``, which takes one apart. A layer whose file is not there is left out: the engine has it.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from dockage.protocol.image_archive import Named, blobs, small_files
from dockage.protocol.images import CHUNK, TAR_BLOCK, Layer

Find = Callable[[Layer], Path | None]


async def archive(images: Sequence[Named], find: Find) -> AsyncIterator[bytes]:
    """Small files around the layers: what names a layer comes after it."""
    *first, last = small_files(images)
    for name, content in first:
        yield _head(name, len(content)) + content + _padding(len(content))
    for name, layer in blobs(images).items():
        if (path := find(layer)) is not None:
            async for piece in _file(name, path, layer.size):
                yield piece
    yield _head(last[0], len(last[1])) + last[1] + _padding(len(last[1]))
    yield bytes(2 * TAR_BLOCK)


async def _file(name: str, path: Path, size: int) -> AsyncIterator[bytes]:
    yield _head(name, size)
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        while piece := await asyncio.to_thread(file.read, CHUNK):
            yield piece
    yield _padding(size)


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % TAR_BLOCK)
