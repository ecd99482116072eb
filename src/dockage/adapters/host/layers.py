"""The receiving end of an image: asks for what is missing, checks every byte, hands it to the engine.

Counterpart: ``adapters/images/sender.py``; the conversation is ``protocol/images.py``. Beside it: ``sources.py``
(layers from other providers) and ``intake.py`` (the engine).
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import OpenSource
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Fetched, Loaded, Manifest, Refused, Want, Wanted
from dockage.wire.chunks import unpack
from dockage.wire.frames import read_frame, write_frame

from .blobs import Blobs, Growing
from .intake import EngineImages
from .ledger import Ledger, replace_file
from .sources import fetch

FRAME_MAX_WAIT = 60.0
LINGER = 5.0
COPIES = 3
"""An arriving layer lies on the disk up to three times: our blob, the engine's own copy, the unpacked files."""


class LayerReceiver:
    def __init__(self, engine: EngineImages, ledger: Ledger) -> None:
        self._engine, self._ledger = engine, ledger

    async def receive(self, lease: LeaseId, stream: Stream, open_source: OpenSource | None) -> None:
        """Every end is told to the sender. Raises only PeerError, for the daemon to count."""
        try:
            await self._say(stream, Loaded(await self._receive(lease, stream, open_source)))
        except PeerError as error:
            await self._refuse(stream, error)
            raise
        except (UsageError, Unavailable) as error:
            await self._refuse(stream, error)
        finally:
            await _linger(stream)

    async def _receive(self, lease: LeaseId, stream: Stream, open_source: OpenSource | None) -> str:
        manifest = images.decode_manifest(await _frame(stream, images.MANIFEST_MAX))
        folder = self._ledger.folder(lease)
        blobs = Blobs(folder / "layers")

        async def fill(known: int) -> None:
            wanted = await self._fetched(lease, stream, manifest, blobs, known, open_source)
            await self._say(stream, Wanted(wanted))
            await self._take(stream, blobs, manifest, wanted)

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
            await self._say(stream, Fetched(done, total))

        await fetch(open_source, manifest, wanted, blobs, report)
        return images.wanted_layers(manifest, known, await asyncio.to_thread(blobs.held, manifest))

    async def _take(self, stream: Stream, blobs: Blobs, manifest: Manifest, wanted: tuple[Want, ...]) -> None:
        for want in wanted:
            layer = await asyncio.to_thread(blobs.open, manifest.layers[want.index])
            try:
                for expected in images.expected_chunks(manifest, [want]):
                    chunk = images.decode_chunk(await _frame(stream, images.CHUNK_FRAME_MAX))
                    images.check_chunk(chunk, expected)
                    await asyncio.to_thread(_append, layer, chunk)
                layer.seal()
            finally:
                layer.close()

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

    # -- the conversation --------------------------------------------------------------------------
    async def _say(self, stream: Stream, reply: images.Reply) -> None:
        async with asyncio.timeout(FRAME_MAX_WAIT):
            await write_frame(stream, images.encode_reply(reply))

    async def _refuse(self, stream: Stream, error: DockageError) -> None:
        try:
            await self._say(stream, Refused(error.code, error.message))
        except (Unavailable, TimeoutError):
            pass  # it broke: nobody is there to be told


def _append(layer: Growing, chunk: images.Chunk) -> None:
    layer.append(unpack(chunk))


async def _frame(stream: Stream, limit: int) -> bytes:
    try:
        async with asyncio.timeout(FRAME_MAX_WAIT):
            return await read_frame(stream, limit)
    except TimeoutError:
        raise Unavailable("image.silence", f"the sender was silent for {FRAME_MAX_WAIT:.0f} s") from None


async def _linger(stream: Stream) -> None:
    """Closing with unread bytes would cut off our last answer, so read the rest for a moment."""
    try:
        async with asyncio.timeout(LINGER):
            await stream.finish()
            while await stream.read(images.CHUNK):
                pass
    except (Unavailable, TimeoutError):
        pass
    finally:
        stream.abort()


def _remembered(folder: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / "images.json").read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _remember(folder: Path, manifest: Manifest) -> None:
    layers = _remembered(folder) | {each.digest.hex(): each.size for each in manifest.layers}
    replace_file(folder / "images.json", msgspec.json.encode(layers))
