"""Images made on the spot, and a wire between a sender and a host that a test may watch, bend and cut."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from dockage.adapters.host import DockerHost
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import OpenSource
from dockage.ports.peers import Stream
from dockage.wire.splice import SocketStream
from hostlab import Lab, stream_pair


def layer(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def load(lab: Lab, folder: Path, name: str, *layers: bytes) -> None:
    """An image of these layers into the engine."""
    diff_ids = [hashlib.sha256(each).hexdigest() for each in layers]
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{each}" for each in diff_ids]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}).encode()
    listing = [{"Config": "c.json", "RepoTags": [name], "Layers": [f"{each}/layer.tar" for each in diff_ids]}]
    files = {"c.json": config, "manifest.json": json.dumps(listing).encode()}
    files |= {f"{digest}/layer.tar": each for digest, each in zip(diff_ids, layers, strict=True)}
    path = folder / "image.tar"
    with tarfile.open(path, "w") as tar:
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    lab.docker("load", "-i", str(path))


class Wire:
    """Streams that end in the host's ``serve_layers``; what the sender writes can be watched and changed."""

    def __init__(
        self, host: DockerHost, lease: LeaseId, tasks: asyncio.TaskGroup, sources: OpenSource | None = None
    ) -> None:
        self._sources = sources
        self._host, self._lease, self._tasks = host, lease, tasks
        self.sent = 0
        self.cut_after = 1 << 60
        self.change: Callable[[bytes], bytes] = bytes
        self.failures: list[PeerError] = []

    async def open(self) -> Stream:
        ours, theirs = await stream_pair()
        self._tasks.create_task(self._serve(theirs))
        return Watched(self, ours)

    async def _serve(self, stream: SocketStream) -> None:
        try:
            await self._host.serve_layers(self._lease, stream, self._sources)
        except PeerError as error:
            self.failures.append(error)


class Watched:
    def __init__(self, wire: Wire, stream: SocketStream) -> None:
        self._wire, self._stream = wire, stream
        self.read, self.finish, self.abort = stream.read, stream.finish, stream.abort

    async def write(self, data: bytes) -> None:
        self._wire.sent += len(data)
        if self._wire.sent > self._wire.cut_after:
            self._stream.abort()
            raise Unavailable("link.cut", "the cable was pulled")
        await self._stream.write(self._wire.change(data))
