"""Images that linked machines leave with us, their deputy: kept by content, so that they are here once they are gone.

Counterpart: ``daemon/deputies.py``, which leaves them. They have no names and are nobody's to list: our own user's
images are elsewhere. What no mandate names goes after an hour.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.units import HOUR, MIB, Duration, Instant
from dockage.ports.machine import Clock
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Layer, Manifest, Want
from dockage.wire import arrival
from dockage.wire.blobs import LIMIT
from dockage.wire.growing import Blobs

from .own import OwnImages
from .sender import Origin

KEPT = Duration(HOUR)
"""Without a mandate: it is signed only once its images are here."""
SPARE = 1024 * MIB
"""Bytes that the machine's disk keeps free."""


class LeftImages:
    """Implements ``ports.LeftImages``. Used in one event loop."""

    def __init__(self, folder: Path, clock: Clock, limit: int = LIMIT) -> None:
        self._folder, self._clock, self._limit = folder, clock, limit
        self._store, self._blobs = OwnImages(folder, clock, limit), Blobs(folder / "arriving")
        self._turn = asyncio.Lock()
        """One image arrives at a time: who is second waits, and has most of its layers then."""

    def find(self, image: str) -> Manifest | None:
        return next((x.manifest for x in self._store.all() if x.manifest.image == image), None)

    def open(self, layer: Layer) -> IO[bytes] | None:
        return self._store.open(layer) if self._store.has(layer) else None

    def lacks(self, ids: Collection[str]) -> Sequence[str]:
        return [image for image in ids if self.find(image) is None]

    async def receive(self, stream: Stream) -> None:
        await arrival.answered(stream, self._receive(stream))

    async def retain(self, ids: Collection[str]) -> None:
        await self._store.retain(ids, Instant(self._clock.now() - KEPT))

    async def _receive(self, stream: Stream) -> str:
        manifest = replace(await arrival.manifest(stream), sources=())
        async with self._turn:
            held = await asyncio.to_thread(self._blobs.held, manifest)
            here = {x.digest: x.size for x in manifest.layers if self._store.has(x)}
            wanted = images.wanted_layers(manifest, 0, {**held, **here})
            self._check_room(manifest, wanted)
            await arrival.take(stream, self._blobs, manifest, wanted)
            await self._store.adopt(manifest, self._blobs.path)
            await asyncio.to_thread(self._blobs.drop, manifest)
        return manifest.image

    def _check_room(self, manifest: Manifest, wanted: Sequence[Want]) -> None:
        stored = {x.digest: x.size for image in self._store.all() for x in image.manifest.layers}
        total = sum({**stored, **{x.digest: x.size for x in manifest.layers}}.values())
        if total > self._limit:
            why = f"the deputy keeps at most {self._limit // MIB} MiB of images for others, with this one it would be "
            raise UsageError("image.store-full", f"{why}{total // MIB}: remove a deployment's deputy there")
        missing = sum(manifest.layers[want.index].size - want.offset for want in wanted)
        if shutil.disk_usage(self._folder).free < missing + SPARE:
            raise Unavailable(
                "image.full", "the deputy's disk is full: make room there, or take another machine"
            )


class WithLeft:
    """An ``Origin``: by its id what was left here, anything else from *own*."""

    def __init__(self, left: LeftImages, own: Origin) -> None:
        self._left, self._own = left, own

    async def manifest(self, reference: str) -> Manifest:
        if (left := self._left.find(reference)) is not None:
            return left
        return await self._own.manifest(reference)

    def open(self, layer: Layer) -> IO[bytes]:
        return self._left.open(layer) or self._own.open(layer)

    async def tidy(self) -> None:
        await self._own.tidy()
