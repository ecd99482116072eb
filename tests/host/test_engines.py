"""Images arrive at every engine that a provider may run: old and new, with either image store; from other providers
too, however they lie.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import DockerHost
from dockage.adapters.images import EngineImages, ImageSender
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.ports.peers import Stream
from dockage.protocol.images import Source, decode_reply, encode_chunk, lease_tag
from dockage.wire.chunks import pack
from dockage.wire.engine import Answer
from dockage.wire.frames import read_frame, write_frame
from hostlab import CONTAINERD, CURRENT, IMAGE, Lab, stream_pair

from .wires import Wire, layer, load

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)
Leases = Callable[[int], LeaseId]


@pytest.fixture(scope="session")
def containerd_lab() -> Iterator[Lab]:
    lab = Lab("d", CURRENT, CONTAINERD)
    with contextlib.ExitStack() as undo:
        undo.callback(lab.close)
        lab.open()
        yield lab


@pytest.fixture(params=["current_lab", "containerd_lab"])
def current(request: pytest.FixtureRequest, current_lab: Lab) -> Lab:
    """A current engine with its old and with its new image store."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Lab)
    return found


@pytest.fixture
async def receiving(current: Lab, home: Path) -> AsyncIterator[DockerHost]:
    with current.inside():
        host = DockerHost(current.socket, home, "run-1", disk_every=0.2)
        await host.start()
        yield host
        for lease in await host.present():
            await host.teardown(lease)
        await host.close()


@pytest.fixture
async def sender(engine_lab: Lab, tmp_path: Path) -> AsyncIterator[ImageSender]:
    origin = EngineImages(engine_lab.socket, tmp_path / "blobs")
    yield ImageSender(origin)
    await origin.close()


def content_of(lab: Lab, image: str, path: str, folder: Path) -> bytes:
    container = lab.docker("create", image, "none")
    lab.docker("cp", f"{container}:{path}", str(folder / "content"))
    lab.docker("rm", container)
    return (folder / "content").read_bytes()


async def test_only_what_is_new_travels_to_it_and_it_runs(
    current: Lab,
    engine_lab: Lab,
    receiving: DockerHost,
    sender: ImageSender,
    lease_of: Leases,
    tmp_path: Path,
) -> None:
    lease, common = lease_of(1), layer("big", os.urandom(3 * MIB))
    await receiving.prepare(lease, LIMITS)
    load(engine_lab, tmp_path, "app:1", common, layer("app", b"one"))
    load(engine_lab, tmp_path, "app:2", common, layer("app", b"two"))
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(receiving, lease, tasks)
        await sender.send(wire.open, "app:1")
        assert wire.sent > 3 * MIB
        wire.sent = 0
        second = await sender.send(wire.open, "app:2")
        assert wire.sent < 4096
        base = await sender.send(wire.open, IMAGE)
    assert second == engine_lab.docker("inspect", "-f", "{{.Id}}", "app:2")
    assert content_of(current, lease_tag(lease, second), "/app", tmp_path) == b"two"
    assert current.run(lease, "--rm", lease_tag(lease, base), "echo", "up") == "up"
    await receiving.teardown(lease)
    assert second not in current.docker("images", "-aq", "--no-trunc")


