"""Giving layers of a lease's image to another provider whom the tenant named. Counterpart: ``sources.py``.

The engine holds no raw layers that could be read in place, so the image is written out and taken apart once for each
request, into a folder that goes with it; layers come out of every engine as they went in (tar-split), byte for byte.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import lease_tag
from dockage.wire.blobs import BlobCache
from dockage.wire.chunks import send_layers
from dockage.wire.frames import read_frame
from dockage.wire.split import split

AT_ONCE = 2
"""Each costs the disk an image; who comes third is better off with another source."""
ASK_WAIT = 15.0


class Seeder:
    def __init__(self, engine: Path) -> None:
        self._engine = engine
        self._running = 0

    async def serve(self, lease: LeaseId, image: str, folder: Path, stream: Stream) -> None:
        """Raises PeerError for a question that cannot be, UsageError("image.unknown"), Unavailable."""
        if self._running >= AT_ONCE:
            raise Unavailable(
                "image.busy", "this provider gives layers to others already; take another source"
            )
        self._running += 1
        work = Path(tempfile.mkdtemp(prefix="seed-", dir=folder))
        try:
            await self._give(lease, image, work, stream)
        finally:
            self._running -= 1
            shutil.rmtree(work, ignore_errors=True)

    async def _give(self, lease: LeaseId, image: str, work: Path, stream: Stream) -> None:
        async with asyncio.timeout(ASK_WAIT):
            asked = images.decode_reply(await read_frame(stream, images.ANSWER_MAX))
        if not isinstance(asked, images.Wanted):
            raise UsageError("image.unknown", "a provider that fetches layers says which it wants")
        cache = BlobCache(work)
        manifest = await asyncio.to_thread(split, self._engine, lease_tag(lease, image), cache)
        images.check_wanted(manifest, asked)
        await send_layers(stream, manifest, asked, cache.open)
        await stream.finish()
