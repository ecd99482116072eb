"""What every ContainerHost keeps, the fake one and the real one. A test gives a ``Stage``; the suite does the rest."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB
from dockage.domain.usage import Meter, advance
from dockage.ports.hosting import ContainerHost
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.wire.chunks import pack
from dockage.wire.frames import read_exactly, read_frame, write_frame

LIMITS = Resources(cpu_milli=1000, memory_bytes=64 * MIB, disk_bytes=64 * MIB)


class Stage(NamedTuple):
    host: ContainerHost
    leases: tuple[LeaseId, LeaseId]
    """Two ids that nobody uses."""
    start: Callable[[LeaseId], Awaitable[str]]
    """A running container that uses CPU all the time and echoes on port 7; returns what it is called."""
    remove: Callable[[LeaseId, str], Awaitable[None]]
    streams: Callable[[], Awaitable[tuple[Stream, Stream]]]
    """Two ends of one stream."""
    wait: Callable[[], Awaitable[None]]
    """Until some time has passed on the host's clock, enough for a busy container to use CPU."""


class HostContract:
    @pytest.fixture
    def stage(self) -> Stage:
        raise NotImplementedError

    async def test_a_lease_is_there_from_prepare_to_teardown(self, stage: Stage) -> None:
        host, (lease, other) = stage.host, stage.leases
        assert await host.present() == frozenset()
        for _ in range(2):
            await host.prepare(lease, LIMITS)
            assert await host.present() == {lease}
        await host.prepare(other, LIMITS)
        for _ in range(2):
            await host.teardown(lease)
            assert await host.present() == {other}

    async def test_an_unknown_lease_has_no_meter_and_no_services(self, stage: Stage) -> None:
        host, (lease, _) = stage.host, stage.leases
        ours, theirs = await stage.streams()
        for call in (
            host.read(lease),
            host.serve_engine(lease, theirs),
            host.serve_tunnel(lease, "x", 7, theirs),
            host.serve_layers(lease, theirs),
        ):
            with pytest.raises(UsageError) as error:
                await call
            assert error.value.code == "lease.unknown"
        ours.abort()
        theirs.abort()

    async def test_totals_outlive_the_container_that_made_them(self, stage: Stage) -> None:
        host, (lease, _) = stage.host, stage.leases
        await host.prepare(lease, LIMITS)
        opening = await host.read(lease)
        name = await stage.start(lease)
        await stage.wait()
        running = await host.read(lease)
        assert running.containers == 1
        await stage.remove(lease, name)
        closing = await host.read(lease)
        await host.prepare(lease, LIMITS + LIMITS)
        again = await host.read(lease)
        assert opening.cpu_ns < running.cpu_ns <= closing.cpu_ns == again.cpu_ns
        assert closing.containers == 0
        meter = Meter()
        for reading in (opening, running, closing, again):
            meter = advance(meter, reading, LIMITS)
        assert meter.usage.cpu_ns == again.cpu_ns - opening.cpu_ns

    async def test_a_paused_lease_uses_nothing_until_it_is_thawed(self, stage: Stage) -> None:
        host, (lease, _) = stage.host, stage.leases
        await host.prepare(lease, LIMITS)
        await stage.start(lease)
        for _ in range(2):
            await host.pause(lease)
        before = await host.read(lease)
        await stage.wait()
        assert (await host.read(lease)).cpu_ns == before.cpu_ns
        for _ in range(2):
            await host.thaw(lease)
        await stage.wait()
        assert (await host.read(lease)).cpu_ns > before.cpu_ns

    async def test_the_tunnel_counts_the_payload_of_both_directions(self, stage: Stage) -> None:
        host, (lease, other) = stage.host, stage.leases
        for each in (lease, other):
            await host.prepare(each, LIMITS)
        name, payload = await stage.start(lease), bytes(range(256)) * 1000
        assert await self.through(stage, lease, name, payload) == payload
        counted = await host.read(lease)
        assert (counted.tunnel_in_bytes, counted.tunnel_out_bytes) == (len(payload), len(payload))
        assert (await host.read(other)).tunnel_in_bytes == 0

    async def through(self, stage: Stage, lease: LeaseId, name: str, payload: bytes) -> bytes:
        ours, theirs = await stage.streams()

        async def speak() -> None:
            await ours.write(payload)
            await ours.finish()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.host.serve_tunnel(lease, name, 7, theirs))
            tasks.create_task(speak())
            answer = await read_exactly(ours, len(payload))
            assert await ours.read(1) == b""
        ours.abort()
        return answer

    async def test_another_leases_container_is_as_good_as_none(self, stage: Stage) -> None:
        host, (lease, other) = stage.host, stage.leases
        for each in (lease, other):
            await host.prepare(each, LIMITS)
        name = await stage.start(other)
        said = set()
        for wrong in (name, "nobody"):
            ours, theirs = await stage.streams()
            with pytest.raises(UsageError) as error:
                await host.serve_tunnel(lease, wrong, 7, theirs)
            said.add((error.value.code, error.value.message.replace(wrong, "").replace(wrong[:40], "")))
            ours.abort()
            theirs.abort()
        assert len(said) == 1  # who else rents here is nobody's business

    async def test_a_chunk_that_does_not_hash_right_is_refused(self, stage: Stage) -> None:
        host, (lease, _) = stage.host, stage.leases
        await host.prepare(lease, LIMITS)
        layer = bytes(1024)
        digest = hashlib.sha256(layer).digest()
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest.hex()]}}).encode()
        manifest = images.Manifest(config, (images.Layer(digest, len(layer)),))
        ours, theirs = await stage.streams()
        bent = pack(0, 0, layer)._replace(digest=bytes(32))

        async def serve() -> None:
            with pytest.raises(PeerError) as error:
                await host.serve_layers(lease, theirs)
            assert error.value.code == "image.corrupt"

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(serve())
            await write_frame(ours, images.encode_manifest(manifest))
            wanted = images.decode_reply(await read_frame(ours, images.ANSWER_MAX))
            assert wanted == images.Wanted((images.Want(0, 0),))
            await write_frame(ours, images.encode_chunk(bent))
            refusal = images.decode_reply(await read_frame(ours, images.ANSWER_MAX))
            assert isinstance(refusal, images.Refused)
            assert refusal.code == "image.corrupt"
            ours.abort()
        theirs.abort()
