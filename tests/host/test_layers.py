"""Images travel from one engine to another: once, only what is missing, and nothing that was tampered with."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.adapters.images import EngineImages, ImageSender
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.ports.peers import Stream
from dockage.protocol.images import Layer, Manifest, encode_chunk, encode_manifest, lease_tag
from dockage.wire.chunks import pack
from dockage.wire.frames import read_frame, write_frame
from hostlab import IMAGE, Lab

from .wires import Wire, layer, load

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)
Leases = Callable[[int], LeaseId]


@pytest.fixture(scope="session")
def tenant_lab() -> Iterator[Lab]:
    """The tenant's own engine, so that images really travel."""
    lab = Lab("t")
    with contextlib.ExitStack() as undo:
        undo.callback(lab.close)
        lab.open()
        yield lab


@pytest.fixture
async def sender(tenant_lab: Lab, tmp_path: Path) -> AsyncIterator[ImageSender]:
    origin = EngineImages(tenant_lab.socket, tmp_path / "blobs")
    yield ImageSender(origin)
    await origin.close()


def images(lab: Lab) -> set[str]:
    return set(lab.docker("images", "-aq").split())


async def nowhere() -> Stream:
    raise AssertionError("nothing may be sent")


async def test_the_second_version_sends_only_its_new_layer(
    lab: Lab, tenant_lab: Lab, host: DockerHost, sender: ImageSender, lease_of: Leases, tmp_path: Path
) -> None:
    lease, common = lease_of(1), layer("big", os.urandom(3 * MIB))
    await host.prepare(lease, LIMITS)
    load(tenant_lab, tmp_path, "app:1", common, layer("app", b"one"))
    load(tenant_lab, tmp_path, "app:2", common, layer("app", b"two"))
    steps: list[tuple[int, int]] = []
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(host, lease, tasks)
        first = await sender.send(wire.open, "app:1", lambda done, total: steps.append((done, total)))
        assert wire.sent > 3 * MIB
        assert steps[0] == (0, steps[0][1])
        assert steps[-1] == (steps[0][1], steps[0][1])
        wire.sent = 0
        second = await sender.send(wire.open, "app:2")
        assert wire.sent < 4096
        wire.sent = 0
        assert await sender.send(wire.open, "app:2") == second
        assert wire.sent < 2048
    local = [tenant_lab.docker("inspect", "-f", "{{.Id}}", name) for name in ("app:1", "app:2")]
    assert [first, second] == local
    assert lab.docker("inspect", "-f", "{{.Id}}", lease_tag(lease, second)) == second
    await host.teardown(lease)
    assert lab.docker("images", "-q", "--no-trunc").split().count(first) == 0


async def test_a_real_image_runs_after_the_trip_and_two_leases_share_it(
    lab: Lab, host: DockerHost, sender: ImageSender, lease_of: Leases
) -> None:
    """The provider's engine has it already: only the manifest travels, and the owner's own tag stays."""
    async with asyncio.TaskGroup() as tasks:
        for number in (1, 2):
            await host.prepare(lease_of(number), LIMITS)
            wire = Wire(host, lease_of(number), tasks)
            image = await sender.send(wire.open, IMAGE)
            assert wire.sent < 4096
    await host.teardown(lease_of(1))
    assert lab.run(lease_of(2), "--rm", lease_tag(lease_of(2), image), "echo", "up") == "up"
    await host.teardown(lease_of(2))
    assert lab.docker("run", "--rm", IMAGE, "echo", "still") == "still"


async def test_a_broken_transfer_goes_on_where_it_broke(
    tenant_lab: Lab, host: DockerHost, sender: ImageSender, lease_of: Leases, tmp_path: Path
) -> None:
    await host.prepare(lease_of(1), LIMITS)
    load(tenant_lab, tmp_path, "long:1", layer("noise", os.urandom(5 * MIB)))
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(host, lease_of(1), tasks)
        wire.cut_after = 3 * MIB + MIB // 2
        with pytest.raises(Unavailable):
            await sender.send(wire.open, "long:1")
        wire.cut_after, wire.sent = 1 << 60, 0
        await sender.send(wire.open, "long:1")
        assert wire.sent < 3 * MIB
    assert wire.failures == [] or [error.code for error in wire.failures] == ["frame.truncated"]


async def test_a_corrupted_chunk_is_refused_and_costs_only_itself(
    tenant_lab: Lab, host: DockerHost, sender: ImageSender, lease_of: Leases, tmp_path: Path
) -> None:
    await host.prepare(lease_of(1), LIMITS)
    load(tenant_lab, tmp_path, "bent:1", layer("noise", os.urandom(3 * MIB)))
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(host, lease_of(1), tasks)
        chunks: list[int] = []

        def bend(data: bytes) -> bytes:
            chunks.append(len(data))
            return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if len(chunks) == 4 else data

        wire.change = bend
        with pytest.raises(UsageError) as error:
            await sender.send(wire.open, "bent:1")
        assert error.value.code == "image.corrupt"
        wire.change, wire.sent = bytes, 0
        await sender.send(wire.open, "bent:1")
        assert wire.sent < 2 * MIB
    assert [failure.code for failure in wire.failures] == ["image.corrupt"]


async def test_an_image_larger_than_the_leases_disk_is_refused_before_it_travels(
    tenant_lab: Lab, host: DockerHost, sender: ImageSender, lease_of: Leases, tmp_path: Path
) -> None:
    await host.prepare(lease_of(1), Resources(1000, 64 * MIB, 4 * MIB))
    load(tenant_lab, tmp_path, "fat:1", layer("noise", os.urandom(5 * MIB)))
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(host, lease_of(1), tasks)
        with pytest.raises(UsageError) as error:
            await sender.send(wire.open, "fat:1")
    assert error.value.code == "image.space"
    assert wire.sent < 4096
    assert wire.failures == []


async def test_a_layer_that_is_not_what_it_says_is_refused(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    """Every chunk is right by itself; the whole is another layer."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    claimed, content = hashlib.sha256(b"promised").digest(), layer("evil", b"x" * 100)
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + claimed.hex()]}
    manifest = Manifest(json.dumps({"rootfs": rootfs}).encode(), (Layer(claimed, len(content)),))
    before = images(lab)
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(host, lease, tasks)
        stream = await wire.open()
        await write_frame(stream, encode_manifest(manifest))
        await read_frame(stream, 1 << 16)
        await write_frame(stream, encode_chunk(pack(0, 0, content)))
        assert b"image.corrupt" in await read_frame(stream, 1 << 16)
        stream.abort()
    assert [failure.code for failure in wire.failures] == ["image.corrupt"]
    assert images(lab) == before


async def test_an_unknown_image_is_the_users_to_mend(sender: ImageSender) -> None:
    with pytest.raises(UsageError, match="pull or build it first") as error:
        await sender.send(nowhere, "nobody/nothing:1")
    assert error.value.code == "image.unknown"
