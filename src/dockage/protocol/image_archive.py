"""What ``docker save`` writes and ``docker load`` reads, as values: which files an archive of images has.

Both shapes at once, as engines from 25 on write them: an OCI layout (image-spec v1.1, image-layout.md) and Docker's
own ``manifest.json``. Every engine from 20.10 on takes it, and takes it without the layers that it has already; with
the containerd store only in this form. So one form serves all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .images import Layer, Manifest

OCI = "application/vnd.oci.image"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Named(NamedTuple):
    """An image and what it is called in the archive (``name:tag``, may be none)."""

    manifest: Manifest
    tags: tuple[str, ...] = ()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def oci_manifest(image: Manifest) -> bytes:
    """Its sha256 is what an engine with the containerd store calls the image."""
    layers = [
        _descriptor("layer.v1.tar", diff_id, layer.size)
        for diff_id, layer in zip(image.diff_ids, image.layers, strict=True)
    ]
    config = _descriptor("config.v1+json", image.image, len(image.config))
    found = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": layers}
    return json.dumps(found, separators=(",", ":")).encode()


def small_files(images: Sequence[Named]) -> Iterator[tuple[str, bytes]]:
    """All but the layers, ``manifest.json`` last: by then an engine that streams has seen what it names."""
    yield "oci-layout", LAYOUT
    written: set[str] = set()
    for image, _ in images:
        for content in (image.config, oci_manifest(image)):
            if (name := blob_name(sha256(content))) not in written:
                written.add(name)
                yield name, content
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": list(_index(images))}
    yield "index.json", json.dumps(index).encode()
    yield "manifest.json", json.dumps([_listed(each) for each in images]).encode()


def blobs(images: Sequence[Named]) -> dict[str, Layer]:
    """The layers' files, each once."""
    layers = [layer for image, _ in images for layer in image.layers]
    return {blob_name("sha256:" + layer.digest.hex()): layer for layer in layers}


def blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def full_name(tag: str) -> str:
    """As containerd spells it: ``app:1`` is ``docker.io/library/app:1`` (distribution reference, normalize.go)."""
    first, slash, _ = tag.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return tag
    return f"docker.io/{tag}" if slash else f"docker.io/library/{tag}"


def _index(images: Sequence[Named]) -> Iterator[dict[str, Any]]:
    for image, tags in images:
        content = oci_manifest(image)
        described = _descriptor("manifest.v1+json", sha256(content), len(content))
        for tag in tags:
            version = tag.rpartition(":")[2]
            names = {
                "io.containerd.image.name": full_name(tag),
                "org.opencontainers.image.ref.name": version,
            }
            yield described | {"annotations": names}
        if not tags:
            yield described


def _listed(named: Named) -> dict[str, Any]:
    image, tags = named
    return {
        "Config": blob_name(image.image),
        "RepoTags": list(tags) or None,
        "Layers": [blob_name(each) for each in image.diff_ids],
    }


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": size}
