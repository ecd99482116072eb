"""The sending end of an image: from the tenant to a lease, or to its deputy. Counterpart: ``wire/arrival.py``.

What was sent before a break is not sent again: the provider says how far each layer got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Protocol

import msgspec

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.protocol.images import Fetched, Layer, Loaded, Manifest, Refused, Source, Wanted
from dockage.wire.chunks import send_frame, send_layers
from dockage.wire.frames import read_frame

OpenStream = Callable[[], Awaitable[Stream]]
"""A new stream that ends in the provider's ``serve_layers`` for the lease."""
Progress = Callable[[int, int], None]
"""(bytes done, bytes to move): raw bytes of the layers that the provider lacks. First call (0, total)."""
FindSources = Callable[[str], Sequence[Source]]
"""Which other providers have this image (``sha256:...``) and may give it."""

ANSWER_WAIT = 900.0
"""Seconds: another image of the same lease may go first, sources may be asked, and the engine unpacks after the last
byte."""


def quiet(_done: int, _total: int) -> None:
    """Nobody watches."""


def nobody(_image: str) -> Sequence[Source]:
    return ()


class Origin(Protocol):
    """Where the tenant's images are: its local engine, or our own store."""

    async def manifest(self, reference: str) -> Manifest:
        """Raises UsageError("image.unknown") or Unavailable."""

    def open(self, layer: Layer) -> IO[bytes]:
        """Raises OSError if it went away since."""

    async def tidy(self) -> None: ...


class ImageSender:
    """One for a daemon."""

    def __init__(self, origin: Origin, to: str = "the provider") -> None:
        """*to*: what people call whoever gets them."""
        self._origin, self._to = origin, to

    async def send(
        self,
        open_stream: OpenStream,
        reference: str,
        progress: Progress = quiet,
        sources: FindSources = nobody,
    ) -> str:
        """The image's id (``sha256:`` of its config) once it is loaded at the provider.

        Raises UsageError("image.*") for a refusal that our user can mend, PeerError for a provider that breaks
        the protocol, Unavailable for a break: sending again goes on where it stopped."""
        manifest = await self._origin.manifest(reference)
        manifest = msgspec.structs.replace(manifest, sources=tuple(sources(manifest.image)))
        stream = await open_stream()
        try:
            loaded = await _Conversation(stream, manifest, self._origin, progress, self._to).run()
        finally:
            stream.abort()
            await self._origin.tidy()
        if loaded.image != manifest.image:
            raise PeerError("image.other", f"{self._to} loaded another image than the one it was sent")
        return loaded.image


class _Conversation:
    def __init__(
        self, stream: Stream, manifest: Manifest, origin: Origin, progress: Progress, to: str
    ) -> None:
        self._stream, self._manifest, self._origin = stream, manifest, origin
        self._progress, self._to = progress, to

    async def run(self) -> Loaded:
        await send_frame(self._stream, images.encode_manifest(self._manifest))
        reply = await self._answer()
        for _ in range(images.ROUNDS):
            if isinstance(reply, Loaded):
                return reply
            if not isinstance(reply, Wanted):
                break
            reply = await self._send(reply)
        if not isinstance(reply, Loaded):
            raise PeerError("image.reply", f"{self._to} answered out of turn")
        return reply

    async def _send(self, wanted: Wanted) -> images.Reply:
        """What the provider says to it. A refusal in the middle must be heard although we are still writing."""
        total = images.check_wanted(self._manifest, wanted)
        self._progress(0, total)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_or_cut(wanted, total))
            reply = await self._outcome()
            sending.cancel()
        if isinstance(reply, DockageError):
            raise reply
        return reply

    async def _outcome(self) -> images.Reply | DockageError:
        """As a value: a task group would wrap it up."""
        try:
            return await self._answer()
        except DockageError as error:
            return error

    async def _send_or_cut(self, wanted: Wanted, total: int) -> None:
        """Ends quietly: whoever waits for the answer learns why."""
        done = 0

        def sent(size: int) -> None:
            nonlocal done
            done += size
            self._progress(done, total)

        try:
            await send_layers(self._stream, self._manifest, wanted, self._origin.open, sent)
        except Unavailable as error:
            if error.code == "image.silence":
                self._stream.abort()  # else the provider's reason may still be there to be read
        except OSError:
            self._stream.abort()  # our cache was emptied meanwhile; the next attempt fills it again

    async def _answer(self) -> images.Reply:
        """The next one that is more than news. Raises UsageError with the provider's own code and words if it
        refused."""
        while isinstance(reply := await self._next(), Fetched):
            self._progress(min(reply.done, reply.total), reply.total)
        if isinstance(reply, Refused):
            raise UsageError(reply.code[:40], f"{self._to} refused the image: {reply.message[:500]}")
        return reply

    async def _next(self) -> images.Reply:
        try:
            async with asyncio.timeout(ANSWER_WAIT):
                return images.decode_reply(await read_frame(self._stream, images.ANSWER_MAX))
        except TimeoutError:
            why = f"{self._to} did not answer for {ANSWER_WAIT:.0f} s"
            raise Unavailable("image.silence", why) from None
        except PeerError as error:
            if error.code != "frame.truncated":
                raise
            why = "the connection broke while the image was sent; send again"
            raise Unavailable("image.broken", why) from None
