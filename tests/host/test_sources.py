"""Layers from other providers, whatever they do: each lie costs the source its turn, is told, and leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from structlog.testing import CapturingLogger

from dockage.adapters.host import sources
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import CHUNK, Layer, Manifest, Source, Wanted
from dockage.wire.chunks import pack, send_layers
from dockage.wire.frames import read_frame, write_frame
from dockage.wire.growing import Blobs
from hostlab import stream_pair

RAW = [Random(1).randbytes(CHUNK + 512), Random(2).randbytes(2048)]
LAYERS = tuple(Layer(hashlib.sha256(raw).digest(), len(raw)) for raw in RAW)
CONFIG = {"rootfs": {"diff_ids": ["sha256:" + layer.digest.hex() for layer in LAYERS]}}
Serve = Callable[[Stream, Wanted], Awaitable[None]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the honest one: its layers as files."""
    for layer, raw in zip(LAYERS, RAW, strict=True):
        (tmp_path / layer.digest.hex()).write_bytes(raw)
    return tmp_path


def chunk(layer: int, offset: int, raw: bytes) -> bytes:
    return images.encode_chunk(pack(layer, offset, raw))


def says(*frames: bytes) -> Serve:
    async def serve(stream: Stream, wanted: Wanted) -> None:
        for frame in frames:
            await write_frame(stream, frame)
        await stream.finish()

    return serve


async def stalls(stream: Stream, wanted: Wanted) -> None:
    await write_frame(stream, chunk(0, 0, RAW[0][:CHUNK]))
    await asyncio.sleep(60)


async def too_long_a_frame(stream: Stream, wanted: Wanted) -> None:
    await stream.write((images.CHUNK_FRAME_MAX + 1).to_bytes(4, "big") + bytes(1024))
    await stream.finish()


FIRST, REST = chunk(0, 0, RAW[0][:CHUNK]), chunk(0, CHUNK, RAW[0][CHUNK:])
LIES: dict[str, tuple[Serve, str]] = {
    "wrong bytes": (says(chunk(0, 0, bytes(CHUNK)), REST), "does not match its sha256"),
    "a chunk that is not what its own hash says": (says(FIRST[:-9] + bytes(9)), "chunk"),
    "a chunk too many": (says(FIRST, chunk(0, CHUNK, bytes(CHUNK))), "came instead of"),
    "another layer": (says(chunk(1, 0, RAW[1])), "came instead of"),
    "the second before the first": (says(REST, FIRST), "came instead of"),
    "nothing": (says(), "ended the stream"),
    "less": (says(FIRST), "ended the stream"),
    "noise": (says(b"noise"), "longer than its head"),
    "a frame without end": (too_long_a_frame, "the limit is"),
    "a stall": (stalls, "too slow"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_source_that_lies_is_left_for_the_next_and_the_reason_is_told(
    folder: Path, tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lie == "a stall":  # nobody else is to be short of time
        monkeypatch.setattr(sources, "CHUNK_WAIT", 0.2)
    log = CapturingLogger()
    monkeypatch.setattr(sources, "log", log)
    manifest = Manifest(json.dumps(CONFIG).encode(), LAYERS)
    serve, why = LIES[lie]
    names, blobs, told = (
        iter((serve, honest(folder, manifest))),
        Blobs(tmp_path / "blobs"),
        list[tuple[int, int]](),
    )
    wanted = images.wanted_layers(manifest, 0, blobs.held(manifest))

    async def report(done: int, total: int) -> None:
        told.append((done, total))

    async with asyncio.TaskGroup() as tasks:
        serving = list[asyncio.Task[None]]()

        async def open_source(source: Source) -> Stream:
            ours, theirs = await stream_pair()
            serving.append(tasks.create_task(served(next(names), theirs)))
            return ours

        two = tuple(Source(NodeKey(bytes([n]) * 32), LeaseId(bytes(16)), b"") for n in (1, 2))
        given = Manifest(manifest.config, LAYERS, two)
        await sources.fetch(open_source, given, wanted, blobs, report)
        for task in serving:
            task.cancel()
    [dropped] = log.calls
    assert (dropped.args, dropped.kwargs["provider"]) == (("source.dropped",), bytes([1] * 4).hex())
    assert why in dropped.kwargs["why"]
    assert [blobs.path(layer).read_bytes() for layer in LAYERS] == RAW  # type: ignore[union-attr]
    assert sorted(path.suffix for path in (tmp_path / "blobs").iterdir()) == [".tar", ".tar"]
    total = sum(map(len, RAW))
    assert told == [(len(RAW[0]), total), (total, total)]


def honest(folder: Path, manifest: Manifest) -> Serve:
    async def serve(stream: Stream, wanted: Wanted) -> None:
        await send_layers(stream, manifest, wanted, lambda layer: (folder / layer.digest.hex()).open("rb"))

    return serve


async def served(serve: Serve, stream: Stream) -> None:
    try:
        wanted = images.decode_reply(await read_frame(stream, 1 << 16))
        assert isinstance(wanted, Wanted)
        await serve(stream, wanted)
    except Unavailable:
        pass  # the other side left in the middle, as it should
    finally:
        stream.abort()


def test_what_travels_is_zstd() -> None:
    """(RFC 8878: a frame begins with this number.)"""
    text = b"the same line again and again\n" * 30_000
    packed = pack(0, 0, text[:CHUNK]).packed
    assert packed[:4] == b"\x28\xb5\x2f\xfd"
    assert len(packed) < len(text) // 100
