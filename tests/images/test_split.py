"""Archives of every kind of engine come apart into the same image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import zstandard

from dockage.domain.errors import UsageError
from dockage.protocol.images import Manifest
from dockage.wire.blobs import BlobCache
from dockage.wire.split import split_archive

LOWER, UPPER = b"\1" * (3 << 20), b"\2" * 1024


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONFIG = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha(x)}" for x in (LOWER, UPPER, LOWER)]}}).encode()


def tar_of(*entries: tuple[str, bytes | str]) -> io.BytesIO:
    """Text is the target of a symlink."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    out.seek(0)
    return out


def listing(config: str, *layers: str) -> tuple[str, bytes]:
    return "manifest.json", json.dumps([{"Config": config, "RepoTags": ["a:b"], "Layers": layers}]).encode()


def blob(content: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{sha(content)}", content


OLD = (
    ("one/VERSION", b"1.0"),
    ("one/layer.tar", LOWER),
    ("two/json", b"{}"),
    ("two/layer.tar", UPPER),
    ("three/layer.tar", "../one/layer.tar"),
    ("abc.json", CONFIG),
    listing("abc.json", "one/layer.tar", "two/layer.tar", "three/layer.tar"),
)
GZ, ZST = gzip.compress(LOWER), zstandard.compress(UPPER)
NEW = (
    listing(blob(CONFIG)[0], blob(LOWER)[0], blob(UPPER)[0], blob(LOWER)[0]),
    blob(UPPER),
    blob(CONFIG),
    blob(LOWER),
    ("oci-layout", b"{}"),
)
PACKED = (
    blob(GZ),
    blob(ZST),
    blob(CONFIG),
    listing(blob(CONFIG)[0], blob(GZ)[0], blob(ZST)[0], blob(GZ)[0]),
)


@pytest.mark.parametrize("archive", [OLD, NEW], ids=["20.10", "25"])
def test_both_shapes_give_the_same_image(
    archive: tuple[tuple[str, bytes | str], ...], tmp_path: Path
) -> None:
    cache = BlobCache(tmp_path)
    manifest = split_archive(tar_of(*archive), cache)[0].manifest
    assert manifest.image == f"sha256:{sha(CONFIG)}"
    contents = []
    for layer in manifest.layers:
        with cache.open(layer) as file:
            contents.append(file.read())
    assert contents == [LOWER, UPPER, LOWER]


def test_compressed_blobs_are_unpacked_to_what_hashes_right(tmp_path: Path) -> None:
    manifest = split_archive(tar_of(*PACKED[:3], PACKED[3]), BlobCache(tmp_path))[0].manifest
    assert manifest == split_archive(tar_of(*NEW), BlobCache(tmp_path / "other"))[0].manifest


@pytest.mark.parametrize(
    "archive",
    [
        (),
        OLD[:-1],
        (*OLD[:1], *OLD[2:]),
        (("one/layer.tar", b"x" * 1024), *OLD[2:]),
        (listing("abc.json"), ("abc.json", CONFIG)),
        (("manifest.json", b"[]"),),
        (("manifest.json", b"nonsense"),),
    ],
)
def test_a_strange_archive_is_refused_with_a_reason(
    archive: tuple[tuple[str, bytes | str], ...], tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        split_archive(tar_of(*archive), BlobCache(tmp_path))
    assert error.value.code == "image.strange"


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    whole = tar_of(*OLD).getvalue()
    with pytest.raises(UsageError):
        split_archive(io.BytesIO(whole[: len(whole) // 2]), BlobCache(tmp_path))


def test_the_cache_remembers_an_image_until_a_layer_is_gone(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    manifest: Manifest = split_archive(tar_of(*OLD), cache)[0].manifest
    cache.remember("sha256:local", manifest)
    assert cache.manifest("sha256:local") == manifest
    assert cache.manifest("sha256:other") is None
    cache.path(manifest.layers[1]).unlink()
    assert cache.manifest("sha256:local") is None


def test_the_cache_keeps_its_size(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, limit=1 << 20)
    split_archive(tar_of(*OLD), cache)
    cache.prune()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