@pytest.mark.parametrize("current", ["containerd_lab"], indirect=True)
async def test_layers_that_the_engine_showed_but_has_not_are_asked_for_once_more(
    current: Lab,
    engine_lab: Lab,
    receiving: DockerHost,
    sender: ImageSender,
    lease_of: Leases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease, common = lease_of(1), layer("big", os.urandom(2 * MIB))
    await receiving.prepare(lease, LIMITS)
    load(engine_lab, tmp_path, "gone:1", common, layer("app", b"gone"))
    shown = engine_lab.docker("inspect", "-f", "{{index .RootFS.Layers 0}}", "gone:1")

    async def claimed(_: LeaseId) -> list[tuple[str, ...]]:
        return [(shown,)]

    monkeypatch.setattr(receiving._receiver._engine, "known_chains", claimed)
    async with asyncio.TaskGroup() as tasks:
        wire = Wire(receiving, lease, tasks)
        image = await sender.send(wire.open, "gone:1")
        assert 2 * MIB < wire.sent < 3 * MIB, "the upper layer travels once"
    assert content_of(current, lease_tag(lease, image), "/app", tmp_path) == b"gone"


@pytest.mark.parametrize("current", ["containerd_lab"], indirect=True)
async def test_an_engine_that_takes_no_archive_pulls_from_the_loopback(
    current: Lab,
    engine_lab: Lab,
    receiving: DockerHost,
    sender: ImageSender,
    lease_of: Leases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease = lease_of(1)
    await receiving.prepare(lease, LIMITS)
    load(engine_lab, tmp_path, "pulled:1", layer("low", os.urandom(MIB)), layer("app", b"pulled"))

    async def refused(*_: object) -> Answer:
        return Answer(501, b'{"message":"load is switched off here"}')

    monkeypatch.setattr(receiving._client, "upload", refused)
    async with asyncio.TaskGroup() as tasks:
        image = await sender.send(Wire(receiving, lease, tasks).open, "pulled:1")
    assert content_of(current, lease_tag(lease, image), "/app", tmp_path) == b"pulled"
    assert "127.0.0.1" not in current.docker("images", "--format", "{{.Repository}}")


# -- from other providers ------------------------------------------------------------------------------
async def lying(stream: Stream) -> None:
    """Right chunks of a wrong layer."""
    decode_reply(await read_frame(stream, 1 << 16))
    for offset in range(3):
        await write_frame(stream, encode_chunk(pack(0, offset * MIB, os.urandom(MIB))))
    await write_frame(stream, encode_chunk(pack(0, 3 * MIB, os.urandom(10240))))
    stream.abort()


async def breaking(stream: Stream) -> None:
    await write_frame(stream, encode_chunk(pack(0, 0, os.urandom(MIB))))
    stream.abort()


@pytest.mark.parametrize("current", ["current_lab"], indirect=True)
async def test_a_replica_gets_its_layers_from_another_provider_past_liars(
    current: Lab,
    engine_lab: Lab,
    receiving: DockerHost,
    sender: ImageSender,
    lease_of: Leases,
    tmp_path: Path,
) -> None:
    """The other one runs 20.10, we a current engine; layers come out of it as they went in."""
    first = DockerHost(engine_lab.socket, tmp_path / "first", "run-1", firewall=False)
    await first.start()
    there, here = lease_of(2), lease_of(1)
    await first.prepare(there, LIMITS)
    await receiving.prepare(here, LIMITS)
    load(engine_lab, tmp_path, "twin:1", layer("low", os.urandom(3 * MIB)), layer("app", b"twin"))
    image = engine_lab.docker("inspect", "-f", "{{.Id}}", "twin:1")
    steps: list[tuple[int, int]] = []
    opened: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        await sender.send(Wire(first, there, tasks).open, "twin:1")

        async def serve_seed(stream: Stream) -> None:
            await first.serve_seed(there, image, stream)
            stream.abort()

        async def open_source(source: Source) -> Stream:
            name = source.grant.decode()
            opened.append(name)
            if name == "nobody":
                raise Unavailable("peer.unreachable", "nobody there")
            ours, theirs = await stream_pair()
            serve = {"liar": lying, "breaker": breaking}.get(name, serve_seed)
            tasks.create_task(serve(theirs))
            return ours

        def sources(_: str) -> list[Source]:
            names = (b"nobody", b"liar", b"breaker", b"honest", b"never asked")
            return [Source(NodeKey(bytes(32)), there, name) for name in names]

        wire = Wire(receiving, here, tasks, open_source)
        await sender.send(wire.open, "twin:1", lambda done, total: steps.append((done, total)), sources)
        assert wire.sent < 4096, "the tenant sends the manifest only"
    assert opened == ["nobody", "liar", "breaker", "honest"]
    assert steps[-2][0] == steps[-2][1] > 3 * MIB
    assert content_of(current, lease_tag(here, image), "/app", tmp_path) == b"twin"
    for lease in await first.present():
        assert [p.name for p in (tmp_path / "first" / "leases" / lease.hex()).glob("seed-*")] == []
        await first.teardown(lease)
    await first.close()


@pytest.mark.parametrize("current", ["current_lab"], indirect=True)
async def test_without_an_honest_source_the_tenant_sends_it(
    engine_lab: Lab, receiving: DockerHost, sender: ImageSender, lease_of: Leases, tmp_path: Path
) -> None:
    lease = lease_of(1)
    await receiving.prepare(lease, LIMITS)
    load(engine_lab, tmp_path, "alone:1", layer("low", os.urandom(3 * MIB)))
    async with asyncio.TaskGroup() as tasks:

        async def open_source(_: Source) -> Stream:
            ours, theirs = await stream_pair()
            tasks.create_task(lying(theirs))
            return ours

        wire = Wire(receiving, lease, tasks, open_source)
        liar = Source(NodeKey(bytes(32)), lease, b"liar")
        await sender.send(wire.open, "alone:1", sources=lambda _: [liar])
        assert wire.sent > 3 * MIB
        assert wire.failures == []
