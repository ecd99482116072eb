"""Images left with a deputy: by content, each layer once, going on where it broke off, and nothing believed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from pathlib import Path
from typing import IO

import pytest
from msgspec.structs import replace

from dockage.adapters.images import ImageSender, LeftImages, WithLeft
from dockage.adapters.images.sender import Origin
from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.units import HOUR, Duration
from dockage.protocol.images import Layer, Manifest
from dockage.testing.clock import ManualClock
from dockage.testing.link import MemoryStream, Pipe

MIB = 1 << 20


def layer(content: bytes) -> Layer:
    return Layer(hashlib.sha256(content).digest(), len(content))


def image_of(*contents: bytes) -> Manifest:
    diff_ids = [f"sha256:{layer(x).digest.hex()}" for x in contents]
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    return Manifest(config, tuple(layer(x) for x in contents))


BASE, APP, NEW = b"\1" * (2 * MIB + 7), b"\2" * 1024, b"\3" * 4096
ONE, OTHER = image_of(BASE, APP), image_of(BASE, NEW)


class Shelf:
    """An origin that counts which layers it is asked for; what *lies* says is given in place of the layer."""

    def __init__(self, *images: Manifest, breaks: IO[bytes] | None = None, lies: bytes = b"") -> None:
        self._images, self._breaks, self._lies = {x.image: x for x in images}, breaks, lies
        self.opened: list[Layer] = []

    async def manifest(self, reference: str) -> Manifest:
        if reference not in self._images:
            raise UsageError("image.unknown", f"no {reference}")
        return self._images[reference]

    def open(self, wanted: Layer) -> IO[bytes]:
        self.opened.append(wanted)
        if self._breaks and len(self.opened) == 2:
            return self._breaks
        content = next(x for x in (BASE, APP, NEW) if layer(x) == wanted)
        return io.BytesIO(self._lies or content)

    async def tidy(self) -> None: ...


class Breaking(io.BytesIO):
    """Once *there* is."""

    def __init__(self, there: Path) -> None:
        super().__init__()
        self._there = there

    def read(self, size: int | None = -1) -> bytes:
        for _ in range(3000):
            if self._there.exists():
                break
            time.sleep(0.01)
        raise OSError("gone")


class Deputy:
    def __init__(self, folder: Path, limit: int = 1 << 30) -> None:
        self.clock, self.folder, self.breaches = ManualClock(), folder, list[str]()
        self.images = LeftImages(folder, self.clock, limit)

    async def take(self, origin: Origin, image: Manifest) -> str:
        up, down = Pipe(frozenset()), Pipe(frozenset())
        ours, theirs = MemoryStream(down, up, lambda: None), MemoryStream(up, down, lambda: None)

        async def opened() -> MemoryStream:
            return ours

        async def serve() -> None:
            try:
                await self.images.receive(theirs)
            except PeerError as error:
                self.breaches.append(error.code)

        serving = asyncio.create_task(serve())
        try:
            return await ImageSender(origin, "the deputy").send(opened, image.image)
        finally:
            await serving

    def files(self) -> list[str]:
        return sorted(x.name for x in (self.folder / "layers").iterdir())


@pytest.fixture
def deputy(tmp_path: Path) -> Deputy:
    return Deputy(tmp_path / "left")


async def test_an_image_is_left_once_and_sent_on_from_here(deputy: Deputy) -> None:
    shelf = Shelf(ONE, OTHER)
    assert deputy.images.lacks([ONE.image]) == [ONE.image]
    assert await deputy.take(shelf, ONE) == ONE.image
    assert deputy.images.lacks([ONE.image, OTHER.image]) == [OTHER.image]
    shelf.opened.clear()
    assert await deputy.take(shelf, OTHER) == OTHER.image
    assert shelf.opened == [layer(NEW)], "only the layer that is new"
    await deputy.take(shelf, OTHER)
    assert shelf.opened == [layer(NEW)]
    own = Shelf()
    origin = WithLeft(LeftImages(deputy.folder, deputy.clock), own)  # after a restart
    assert await origin.manifest(ONE.image) == ONE
    with origin.open(layer(BASE)) as file:
        assert file.read() == BASE
    assert own.opened == []
    with pytest.raises(UsageError):
        await origin.manifest("app:1")  # a name means our own user's


async def test_it_goes_on_where_it_broke_off(deputy: Deputy) -> None:
    arrived = deputy.folder / "arriving" / f"{layer(BASE).digest.hex()}.tar"
    with pytest.raises(Unavailable):
        await deputy.take(Shelf(ONE, breaks=Breaking(arrived)), ONE)
    assert deputy.images.lacks([ONE.image])
    shelf = Shelf(ONE)
    await deputy.take(shelf, ONE)
    assert shelf.opened == [layer(APP)]


async def test_what_no_mandate_names_goes_after_an_hour(deputy: Deputy) -> None:
    shelf = Shelf(ONE, OTHER)
    await deputy.take(shelf, ONE)
    await deputy.take(shelf, OTHER)
    await deputy.images.retain([OTHER.image])
    assert not deputy.images.lacks([ONE.image]), "it has just come: its mandate is on its way"
    deputy.clock.pass_(Duration(2 * HOUR))
    await deputy.images.retain([OTHER.image])
    assert deputy.images.lacks([ONE.image, OTHER.image]) == [ONE.image]
    assert deputy.files() == sorted([layer(BASE).digest.hex(), layer(NEW).digest.hex()])


# -- lies ----------------------------------------------------------------------------------------------
async def test_a_layer_that_is_another_is_thrown_away(deputy: Deputy) -> None:
    with pytest.raises(DockageError):
        await deputy.take(Shelf(ONE, lies=b"9" * len(BASE)), ONE)
    assert deputy.breaches == ["image.corrupt"]
    assert deputy.images.lacks([ONE.image])
    await deputy.take(Shelf(ONE), ONE)
    assert deputy.files() == sorted(x.digest.hex() for x in ONE.layers)


async def test_a_config_of_other_layers_is_refused(deputy: Deputy) -> None:
    forged = replace(ONE, layers=OTHER.layers)
    shelf = Shelf(forged)
    with pytest.raises(DockageError):
        await deputy.take(shelf, forged)
    assert deputy.breaches == ["image.manifest"]
    assert shelf.opened == []


async def test_more_than_the_deputy_keeps_is_refused_before_it_travels(tmp_path: Path) -> None:
    deputy, shelf = Deputy(tmp_path / "left", limit=2 * MIB), Shelf(ONE)
    with pytest.raises(
        UsageError, match="the deputy refused the image: the deputy keeps at most 2 MiB"
    ) as caught:
        await deputy.take(shelf, ONE)
    assert caught.value.code == "image.store-full"
    assert shelf.opened == []
    assert deputy.breaches == []
