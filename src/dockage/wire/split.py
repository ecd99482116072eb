"""An archive of images taken apart on the fly: configs and raw layers, by hash, in one pass.

Counterpart: ``archive.py``.
Two shapes: 20.10 writes ``<id>/layer.tar`` (with symlinks for equal layers), 25 and newer an OCI layout; both
have ``manifest.json`` at some place. With the containerd store the blobs are compressed: then they are unpacked
here, since only raw layers hash to their diffID. Runs in a thread.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import zstandard

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.protocol.image_archive import Named
from dockage.protocol.images import CONFIG_MAX, Layer, Manifest, decode_manifest, diff_ids_of, encode_manifest

from .blobs import BlobCache
from .engine import BlockingEngine, unreachable

SAVE_MAX = 600.0
"""Seconds of silence: the engine first copies the layers, then begins to write."""
SMALL = CONFIG_MAX
IMAGES_MAX = 64


def split(engine: Path, reference: str, cache: BlobCache) -> Manifest:
    """Raises UsageError("image.unknown"), UsageError("image.strange") or Unavailable."""
    try:
        with contextlib.closing(BlockingEngine(engine, SAVE_MAX)) as connection:
            connection.request("GET", f"/images/{quote(reference, safe='')}/get")
            response = connection.getresponse()
            if response.status != 200:
                said = response.read(CONFIG_MAX).decode(errors="replace")
                raise UsageError(
                    "image.unknown", f"the local engine does not give out {reference}: {said[:300]}"
                )
            return split_archive(cast(IO[bytes], response), cache)[0].manifest
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(engine, error) from error


def split_archive(stream: IO[bytes], cache: BlobCache) -> list[Named]:
    """At least one image. Raises UsageError("image.strange") or Unavailable."""
    small: dict[str, bytes] = {}
    blobs: dict[str, Layer] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:  # also gzip, as engines take it
            for entry in tar:
                if entry.issym() or entry.islnk():
                    links[entry.name] = _target(entry)
                elif entry.isfile():
                    _sort(tar, entry, small, blobs, cache)
        while stream.read(1 << 20):
            pass  # the padding after the end mark
        listing = json.loads(small["manifest.json"])
        if not 0 < len(listing) <= IMAGES_MAX:
            raise ValueError(f"an archive holds 1 to {IMAGES_MAX} images")
        return [
            Named(_assemble(each, small, blobs, links, cache), tuple(map(str, each.get("RepoTags") or ())))
            for each in listing
        ]
    except (tarfile.TarError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError("image.strange", f"the image archive cannot be read: {error!r}") from error
    except PeerError as error:
        raise UsageError(error.code, f"this image cannot travel: {error.message}") from error
    except EOFError as error:
        raise Unavailable("engine.failed", f"the image archive ended early: {error}") from error


def _sort(
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    small: dict[str, bytes],
    blobs: dict[str, Layer],
    cache: BlobCache,
) -> None:
    """What is what is said by manifest.json, which may come last: a small file is kept as both."""
    file = tar.extractfile(entry)
    if file is None:
        return
    with file:
        if entry.size > SMALL:
            blobs[entry.name] = cache.store(file.read)
            return
        small[entry.name] = content = file.read()
    if len(small) > 2048:
        raise ValueError("too many small files")
    if entry.name.endswith("/layer.tar") or entry.name.startswith("blobs/"):
        pieces = iter([content])
        blobs[entry.name] = cache.store(lambda _: next(pieces, b""))


def _target(entry: tarfile.TarInfo) -> str:
    if entry.islnk():
        return entry.linkname
    return posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), entry.linkname))


def _assemble(
    listing: Any, small: dict[str, bytes], blobs: dict[str, Layer], links: dict[str, str], cache: BlobCache
) -> Manifest:
    config = small[listing["Config"]]
    wanted = [bytes.fromhex(each.removeprefix("sha256:")) for each in diff_ids_of(config)]
    found = [blobs[links.get(name, name)] for name in listing["Layers"]]
    raw: dict[bytes, Layer] = {}  # an image may hold the same layer twice
    for layer, digest in zip(found, wanted, strict=True):
        if digest not in raw:
            raw[digest] = _raw(layer, digest, cache)
    layers = [raw[digest] for digest in wanted]
    return decode_manifest(
        encode_manifest(Manifest(config, tuple(layers)))
    )  # we refuse what a provider would


def _raw(layer: Layer, digest: bytes, cache: BlobCache) -> Layer:
    if layer.digest == digest:
        return layer
    raw = unpacked(cache.path(layer), digest, cache)
    cache.path(layer).unlink(missing_ok=True)
    return raw


def unpacked(path: Path, digest: bytes, cache: BlobCache) -> Layer:
    """A layer's file, raw or packed, as a raw layer in *cache*. Raises ValueError if it is not the one of *digest*."""
    with path.open("rb") as packed:
        magic = packed.read(4)
        packed.seek(0)
        try:
            with _plain(packed, magic) as file:
                raw = cache.store(file.read)
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
            raise ValueError(f"a layer cannot be unpacked: {error}") from error
    if raw.digest != digest:
        cache.path(raw).unlink(missing_ok=True)
        raise ValueError("a layer does not hash to its diffID")
    return raw


def _plain(packed: IO[bytes], magic: bytes) -> IO[bytes]:
    if magic[:2] == b"\x1f\x8b":
        return cast(IO[bytes], gzip.open(packed))
    if magic == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        return cast(IO[bytes], reader)
    return packed
