"""An image that arrives on a stream: the sender is asked for what is missing, and every byte is checked.

Counterpart: ``adapters/images/sender.py``; the conversation is ``protocol/images.py``. Where the layers go then is the
caller's: into an engine (``adapters/host/layers.py``) or a store (``adapters/images/left.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Loaded, Manifest, Refused, Want, Wanted

from .chunks import unpack
from .frames import read_frame, write_frame
from .growing import Blobs, Growing

FRAME_MAX_WAIT = 60.0
LINGER = 5.0


async def answered(stream: Stream, arriving: Awaitable[str]) -> None:
    """*arriving* is the id of the image once it is in; every end is told to the sender. Raises only PeerError, for the
    daemon to count."""
    try:
        await say(stream, Loaded(await arriving))
    except PeerError as error:
        await _refuse(stream, error)
        raise
    except (UsageError, Unavailable) as error:
        await _refuse(stream, error)
    finally:
        await _linger(stream)


async def manifest(stream: Stream) -> Manifest:
    return images.decode_manifest(await _frame(stream, images.MANIFEST_MAX))


async def take(stream: Stream, blobs: Blobs, its: Manifest, wanted: Sequence[Want]) -> None:
    """Ask for *wanted* and take it in."""
    await say(stream, Wanted(tuple(wanted)))
    for want in wanted:
        layer = await asyncio.to_thread(blobs.open, its.layers[want.index])
        try:
            for expected in images.expected_chunks(its, [want]):
                chunk = images.decode_chunk(await _frame(stream, images.CHUNK_FRAME_MAX))
                images.check_chunk(chunk, expected)
                await asyncio.to_thread(_append, layer, chunk)
            layer.seal()
        finally:
            layer.close()


async def say(stream: Stream, reply: images.Reply) -> None:
    async with asyncio.timeout(FRAME_MAX_WAIT):
        await write_frame(stream, images.encode_reply(reply))


async def _refuse(stream: Stream, error: DockageError) -> None:
    try:
        await say(stream, Refused(error.code, error.message))
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
