"""Raw layers by sha256 in one folder, and for each image the manifest that names them.

As a cache anything may be deleted at any time, since it is made again from an engine: the oldest go first when the
folder grows over its limit. As a keep it is the only copy, so what does not fit is refused.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from dockage.domain.errors import PeerError, UsageError
from dockage.protocol.images import Layer, Manifest, decode_manifest, encode_manifest

LIMIT = 20 << 30


class BlobCache:
    def __init__(self, folder: Path, limit: int = LIMIT, keep: bool = False) -> None:
        self._folder, self._limit, self._keep = folder, limit, keep

    def path(self, layer: Layer) -> Path:
        return self._folder / layer.digest.hex()

    def check_room(self, size: int) -> None:
        """Raises UsageError("image.store-full") in a keep that *size* more bytes would not fit into."""
        if self._keep and self.size() + size > self._limit:
            raise self._full()

    def _full(self) -> UsageError:
        why = f"the image store holds at most {self._limit >> 20} MiB; remove images (docker rmi)"
        return UsageError("image.store-full", why)

    def store(self, read: Callable[[int], bytes]) -> Layer:
        """Everything *read* gives, under the name of its hash. Raises UsageError("image.store-full") in a keep."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        room = self._limit - self.size() if self._keep else 1 << 62
        hash_, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="new-", delete=False) as file:
            try:
                while piece := read(1 << 20):
                    file.write(piece)
                    hash_.update(piece)
                    size += len(piece)
                    if size > room:
                        raise self._full()
                layer = Layer(hash_.digest(), size)
                os.replace(file.name, self.path(layer))
            except BaseException:
                os.unlink(file.name)
                raise
        return layer

    def take(self, layer: Layer, arrived: Path) -> None:
        """A whole layer that hashed right, from a folder on the same file system."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.replace(arrived, self.path(layer))

    def has(self, layer: Layer) -> bool:
        return self.path(layer).exists()

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

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._folder.glob("*"))

    def retain(self, digests: Collection[bytes]) -> None:
        """Only these layers stay."""
        wanted = {digest.hex() for digest in digests}
        for path in self._folder.glob("*"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

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
