"""The receiving end of an image for a lease: asks for what is missing and hands it to the engine.

Counterpart: ``adapters/images/sender.py``; the conversation is ``wire/arrival.py``. Beside it: ``sources.py``
(layers from other providers) and ``intake.py`` (the engine).
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import OpenSource
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Fetched, Manifest, Want
from dockage.wire import arrival
from dockage.wire.growing import Blobs

from .intake import EngineImages
from .ledger import Ledger, replace_file
from .sources import fetch

COPIES = 3
"""An arriving layer lies on the disk up to three times: our blob, the engine's own copy, the unpacked files."""


class LayerReceiver:
    def __init__(self, engine: EngineImages, ledger: Ledger) -> None:
        self._engine, self._ledger = engine, ledger

    async def receive(self, lease: LeaseId, stream: Stream, open_source: OpenSource | None) -> None:
        """As ``arrival.answered``."""
        await arrival.answered(stream, self._receive(lease, stream, open_source))

    async def _receive(self, lease: LeaseId, stream: Stream, open_source: OpenSource | None) -> str:
        manifest = await arrival.manifest(stream)
        folder = self._ledger.folder(lease)
        blobs = Blobs(folder / "layers")

        async def fill(known: int) -> None:
            wanted = await self._fetched(lease, stream, manifest, blobs, known, open_source)
            await arrival.take(stream, blobs, manifest, wanted)

        known = images.known_prefix(manifest.diff_ids, await self._engine.known_chains(lease))
        await fill(known)
        try:
            await self._engine.take(lease, manifest, blobs.path)
        except Unavailable:
            if not known:
                raise
            await fill(0)  # the engine had less than it showed
            await self._engine.take(lease, manifest, blobs.path)
        _remember(folder, manifest)
        await asyncio.to_thread(blobs.drop, manifest)
        return manifest.image

    async def _fetched(
        self,
        lease: LeaseId,
        stream: Stream,
        manifest: Manifest,
        blobs: Blobs,
        known: int,
        open_source: OpenSource | None,
    ) -> tuple[Want, ...]:
        """What the tenant has to send of the layers above the *known* lowest ones, after its sources were asked."""
        wanted = images.wanted_layers(manifest, known, await asyncio.to_thread(blobs.held, manifest))
        self._check_room(lease, manifest, wanted)
        if open_source is None or not manifest.sources or not wanted:
            return wanted

        async def report(done: int, total: int) -> None:
            await arrival.say(stream, Fetched(done, total))

        await fetch(open_source, manifest, wanted, blobs, report)
        return images.wanted_layers(manifest, known, await asyncio.to_thread(blobs.held, manifest))

    def _check_room(self, lease: LeaseId, manifest: Manifest, wanted: tuple[Want, ...]) -> None:
        """Distinct layers of all the lease's images stay inside its disk, and the machine's disk has room."""
        limit = self._ledger.limits(lease).disk_bytes
        layers = _remembered(self._ledger.folder(lease)) | {
            each.digest.hex(): each.size for each in manifest.layers
        }
        if sum(layers.values()) > limit:
            why = f"its images would take {sum(layers.values())} bytes of the lease's {limit}; ask for a larger disk"
            raise UsageError("image.space", f"{manifest.image[:19]} does not fit: {why}")
        missing = sum(manifest.layers[want.index].size - want.offset for want in wanted)
        if shutil.disk_usage(self._ledger.folder(lease)).free < missing * COPIES:
            raise Unavailable("image.full", "the provider's disk is full; take another provider")


def _remembered(folder: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / "images.json").read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _remember(folder: Path, manifest: Manifest) -> None:
    layers = _remembered(folder) | {each.digest.hex(): each.size for each in manifest.layers}
    replace_file(folder / "images.json", msgspec.json.encode(layers))
