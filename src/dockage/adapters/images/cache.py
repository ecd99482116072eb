"""Raw layers by sha256 in one folder, and for each image the manifest that names them.

Anything may be deleted at any time: it is made again from the local engine. Oldest go first when the folder grows
over its limit.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dockage.domain.errors import PeerError
from dockage.protocol.images import Layer, Manifest, decode_manifest, encode_manifest

LIMIT = 20 << 30


class BlobCache:
    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder, self._limit = folder, limit

    def path(self, layer: Layer) -> Path:
        return self._folder / layer.digest.hex()

    def store(self, read: Callable[[int], bytes]) -> Layer:
        """Everything *read* gives, under the name of its hash."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hash_, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="new-", delete=False) as file:
            try:
                while piece := read(1 << 20):
                    file.write(piece)
                    hash_.update(piece)
                    size += len(piece)
                layer = Layer(hash_.digest(), size)
                os.replace(file.name, self.path(layer))
            except BaseException:
                os.unlink(file.name)
                raise
        return layer

    def open(self, layer: Layer) -> IO[bytes]:
        return self.path(layer).open("rb")

    def manifest(self, key: str) -> Manifest | None:
        """What was remembered under *key*, if all its layers are still here."""
        try:
            manifest = decode_manifest(self._index(key).read_bytes())
        except (FileNotFoundError, PeerError):
            return None
        paths = [self.path(layer) for layer in manifest.layers]
        if any(
            not p.exists() or p.stat().st_size != x.size for p, x in zip(paths, manifest.layers, strict=True)
        ):
            return None
        for path in paths:
            os.utime(path)  # used now, so the last to be dropped
        return manifest

    def remember(self, key: str, manifest: Manifest) -> None:
        path = self._index(key)
        path.with_suffix(".new").write_bytes(encode_manifest(manifest))
        path.with_suffix(".new").replace(path)

    def prune(self) -> None:
        entries = [(path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.glob("*")]
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _index(self, key: str) -> Path:
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + ".image")
