"""The receiving end of an image: asks for what is missing, checks every byte, hands it to the engine.

Counterpart: ``adapters/images/sender.py``; the conversation is ``protocol/images.py``. The engine takes a tar that
lacks the layers which it has already, because it looks for their ChainID first (20.10 to 28.5, measured).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.ports import Stream
from dockage.protocol import images
from dockage.protocol.images import Loaded, Manifest, Refused, Want, Wanted
from dockage.wire.chunks import unpack
from dockage.wire.engine import EngineClient
from dockage.wire.frames import read_frame, write_frame

from .blobs import Blobs, Growing
from .ledger import Ledger, replace_file

FRAME_MAX_WAIT = 60.0
LOAD_MAX = 1800.0
"""Seconds; the engine unpacks about 100 MB/s from a slow disk."""
LINGER = 5.0
COPIES = 3
"""An arriving layer lies on the disk up to three times: our blob, the engine's own copy, the unpacked files."""


class LayerReceiver:
    def __init__(self, client: EngineClient, ledger: Ledger, share: bool = True) -> None:
        self._client, self._ledger, self._share = client, ledger, share
        self._chains: dict[str, tuple[str, ...]] = {}

    async def receive(self, lease: LeaseId, stream: Stream) -> None:
        """Every end is told to the sender. Raises only PeerError, for the daemon to count."""
        try:
            await self._say(stream, Loaded(await self._receive(lease, stream)))
        except PeerError as error:
            await self._refuse(stream, error)
            raise
        except (UsageError, Unavailable) as error:
            await self._refuse(stream, error)
        finally:
            await _linger(stream)

    async def _receive(self, lease: LeaseId, stream: Stream) -> str:
        manifest = images.decode_manifest(await _frame(stream, images.MANIFEST_MAX))
        folder = self._ledger.folder(lease)
        blobs = Blobs(folder / "layers")
        known = images.known_prefix(manifest.diff_ids, await self._known_chains(lease))
        held = await asyncio.to_thread(blobs.held, manifest)
        wanted = images.wanted_layers(manifest, known, held)
        self._check_room(lease, manifest, wanted)
        await self._say(stream, Wanted(wanted))
        await self._take(stream, blobs, manifest, wanted)
        await self._load(lease, manifest, blobs)
        _remember(folder, manifest)
        await asyncio.to_thread(blobs.drop, manifest)
        return manifest.image

    async def _take(self, stream: Stream, blobs: Blobs, manifest: Manifest, wanted: tuple[Want, ...]) -> None:
        for want in wanted:
            layer = await asyncio.to_thread(blobs.open, manifest.layers[want.index])
            try:
                for expected in images.expected_chunks(manifest, [want]):
                    chunk = images.decode_chunk(await _frame(stream, images.CHUNK_FRAME_MAX))
                    images.check_chunk(chunk, expected)
                    await asyncio.to_thread(_append, layer, chunk)
                layer.seal()
            finally:
                layer.close()

    def _check_room(self, lease: LeaseId, manifest: Manifest, wanted: tuple[Want, ...]) -> None:
        """Distinct layers of all the lease's images stay inside its disk, and the machine's disk has room."""
        limit = self._ledger.limits(lease).disk_bytes
        layers = _remembered(self._ledger.folder(lease)) | {
            each.digest.hex(): each.size for each in manifest.layers
        }
        if sum(layers.values()) > limit:
            why = f"its images would take {sum(layers.values())} bytes of the lease's {limit}; ask for a larger disk"
            raise UsageError("image.space", f"{manifest.image[:19]} does not fit: {why}")
        missing = sum(manifest.layers[want.index].size - want.offset for want in wanted)
        if shutil.disk_usage(self._ledger.folder(lease)).free < missing * COPIES:
            raise Unavailable("image.full", "the provider's disk is full; take another provider")

    # -- the engine --------------------------------------------------------------------------------
    async def _known_chains(self, lease: LeaseId) -> list[tuple[str, ...]]:
        """The layers of every image here, bottom first. Only this lease's own, if the provider does not want to
        tell strangers (who would have to know a diffID) what others run."""
        found = await self._client.must(
            "GET", "/images/json", params={"all": "1"} if self._share else _only(lease)
        )
        fresh: dict[str, tuple[str, ...]] = {}
        for each in found or []:
            fresh[each["Id"]] = self._chains.get(each["Id"]) or await self._chain(each["Id"])
        if self._share:
            self._chains = fresh  # an image's layers never change, so only new ones are asked for
        return list(fresh.values())

    async def _chain(self, image: str) -> tuple[str, ...]:
        answer = await self._client.call("GET", f"/images/{image}/json")
        return tuple((answer.json().get("RootFS") or {}).get("Layers") or ()) if answer.ok else ()

    async def _load(self, lease: LeaseId, manifest: Manifest, blobs: Blobs) -> None:
        tag = images.lease_tag(lease, manifest.image)
        answer = await self._client.upload("/images/load?quiet=1", _load_tar(manifest, blobs, tag), LOAD_MAX)
        if not answer.ok or b'"error"' in answer.body:
            self._chains.clear()  # most likely a layer was removed after we had looked
            why = f"the provider's engine did not take the image ({_error(answer.body)}); send it again"
            raise Unavailable("image.load", why)
        loaded = await self._client.must("GET", f"/images/{tag}/json")
        # an engine with the containerd store names an image by its manifest, so there the layers must do
        if loaded["Id"] != manifest.image and tuple(loaded["RootFS"]["Layers"]) != manifest.diff_ids:
            await self._client.call("DELETE", f"/images/{tag}")
            raise Unavailable("image.other", "the provider's engine made another image of it")

    # -- the conversation --------------------------------------------------------------------------
    async def _say(self, stream: Stream, reply: images.Reply) -> None:
        async with asyncio.timeout(FRAME_MAX_WAIT):
            await write_frame(stream, images.encode_reply(reply))

    async def _refuse(self, stream: Stream, error: DockageError) -> None:
        try:
            await self._say(stream, Refused(error.code, error.message))
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


