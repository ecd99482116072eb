"""The images that a deputy will need are left with it before it is given the mandate that names them.

Counterpart: ``deputising.py`` and ``adapters/images/left.py`` on its side. Only what it lacks travels, and goes on
where it broke off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Stream
from dockage.protocol import mandates, streams
from dockage.protocol.docker.recipe import Recipe
from dockage.protocol.mandates import AskImages, Lacks, Refused
from dockage.wire.frames import write_frame

from .peers import Opener
from .steps import Steps

ASK = 10.0
DIAL = 5.0

Talk = Callable[[NodeKey, mandates.Request, float], Awaitable[mandates.Answer]]
Progress = Callable[[int, int], None]


class Sender(Protocol):
    """``adapters/images/sender.py``."""

    async def send(
        self, open_stream: Callable[[], Awaitable[Stream]], reference: str, progress: Progress, /
    ) -> str:
        """The image's id, once it is there."""


class Leaving:
    def __init__(self, talk: Talk, open_stream: Opener, steps: Steps) -> None:
        self._talk, self._open, self._steps = talk, open_stream, steps
        self.sender: Sender | None = None
        """None until our user's images are at hand."""

    async def leave(self, name: str, deputy: NodeKey, recipe: Recipe) -> None:
        """Returns once *deputy* has all images of *recipe*, the deployment *name*. Raises UsageError with its refusal,
        UsageError("image.unknown" | "recipe.image-changed"), Unavailable."""
        for image in await self._lacked(deputy, recipe):
            try:
                await self._leave(name, deputy, image, recipe.images[image])
            finally:
                self._steps.tell(name, "")

    async def _lacked(self, deputy: NodeKey, recipe: Recipe) -> list[str]:
        digests = tuple(bytes.fromhex(x.removeprefix("sha256:")) for x in recipe.images)
        answer = await self._talk(deputy, AskImages(digests), ASK)
        if isinstance(answer, Refused):
            raise UsageError(answer.code[:40], f"the deputy refused: {answer.message}")
        if not isinstance(answer, Lacks) or not set(answer.images) <= set(digests):
            raise PeerError("mandate.answer", "the deputy answered something else than it was asked")
        return [f"sha256:{x.hex()}" for x in answer.images]

    async def _leave(self, name: str, deputy: NodeKey, image: str, reference: str) -> None:
        """By what it is; an engine that keeps images under another number (the containerd store) is asked by name."""
        try:
            await self._send(name, deputy, image, reference)
        except UsageError as error:
            if error.code != "image.unknown":
                raise
            if await self._send(name, deputy, reference, reference) != image:
                why = f"{reference} is another image now than the one that {name} runs: deploy it again, or tag it"
                raise UsageError("recipe.image-changed", why) from None

    async def _send(self, name: str, deputy: NodeKey, what: str, called: str) -> str:
        async def opened() -> Stream:
            stream = await self._open(deputy, DIAL)
            await write_frame(stream, streams.encode_header(streams.DeputyImage()))
            return stream

        def report(done: int, total: int) -> None:
            if total:  # nothing where it is there already
                line = f"leaving {called} with the deputy: {-(-done >> 20)} of {-(-total >> 20)} MiB"
                self._steps.tell(name, line)

        assert self.sender is not None
        return await self.sender.send(opened, what, report)
