"""Layers on their way here: ``<sha256>.part`` while they grow, ``<sha256>.tar`` once they hash right, gone once they
are where they belong (an engine, a store). A broken transfer goes on where the ``.part`` ends.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from dockage.domain.errors import PeerError
from dockage.protocol.images import CHUNK, Layer, Manifest

if TYPE_CHECKING:
    from hashlib import _Hash


class Blobs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def held(self, manifest: Manifest) -> dict[bytes, int]:
        """Bytes here by digest. What this image does not need is dropped: an unfinished image of before."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sizes = {layer.digest: layer.size for layer in manifest.layers}
        here: dict[bytes, int] = {}
        for path in sorted(self._folder.iterdir()):
            digest = bytes.fromhex(path.stem)
            if path.suffix == ".fresh":
                path.unlink()  # of a crash
            elif path.stat().st_size > sizes.get(digest, -1):
                path.unlink()
            elif path.suffix == ".tar":
                here[digest] = sizes[digest]
            elif path.stat().st_size == sizes[digest]:
                path.unlink()  # complete, yet never verified: it did not hash right, or we crashed just then
            else:
                here.setdefault(digest, path.stat().st_size)
        return here

    def open(self, layer: Layer, afresh: bool = False) -> Growing:
        """To go on with, or, *afresh*, apart from what there is of it."""
        part = self._path(layer, ".fresh" if afresh else ".part")
        if afresh:
            part.unlink(missing_ok=True)
        return Growing(part, self._path(layer, ".tar"), layer)

    def path(self, layer: Layer) -> Path | None:
        """The whole, verified layer, or None."""
        path = self._path(layer, ".tar")
        return path if path.exists() else None

    def drop(self, manifest: Manifest) -> None:
        for layer in manifest.layers:
            for suffix in (".tar", ".part"):
                self._path(layer, suffix).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _path(self, layer: Layer, suffix: str) -> Path:
        return self._folder / (layer.digest.hex() + suffix)


class Growing:
    """One layer being written. Used by one thread at a time."""

    def __init__(self, part: Path, whole: Path, layer: Layer) -> None:
        self._part, self._whole, self._layer = part, whole, layer
        self._hash: _Hash = hashlib.sha256()
        self._file = part.open("ab")
        with part.open("rb") as earlier:
            while piece := earlier.read(CHUNK):
                self._hash.update(piece)

    def append(self, raw: bytes) -> None:
        self._file.write(raw)
        self._hash.update(raw)

    def close(self) -> None:
        """Without ``seal`` it stays a part, to go on with later."""
        self._file.close()

    def forget(self) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def seal(self) -> None:
        """Raises PeerError("image.corrupt") and forgets the bytes, wherever they came from."""
        self._file.close()
        if self._hash.digest() != self._layer.digest:
            self._part.unlink()
            raise PeerError(
                "image.corrupt", f"layer {self._layer.digest.hex()[:12]} does not match its sha256"
            )
        self._part.replace(self._whole)