def _only(lease: LeaseId) -> dict[str, str]:
    return {"filters": json.dumps({"reference": [images.lease_repository(lease)]})}


def _error(body: bytes) -> str:
    for line in body.splitlines():
        try:
            said: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict) and ("error" in said or "message" in said):
            return str(said.get("error") or said.get("message"))[:300]
    return body[:300].decode(errors="replace")


async def _load_tar(manifest: Manifest, blobs: Blobs, tag: str) -> AsyncIterator[bytes]:
    """``docker save``'s own format (moby image/tarexport), without the layers that are there."""
    config = manifest.image.removeprefix("sha256:") + ".json"
    names = [f"{layer.digest.hex()}/layer.tar" for layer in manifest.layers]
    yield _entry(config, manifest.config)
    for name, layer in dict(zip(names, manifest.layers, strict=True)).items():
        if (path := blobs.path(layer)) is not None:
            async for piece in _file_entry(name, path, layer.size):
                yield piece
    listing = [{"Config": config, "RepoTags": [tag], "Layers": names}]
    yield _entry("manifest.json", json.dumps(listing).encode())
    yield bytes(2 * images.TAR_BLOCK)


async def _file_entry(name: str, path: Path, size: int) -> AsyncIterator[bytes]:
    yield _head(name, size)
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        while piece := await asyncio.to_thread(file.read, images.CHUNK):
            yield piece
    yield _padding(size)


def _entry(name: str, content: bytes) -> bytes:
    return _head(name, len(content)) + content + _padding(len(content))


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % images.TAR_BLOCK)


def _remembered(folder: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / "images.json").read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _remember(folder: Path, manifest: Manifest) -> None:
    layers = _remembered(folder) | {each.digest.hex(): each.size for each in manifest.layers}
    replace_file(folder / "images.json", msgspec.json.encode(layers))
