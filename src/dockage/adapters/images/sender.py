"""The sending end of an image: from the tenant's local engine to a lease. Counterpart: ``adapters/host/layers.py``.

What was sent before a break is not sent again: the provider says how far each layer got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.ports import Stream
from dockage.protocol import images
from dockage.protocol.images import Loaded, Manifest, Refused, Wanted
from dockage.wire.chunks import pack
from dockage.wire.engine import EngineClient
from dockage.wire.frames import read_frame, write_frame

from .cache import LIMIT, BlobCache
from .split import split

OpenStream = Callable[[], Awaitable[Stream]]
"""A new stream that ends in the provider's ``serve_layers`` for the lease."""
Progress = Callable[[int, int], None]
"""(bytes done, bytes to send): raw bytes of the layers that the provider lacks. First call (0, total)."""

ANSWER_WAIT = 900.0
"""Seconds: another image of the same lease may go first, and the engine unpacks after the last byte."""
WRITE_WAIT = 60.0


def quiet(_done: int, _total: int) -> None:
    """Nobody watches."""


class ImageSender:
    """One for a daemon: *engine* is the local engine's socket, *cache* a folder of at most *limit* bytes."""

    def __init__(self, engine: Path, cache: Path, limit: int = LIMIT) -> None:
        self._engine = engine
        self._client = EngineClient(engine)
        self._cache = BlobCache(cache, limit)
        self._splitting = asyncio.Lock()

    async def close(self) -> None:
        await self._client.close()

    async def manifest(self, reference: str) -> Manifest:
        """What of *reference* would travel; the engine is asked to write an image out only the first time.
        Raises UsageError("image.unknown") or Unavailable("engine.unreachable")."""
        answer = await self._client.call("GET", f"/images/{reference}/json")
        if not answer.ok:
            why = f"the local engine has no image {reference!r} ({answer.message}); pull or build it first"
            raise UsageError("image.unknown", why)
        key = str(answer.json()["Id"])
        async with self._splitting:
            if known := await asyncio.to_thread(self._cache.manifest, key):
                return known
            manifest = await asyncio.to_thread(split, self._engine, key, self._cache)
            await asyncio.to_thread(self._cache.remember, key, manifest)
            return manifest

    async def send(self, open_stream: OpenStream, reference: str, progress: Progress = quiet) -> str:
        """The image's id at the provider (``sha256:`` of its config) once it is loaded there.

        Raises UsageError("image.*") for a refusal that our user can mend, PeerError for a provider that breaks
        the protocol, Unavailable for a break: sending again goes on where it stopped."""
        manifest = await self.manifest(reference)
        stream = await open_stream()
        try:
            loaded = await _converse(stream, manifest, self._cache, progress)
        finally:
            stream.abort()
            await asyncio.to_thread(self._cache.prune)
        if loaded.image != manifest.image:
            raise PeerError("image.other", "the provider loaded another image than the one it was sent")
        return loaded.image


async def _converse(stream: Stream, manifest: Manifest, cache: BlobCache, progress: Progress) -> Loaded:
    await _write(stream, images.encode_manifest(manifest))
    wanted = await _answer(stream)
    if not isinstance(wanted, Wanted):
        raise PeerError("image.reply", "the provider answered out of turn")
    total = images.check_wanted(manifest, wanted)
    progress(0, total)
    async with (
        asyncio.TaskGroup() as tasks
    ):  # a refusal in the middle must be heard although we are still writing
        sending = tasks.create_task(_send_or_cut(stream, manifest, wanted, cache, progress, total))
        reply = await _outcome(stream)
        sending.cancel()
    if isinstance(reply, DockageError):
        raise reply
    if not isinstance(reply, Loaded):
        raise PeerError("image.reply", "the provider answered out of turn")
    return reply


async def _outcome(stream: Stream) -> images.Reply | DockageError:
    """As a value: a task group would wrap it up."""
    try:
        return await _answer(stream)
    except DockageError as error:
        return error


async def _send_or_cut(
    stream: Stream, manifest: Manifest, wanted: Wanted, cache: BlobCache, progress: Progress, total: int
) -> None:
    """Ends quietly: whoever waits for the answer learns why."""
    try:
        await _send_layers(stream, manifest, wanted, cache, progress, total)
    except Unavailable as error:
        if error.code == "image.silence":
            stream.abort()  # else the provider's reason may still be there to be read
    except OSError:
        stream.abort()  # our cache was emptied meanwhile; the next attempt fills it again


async def _send_layers(
    stream: Stream, manifest: Manifest, wanted: Wanted, cache: BlobCache, progress: Progress, total: int
) -> None:
    done = 0
    for want in wanted.layers:
        with cache.open(manifest.layers[want.index]) as file:
            file.seek(want.offset)
            for expected in images.expected_chunks(manifest, [want]):
                raw = await asyncio.to_thread(file.read, expected.size)
                chunk = await asyncio.to_thread(pack, expected.layer, expected.offset, raw)
                await _write(stream, images.encode_chunk(chunk))
                done += expected.size
                progress(done, total)
    await stream.finish()


async def _write(stream: Stream, frame: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_WAIT):
            await write_frame(stream, frame)
    except TimeoutError:
        raise Unavailable("image.silence", f"the provider took nothing for {WRITE_WAIT:.0f} s") from None


async def _answer(stream: Stream) -> images.Reply:
    """Raises UsageError with the provider's own code and words if it refused."""
    try:
        async with asyncio.timeout(ANSWER_WAIT):
            reply = images.decode_reply(await read_frame(stream, images.ANSWER_MAX))
    except TimeoutError:
        raise Unavailable("image.silence", f"the provider did not answer for {ANSWER_WAIT:.0f} s") from None
    except PeerError as error:
        if error.code == "frame.truncated":
            raise Unavailable(
                "image.broken", "the connection broke while the image was sent; send again"
            ) from None
        raise
    if isinstance(reply, Refused):
        raise UsageError(reply.code[:40], f"the provider refused the image: {reply.message[:500]}")
    return reply
