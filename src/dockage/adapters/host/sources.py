"""Layers from other providers of the same deployment, before the tenant is asked for them. Counterpart: ``seed.py``.

What a source gives is believed no more than what the tenant gives: a layer counts once its whole hashes right. A source
that lies, breaks or dawdles is dropped, with what it gave of that layer, and the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import structlog

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import short
from dockage.ports.hosting import OpenSource
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Manifest, Source, Want, Wanted
from dockage.wire.chunks import unpack
from dockage.wire.frames import read_frame, write_frame
from dockage.wire.growing import Blobs, Growing

log = structlog.get_logger("dockage.images")

FIRST_WAIT = 120.0
"""Seconds: the source's engine first writes the image out."""
CHUNK_WAIT = 15.0
"""A source slower than 70 kB/s is worse than asking the tenant."""

Report = Callable[[int, int], Awaitable[None]]
"""(raw bytes so far, raw bytes asked for)"""


async def fetch(
    open_source: OpenSource, manifest: Manifest, wanted: Sequence[Want], blobs: Blobs, report: Report
) -> None:
    """As many of *wanted* as the manifest's sources give. Never raises for what they do."""
    total = sum(manifest.layers[each.index].size for each in wanted)
    missing, done = list(wanted), 0
    for source in manifest.sources:
        if not missing:
            return
        try:
            async for index in _from_one(open_source, source, manifest, missing, blobs):
                missing = [each for each in missing if each.index != index]
                done += manifest.layers[index].size
                await report(done, total)
        except (PeerError, Unavailable, TimeoutError) as error:
            why = error.message if isinstance(error, DockageError) else "it is too slow"
            log.info("source.dropped", provider=short(source.provider), why=why)


async def _from_one(
    open_source: OpenSource, source: Source, manifest: Manifest, missing: Sequence[Want], blobs: Blobs
) -> AsyncIterator[int]:
    """The indices of what came whole."""
    stream = await open_source(source)
    try:
        whole = tuple(Want(each.index, 0) for each in missing)
        await write_frame(stream, images.encode_reply(Wanted(whole)))
        wait = FIRST_WAIT
        for want in whole:
            await _layer(stream, manifest, want, blobs, wait)
            wait = CHUNK_WAIT
            yield want.index
    finally:
        stream.abort()


async def _layer(stream: Stream, manifest: Manifest, want: Want, blobs: Blobs, wait: float) -> None:
    """From its beginning, and all or nothing: a part of a liar's must not be gone on with by an honest one."""
    layer = await asyncio.to_thread(blobs.open, manifest.layers[want.index], afresh=True)
    try:
        for expected in images.expected_chunks(manifest, [want]):
            async with asyncio.timeout(wait):
                chunk = images.decode_chunk(await read_frame(stream, images.CHUNK_FRAME_MAX))
            images.check_chunk(chunk, expected)
            await asyncio.to_thread(_append, layer, chunk)
            wait = CHUNK_WAIT
        layer.seal()
    except BaseException:
        layer.forget()
        raise


def _append(layer: Growing, chunk: images.Chunk) -> None:
    layer.append(unpack(chunk))
