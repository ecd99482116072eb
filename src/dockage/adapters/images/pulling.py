"""``docker pull`` where there is no engine: from a registry into our own store, told in an engine's words.

The order is the engine's: which image, what of it is missing, its layers, then its name. Until the name is given
nothing has changed, so a pull that is cut or lied to leaves the old image as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from dockage.domain.errors import PeerError, UsageError
from dockage.ports.renting import Line
from dockage.protocol import registry
from dockage.protocol.images import CONFIG_MAX, config_platform, diff_ids_of
from dockage.protocol.registry import Blob, Credentials, ImageManifest, Platform, Reference

from .downloads import Downloads
from .own import OwnImages
from .registry import Found, Registry

PROGRESS_EVERY = 0.1
"""Seconds."""


class Pulling:
    """Implements ``ports.Puller``."""

    def __init__(self, store: OwnImages, folder: Path, machine: str, certs: Sequence[Path]) -> None:
        """*machine*: what images are pulled for unless the user says (``platform.machine()``); *certs*: as
        ``Registry``'s."""
        self._store, self._downloads, self._certs = store, Downloads(folder), certs
        self._usual = Platform("linux", registry.ARCHITECTURES.get(machine, machine))
        self._turn = asyncio.Lock()
        """One image at a time: several at once would share layers, and the line is one anyway."""

    async def pull(self, name: str, platform: str, credentials: Credentials) -> AsyncGenerator[Line]:
        """Raises UsageError("image.*" | "registry.*"), PeerError for a registry that lies, Unavailable for one
        that does not answer."""
        wanted = registry.reference(name)
        at = registry.platform(platform) if platform else self._usual
        async with Registry(wanted, credentials, self._certs) as source:
            top, image = await _resolve(source, at)
            yield {"status": f"Pulling from {wanted.repository}", "id": wanted.version}
            config = await source.small(image.config, CONFIG_MAX)
            if platform:
                _check_platform(config, at, wanted)
            async with self._turn, aclosing(self._layers(source, config, image)) as lines:
                with self._store.arrivals():
                    async for line in lines:
                        yield line
                    was = self._known(wanted)
                    await self._keep(wanted, top, config)
        yield {"status": f"Digest: {top.digest}"}
        fresh = was != image.config.digest
        said = "Downloaded newer image for" if fresh else "Image is up to date for"
        yield {"status": f"Status: {said} {wanted}"}

    async def login(self, credentials: Credentials) -> None:
        """Raises UsageError("registry.denied") or Unavailable."""
        host = credentials.serveraddress.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if host in ("", "index.docker.io", registry.HUB):
            host = registry.HUB
        async with Registry(Reference(f"{host}/login", "latest"), credentials, self._certs) as source:
            await source.login()

    # -- within ------------------------------------------------------------------------------------
    async def _layers(self, source: Registry, config: bytes, image: ImageManifest) -> AsyncGenerator[Line]:
        """Each into the store, raw."""
        diff_ids = diff_ids_of(config)
        if len(diff_ids) != len(image.layers):
            raise PeerError(
                "registry.manifest", "the registry's config and manifest name different numbers of layers"
            )
        pairs = dict(zip(diff_ids, image.layers, strict=True))
        missing = {diff: blob for diff, blob in pairs.items() if not self._store.expects(diff)}
        self._downloads.retain(missing.values())
        self._store.check_room(sum(blob.size for blob in missing.values()))
        for diff, blob in pairs.items():
            yield _step("Pulling fs layer" if diff in missing else "Already exists", blob)
        for blob in missing.values():
            async for line in self._download(source, blob):
                yield line
        for diff, blob in missing.items():
            yield _step("Extracting", blob, blob.size)
            await self._store.unpack(diff, self._downloads.path(blob))
            yield _step("Pull complete", blob)
        self._downloads.retain(())

    async def _download(self, source: Registry, blob: Blob) -> AsyncGenerator[Line]:
        loop, said = asyncio.get_running_loop(), 0.0
        async with aclosing(self._downloads.fetch(source, blob)) as parts:
            async for here in parts:
                if loop.time() - said >= PROGRESS_EVERY:
                    said = loop.time()
                    yield _step("Downloading", blob, here)
        yield _step("Download complete", blob)

    def _known(self, wanted: Reference) -> str:
        try:
            return self._store.find(str(wanted)).manifest.image
        except UsageError:
            return ""

    async def _keep(self, wanted: Reference, top: Found, config: bytes) -> None:
        tags = () if wanted.is_digest else (str(wanted),)
        await self._store.arrived(config, tags, f"{wanted.name}@{top.digest}")


async def _resolve(source: Registry, at: Platform) -> tuple[Found, ImageManifest]:
    """What the name means, and the image of it for *at*."""
    top = await source.manifest()
    found = registry.parse_manifest(top.body)
    if not isinstance(found, ImageManifest):
        chosen = registry.for_platform(found, at)
        found = registry.parse_manifest((await source.manifest(chosen.digest)).body)
    if not isinstance(found, ImageManifest):
        raise PeerError(
            "registry.manifest", "the registry's index leads to another index and not to an image"
        )
    return top, found


def _check_platform(config: bytes, at: Platform, wanted: Reference) -> None:
    found = config_platform(config)
    if found != at[:2]:
        why = f"image with reference {wanted} was found but does not match the specified platform"
        raise UsageError("image.platform", f"{why}: wanted {at}, actual: {'/'.join(found)}")


def _step(status: str, blob: Blob, current: int = 0) -> Line:
    detail = {"current": current, "total": blob.size} if current else {}
    return {"status": status, "progressDetail": detail, "id": blob.short}
