"""The tenant's images where there is no local engine: loaded from archives, kept by content, sent to leases.

The index says what is kept; a layer that it does not name is rubbish of a crash and goes at the next change. The whole
has a limit: what does not fit is refused, never something else dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import IO, cast

import msgspec

from dockage.domain.errors import UsageError
from dockage.domain.units import Instant
from dockage.ports.machine import Clock
from dockage.ports.renting import StoredImage
from dockage.protocol.image_archive import Named
from dockage.protocol.image_names import familiar, id_prefix
from dockage.protocol.images import Layer, Manifest, decode_manifest, encode_manifest
from dockage.wire.archive import archive
from dockage.wire.blobs import LIMIT, BlobCache
from dockage.wire.split import split_archive


class _Row(msgspec.Struct, frozen=True, array_like=True):
    manifest: bytes
    tags: tuple[str, ...]
    since: int


class OwnImages:
    """Implements ``ports.ImageStore`` and is an ``Origin`` for the sender. Used in one event loop."""

    def __init__(self, folder: Path, clock: Clock, limit: int = LIMIT) -> None:
        self._index, self._clock = folder / "index", clock
        self._blobs = BlobCache(folder / "layers", limit, keep=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._images = self._read()
        self._lock = asyncio.Lock()

    # -- Origin ------------------------------------------------------------------------------------
    async def manifest(self, reference: str) -> Manifest:
        return self.find(reference).manifest

    def open(self, layer: Layer) -> IO[bytes]:
        return self._blobs.open(layer)

    async def tidy(self) -> None:
        """Nothing is here for a time only."""

    # -- ImageStore --------------------------------------------------------------------------------
    def all(self) -> Sequence[StoredImage]:
        return sorted(self._images.values(), key=lambda each: -each.since)

    def find(self, reference: str) -> StoredImage:
        prefix = id_prefix(reference)
        found = [x for x in self._images.values() if _has_name(x, reference)]
        if not found and prefix:
            found = [x for id_, x in self._images.items() if id_[7:].startswith(prefix)]
        if not found:
            why = f"there is no image {reference[:200]!r} here; bring it in with 'docker load -i image.tar'"
            raise UsageError("image.unknown", why)
        if len(found) > 1:
            raise UsageError("image.ambiguous", f"several images have ids that begin with {reference[:64]}")
        return found[0]

    async def load(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        async with self._lock:
            source = cast(IO[bytes], _Feed(archive, asyncio.get_running_loop()))
            try:
                found = await asyncio.to_thread(split_archive, source, self._blobs)
                for named in found:
                    self._keep(named)
            finally:
                await self._write()
        return [name for named in found for name in named.tags or (named.manifest.image,)]

    def has(self, layer: Layer) -> bool:
        return self._blobs.has(layer)

    async def adopt(self, manifest: Manifest, find: Callable[[Layer], Path | None]) -> None:
        """An image without a name, whose layers arrived one by one and hashed right; *find* knows those that are not
        here."""
        async with self._lock:
            for layer in manifest.layers:
                if (arrived := find(layer)) is not None:
                    await asyncio.to_thread(self._blobs.take, layer, arrived)
            self._keep(Named(manifest))
            await self._write()

    async def retain(self, images: Collection[str], since: Instant) -> None:
        """Only these stay, and what has come *since*."""
        async with self._lock:
            kept = {id_: x for id_, x in self._images.items() if id_ in images or x.since >= since}
            if kept.keys() != self._images.keys():
                self._images = kept
                await self._write()

    async def tag(self, reference: str, name: str) -> None:
        async with self._lock:
            self._name(self.find(reference).manifest.image, familiar(name))
            await self._write()

    async def remove(self, reference: str, force: bool) -> tuple[Sequence[str], Sequence[str]]:
        async with self._lock:
            image = self.find(reference)
            named = [familiar(reference)] if _has_name(image, reference) else list(image.tags)
            if len(named) > 1 and not force:
                why = f"unable to delete {image.manifest.image[7:19]} (must be forced): it has several names"
                raise UsageError("image.conflict", f"conflict: {why}")
            left = tuple(tag for tag in image.tags if tag not in named)
            self._images[image.manifest.image] = image._replace(tags=left)
            if not left:
                del self._images[image.manifest.image]
            await self._write()
        return named, [] if left else [image.manifest.image]

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        return archive([self._saved(each) for each in references], self._blobs.path)

    # -- within ------------------------------------------------------------------------------------
    def _saved(self, reference: str) -> Named:
        """By name it comes with that name, by id with all of them, as in Docker."""
        image = self.find(reference)
        named = (familiar(reference),) if _has_name(image, reference) else image.tags
        return Named(image.manifest, named)

    def _keep(self, named: Named) -> None:
        image = named.manifest.image
        self._images.setdefault(image, StoredImage(named.manifest, (), self._clock.now()))
        for name in named.tags:
            self._name(image, familiar(name))

    def _name(self, image: str, name: str) -> None:
        """A name is of one image: it leaves the one that had it, which stays under its id."""
        for id_, other in self._images.items():
            if name in other.tags and id_ != image:
                self._images[id_] = other._replace(tags=tuple(tag for tag in other.tags if tag != name))
        mine = self._images[image]
        tags = mine.tags if name in mine.tags else (*mine.tags, name)
        self._images[image] = mine._replace(tags=tags, since=self._clock.now())

    def _read(self) -> dict[str, StoredImage]:
        with contextlib.suppress(FileNotFoundError):
            rows = msgspec.msgpack.decode(self._index.read_bytes(), type=list[_Row])
            stored = [
                StoredImage(decode_manifest(row.manifest), row.tags, Instant(row.since)) for row in rows
            ]
            return {each.manifest.image: each for each in stored}
        return {}

    async def _write(self) -> None:
        rows = [_Row(encode_manifest(x.manifest), x.tags, x.since) for x in self._images.values()]
        layers = {layer.digest for x in self._images.values() for layer in x.manifest.layers}
        await asyncio.to_thread(self._commit, msgspec.msgpack.encode(rows), layers)

    def _commit(self, index: bytes, layers: set[bytes]) -> None:
        """The index first: until then every layer that the old one names must be there."""
        fresh = self._index.with_suffix(".new")
        fresh.write_bytes(index)
        fresh.replace(self._index)
        self._blobs.retain(layers)


def _has_name(image: StoredImage, reference: str) -> bool:
    try:
        return familiar(reference) in image.tags
    except UsageError:
        return False


class _Feed:
    """An asynchronous body as the file that a thread reads."""

    def __init__(self, pieces: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces, self._loop, self._rest = pieces, loop, b""

    def read(self, limit: int = 1 << 20) -> bytes:
        if not self._rest:
            self._rest = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")
