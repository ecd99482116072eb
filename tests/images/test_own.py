"""Our own store of images: names as Docker has them, and nothing lost or left over."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockage.adapters.images import OwnImages
from dockage.domain.errors import UsageError
from dockage.protocol.docker import front_images as views
from dockage.protocol.docker.front_errors import ApiError
from dockage.protocol.image_archive import Named, full_name
from dockage.protocol.image_names import familiar
from dockage.protocol.images import Manifest
from dockage.testing.clock import ManualClock
from dockage.wire.archive import archive
from dockage.wire.blobs import BlobCache
from dockage.wire.split import split_archive

from .test_split import CONFIG, NEW, sha, tar_of


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 700_000):
        yield content[at : at + 700_000]


async def gathered(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.fixture
def store(tmp_path: Path) -> OwnImages:
    return OwnImages(tmp_path / "own", ManualClock())


async def loaded(store: OwnImages) -> str:
    assert await store.load(pieces(tar_of(*NEW).getvalue())) == ["a:b"]
    return store.find("a:b").manifest.image


async def test_a_name_moves_and_the_last_one_takes_the_image_along(store: OwnImages, tmp_path: Path) -> None:
    id_ = await loaded(store)
    for name in ("docker.io/library/a:c", "host.example:5000/x/y"):
        await store.tag("a:b", name)
    assert store.find(id_[7:20]).tags == ("a:b", "a:c", "host.example:5000/x/y:latest")
    assert await store.remove("a:c", False) == (["a:c"], [])
    with pytest.raises(UsageError, match="several names"):
        await store.remove(id_, False)
    again = OwnImages(tmp_path / "own", ManualClock())
    assert again.find("a:b") == store.find("a:b")
    assert (await store.remove(id_, True))[1] == [id_]
    assert OwnImages(tmp_path / "own", ManualClock()).all() == []
    assert list((tmp_path / "own" / "layers").iterdir()) == []


async def test_what_is_saved_is_the_same_image_again(store: OwnImages, tmp_path: Path) -> None:
    id_ = await loaded(store)
    whole = await gathered(store.save(["a:b", id_]))
    [first, second] = split_archive(io.BytesIO(whole), BlobCache(tmp_path / "other"))
    assert first.manifest == second.manifest == store.find(id_).manifest
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)), "each layer once"
    assert {"oci-layout", "index.json", "manifest.json"} < set(names)


async def test_layers_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    [image] = split_archive(tar_of(*NEW), BlobCache(tmp_path))
    partial = await gathered(archive([Named(image.manifest, ("a:b",))], lambda layer: None))
    with tarfile.open(fileobj=io.BytesIO(partial)) as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
    assert f"blobs/sha256/{sha(CONFIG)}" in blobs
    assert len(blobs) == 2, "the config and the manifest"


async def test_what_fits_nothing_says_so(store: OwnImages) -> None:
    for reference in ("nobody:1", "ffff", "UPPER/CASE", "a:b:c", "-", "sha256:"):
        with pytest.raises(UsageError) as error:
            store.find(reference)
        assert error.value.code == "image.unknown"
    await loaded(store)
    for name in ("UPPER", "a b", "../x", "a:", "x" * 300):
        with pytest.raises(UsageError) as error:
            await store.tag("a:b", name)
        assert error.value.code == "image.name"


@pytest.mark.parametrize(
    ("written", "short", "full"),
    [
        ("app", "app:latest", "docker.io/library/app:latest"),
        ("me/app:1", "me/app:1", "docker.io/me/app:1"),
        ("docker.io/library/app:1", "app:1", "docker.io/library/app:1"),
        ("host.example/app:1", "host.example/app:1", "host.example/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
    ],
)
def test_names_have_one_form(written: str, short: str, full: str) -> None:
    assert familiar(written) == short
    assert full_name(short) == full


# -- views ---------------------------------------------------------------------------------------------
STEPS = (
    b'{"created": "2026-01-02T03:04:05.6Z", "os": "linux", "config": {"Labels": {"a": "b"}}, "history": ['
    b'{"created": "2026-01-01T00:00:00Z", "created_by": "ADD"}, {"created_by": "CMD", "empty_layer": true}, 7],'
)


def manifest(tmp_path: Path) -> Manifest:
    [image] = split_archive(tar_of(*NEW), BlobCache(tmp_path))
    return Manifest(STEPS + CONFIG[1:], image.manifest.layers)


def test_history_is_newest_first_and_odd_steps_harm_nothing(tmp_path: Path) -> None:
    steps = views.history(manifest(tmp_path), ["a:b"])
    assert [(step["CreatedBy"], step["Size"]) for step in steps] == [("", 1024), ("CMD", 0), ("ADD", 3 << 20)]
    assert steps[0]["Tags"] == ["a:b"]
    assert steps[2]["Created"] == 1767225600


def test_filters_are_dockers(tmp_path: Path) -> None:
    items = [
        views.listed(manifest(tmp_path), ["app:1", "app:2", "web:1"]),
        views.listed(manifest(tmp_path), []),
    ]

    def shown(**wanted: tuple[str, ...]) -> list[list[str]]:
        return [item["RepoTags"] for item in views.filtered(items, wanted)]

    assert shown(reference=("app",)) == [["app:1", "app:2"]]
    assert shown(reference=("*:1",)) == [["app:1", "web:1"]]
    assert shown(dangling=("true",)) == [[]]
    assert shown(label=("a=b",)) == [["app:1", "app:2", "web:1"], []]
    assert shown(label=("a=c",)) == []
    with pytest.raises(ApiError):
        shown(colour=("red",))
