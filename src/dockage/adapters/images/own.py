"""The tenant's images where there is no local engine: loaded from archives, kept by content, sent to leases.

The index says what is kept; a layer that it does not name is rubbish of a crash and goes at the next change. The whole
has a limit: what does not fit is refused, never something else dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import msgspec

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import Instant
from dockage.ports.machine import Clock
from dockage.ports.renting import StoredImage
from dockage.protocol.image_archive import Named
from dockage.protocol.image_names import familiar, id_prefix
from dockage.protocol.images import Layer, Manifest, decode_manifest, diff_ids_of, encode_manifest
from dockage.protocol.registry import reference as parse
from dockage.wire.archive import archive
from dockage.wire.blobs import LIMIT, BlobCache
from dockage.wire.split import split_archive, unpacked


class _Row(msgspec.Struct, frozen=True, array_like=True):
    manifest: bytes
    tags: tuple[str, ...]
    since: int
    digests: tuple[str, ...] = ()


class OwnImages:
    """Implements ``ports.ImageStore`` and is an ``Origin`` for the sender. Used in one event loop."""

    def __init__(self, folder: Path, clock: Clock, limit: int = LIMIT) -> None:
        self._index, self._clock = folder / "index", clock
        self._blobs = BlobCache(folder / "layers", limit, keep=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._images = self._read()
        self._lock = asyncio.Lock()
        self._arriving: set[bytes] = set()
        """Layers of images that are being pulled: they stay although nothing names them yet."""

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
            named = [_short(reference)] if _has_name(image, reference) else list(image.tags)
            if len(named) > 1 and not force:
                why = f"unable to delete {image.manifest.image[7:19]} (must be forced): it has several names"
                raise UsageError("image.conflict", f"conflict: {why}")
            left = image._replace(
                tags=tuple(tag for tag in image.tags if tag not in named),
                digests=tuple(one for one in image.digests if one not in named),
            )
            gone = not left.tags and (not left.digests or "@" not in reference)
            if gone:
                named += left.digests
                del self._images[image.manifest.image]
            else:
                self._images[image.manifest.image] = left
            await self._write()
        return named, [image.manifest.image] if gone else []

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        return archive([self._saved(each) for each in references], self._blobs.path)

    # -- for a pull --------------------------------------------------------------------------------
    @contextlib.contextmanager
    def arrivals(self) -> Iterator[None]:
        """Around one pull: what came in vain goes at the next change."""
        try:
            yield
        finally:
            self._arriving.clear()

    def check_room(self, size: int) -> None:
        """Raises UsageError("image.store-full") for what cannot fit."""
        self._blobs.check_room(size)

    def expects(self, diff_id: str) -> bool:
        """Whether the layer is here; if so, it stays while there are ``arrivals``."""
        digest = bytes.fromhex(diff_id[7:])
        if not self._blobs.path(Layer(digest, 0)).exists():
            return False
        self._arriving.add(digest)
        return True

    async def unpack(self, diff_id: str, path: Path) -> None:
        """Raises PeerError("registry.lie") if *path* is not that layer, UsageError("image.store-full")."""
        digest = bytes.fromhex(diff_id[7:])
        async with self._lock:
            try:
                await asyncio.to_thread(unpacked, path, digest, self._blobs)
            except ValueError as error:
                raise PeerError(
                    "registry.lie", f"the registry's image is not what it says: {error}"
                ) from error
            self._arriving.add(digest)

    async def arrived(self, config: bytes, tags: Sequence[str], digest: str) -> None:
        """All layers of *config* are here: now it has names. *digest*: ``repository@sha256:...``."""
        digests = [bytes.fromhex(each[7:]) for each in diff_ids_of(config)]
        async with self._lock:
            layers = tuple(Layer(one, self._blobs.path(Layer(one, 0)).stat().st_size) for one in digests)
            manifest = decode_manifest(
                encode_manifest(Manifest(config, layers))
            )  # what a provider would refuse
            self._keep(Named(manifest, tuple(tags)))
            mine = self._images[manifest.image]
            if digest not in mine.digests:
                self._images[manifest.image] = mine._replace(digests=(*mine.digests, digest))
            await self._write()

    # -- within ------------------------------------------------------------------------------------
    def _saved(self, reference: str) -> Named:
        """By name it comes with that name, by id with all of them, as in Docker."""
        image = self.find(reference)
        by_tag = "@" not in reference and _has_name(image, reference)
        named = (familiar(reference),) if by_tag else image.tags
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
                StoredImage(decode_manifest(row.manifest), row.tags, Instant(row.since), row.digests)
                for row in rows
            ]
            return {each.manifest.image: each for each in stored}
        return {}

    async def _write(self) -> None:
        rows = [_Row(encode_manifest(x.manifest), x.tags, x.since, x.digests) for x in self._images.values()]
        layers = {layer.digest for x in self._images.values() for layer in x.manifest.layers} | self._arriving
        await asyncio.to_thread(self._commit, msgspec.msgpack.encode(rows), layers)

    def _commit(self, index: bytes, layers: set[bytes]) -> None:
        """The index first: until then every layer that the old one names must be there."""
        fresh = self._index.with_suffix(".new")
        fresh.write_bytes(index)
        fresh.replace(self._index)
        self._blobs.retain(layers)


def _has_name(image: StoredImage, reference: str) -> bool:
    try:
        return _short(reference) in (image.digests if "@" in reference else image.tags)
    except UsageError:
        return False


def _short(reference: str) -> str:
    """The form in which names are kept."""
    return str(parse(reference)) if "@" in reference else familiar(reference)


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
