"""Chunks of layers on the wire: zstd level 3, one frame for each MiB, opened without trust.

3 is the measured knee (0.44 s for 124 MB and 6 % smaller than level 1; level 10 takes ten times as long).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import IO

import zstandard

from dockage.domain.errors import PeerError, Unavailable
from dockage.ports.peers import Stream
from dockage.protocol.images import Chunk, Layer, Manifest, Wanted, encode_chunk, expected_chunks

from .frames import write_frame

LEVEL = 3
WRITE_WAIT = 60.0
Sent = Callable[[int], None]
"""Called with the raw bytes of each chunk that was taken over."""


async def send_layers(
    stream: Stream,
    manifest: Manifest,
    wanted: Wanted,
    open_layer: Callable[[Layer], IO[bytes]],
    sent: Sent = lambda _: None,
) -> None:
    """Raises Unavailable; OSError when a layer's file is gone."""
    for want in wanted.layers:
        with open_layer(manifest.layers[want.index]) as file:
            file.seek(want.offset)
            for expected in expected_chunks(manifest, [want]):
                raw = await asyncio.to_thread(file.read, expected.size)
                chunk = await asyncio.to_thread(pack, expected.layer, expected.offset, raw)
                await send_frame(stream, encode_chunk(chunk))
                sent(expected.size)


async def send_frame(stream: Stream, frame: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_WAIT):
            await write_frame(stream, frame)
    except TimeoutError:
        raise Unavailable("image.silence", f"the other side took nothing for {WRITE_WAIT:.0f} s") from None


def pack(layer: int, offset: int, raw: bytes) -> Chunk:
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(raw)
    return Chunk(layer, offset, len(raw), hashlib.sha256(raw).digest(), packed)


def unpack(chunk: Chunk) -> bytes:
    """Raises PeerError("image.corrupt"). The frame's own size is checked first, so that it cannot be a bomb."""
    try:
        if zstandard.frame_content_size(chunk.packed) != chunk.size:
            raise PeerError("image.corrupt", "a chunk's zstd frame has another size than its head says")
        raw = zstandard.ZstdDecompressor(max_window_size=1 << 21).decompress(chunk.packed, chunk.size)
    except zstandard.ZstdError as error:
        raise PeerError("image.corrupt", f"a chunk cannot be decompressed: {error}") from None
    if len(raw) != chunk.size or hashlib.sha256(raw).digest() != chunk.digest:
        raise PeerError("image.corrupt", f"chunk {chunk.layer}@{chunk.offset} does not match its sha256")
    return raw
