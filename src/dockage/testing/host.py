"""A machine that exists in memory: leases with simulated containers that use things while a clock runs.

It keeps the same contract as the real one (``host_contract.py``). The rule that keeps it right: usage follows
from the clock and from what a test said a container does, never from real time.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Instant
from dockage.domain.usage import Reading
from dockage.ports.hosting import HostFacts, OpenSource
from dockage.ports.machine import Clock
from dockage.ports.peers import Stream
from dockage.protocol import images
from dockage.wire.chunks import send_layers, unpack
from dockage.wire.frames import PIECE, read_frame, write_frame

Service = Callable[[Stream], Awaitable[None]]
"""What listens on a port of a simulated container."""
CAPACITY = Resources(cpu_milli=8000, memory_bytes=16 * GIB, disk_bytes=100 * GIB)


@dataclass(frozen=True)
class FakeContainer:
    """What it does each second, for as long as it runs."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    internet_out_per_s: int = 0
    replica_out_per_s: int = 0
    ports: dict[int, Service] = field(default_factory=dict)


@dataclass
class _Lease:
    limits: Resources
    since: Instant
    paused: bool = False
    cpu_ns: int = 0
    internet_bytes_ns: int = 0
    """Bytes times 10^9, so that nothing is lost between two looks at the clock."""
    replica_bytes_ns: int = 0
    tunnel_in: int = 0
    tunnel_out: int = 0
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    images: dict[str, images.Manifest] = field(default_factory=dict)
    layers: dict[bytes, bytes] = field(default_factory=dict)


class FakeHost:
    """``down=True`` is an engine that does not answer; ``reboot`` and ``restart`` begin new counters."""

    def __init__(self, clock: Clock, capacity: Resources = CAPACITY) -> None:
        self._clock, self._capacity = clock, capacity
        self._leases: dict[LeaseId, _Lease] = {}
        self._boots = self._runs = 1
        self.down = False
        self.engine: Callable[[LeaseId, Stream], Awaitable[None]] | None = None
        self.log: list[tuple[str, LeaseId]] = []
        """What was done, in order: ("prepare", lease), ("pause", lease), ..."""

    # -- what a test does --------------------------------------------------------------------------
    def start(self, lease: LeaseId, name: str, container: FakeContainer) -> None:
        self._brought_up(lease).containers[name] = container

    def stop(self, lease: LeaseId, name: str) -> None:
        """What it used stays used."""
        del self._brought_up(lease).containers[name]

    def images(self, lease: LeaseId) -> frozenset[str]:
        return frozenset(self._leases[lease].images)

    def is_paused(self, lease: LeaseId) -> bool:
        return self._leases[lease].paused

    def restart(self) -> None:
        """The daemon died and came back: tunnel counters begin again, containers never noticed."""
        self._runs += 1
        for lease in self._leases.values():
            lease.tunnel_in = lease.tunnel_out = 0

    def reboot(self) -> None:
        self.restart()
        self._boots += 1
        for lease in self._leases:
            kept = self._brought_up(lease)
            kept.containers, kept.cpu_ns = {}, 0
            kept.internet_bytes_ns = kept.replica_bytes_ns = 0

    # -- ContainerHost -----------------------------------------------------------------------------
    async def facts(self) -> HostFacts:
        self._ask()
        return HostFacts("28.5.2", 2, "cgroupfs", "x86_64", self._capacity)

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        self._do("prepare", lease)
        if lease in self._leases:
            self._brought_up(lease).limits = limits
        else:
            self._leases[lease] = _Lease(limits, self._clock.now())

    async def pause(self, lease: LeaseId) -> None:
        self._do("pause", lease)
        if lease in self._leases:
            self._brought_up(lease).paused = True

    async def thaw(self, lease: LeaseId) -> None:
        self._do("thaw", lease)
        if lease in self._leases:
            self._brought_up(lease).paused = False

    async def read(self, lease: LeaseId) -> Reading:
        now = self._brought_up(lease)
        running = now.containers.values()
        return Reading(
            boottime_ns=self._clock.now(),
            boot=f"boot-{self._boots}",
            run=f"run-{self._runs}",
            cpu_ns=now.cpu_ns,
            memory_bytes=min(now.limits.memory_bytes, sum(each.memory_bytes for each in running)),
            disk_bytes=sum(each.disk_bytes for each in running),
            tunnel_in_bytes=now.tunnel_in,
            tunnel_out_bytes=now.tunnel_out,
            internet_out_bytes=now.internet_bytes_ns // 1_000_000_000,
            replica_out_bytes=now.replica_bytes_ns // 1_000_000_000,
            containers=len(now.containers),
        )

    async def teardown(self, lease: LeaseId) -> None:
        self._do("teardown", lease)
        self._leases.pop(lease, None)

    async def present(self) -> frozenset[LeaseId]:
        return frozenset(self._leases)

    async def serve_engine(self, lease: LeaseId, stream: Stream) -> None:
        self._known(lease)
        if self.engine is None:
            raise Unavailable("engine.closed", "this fake lends no engine; set .engine")
        await self.engine(lease, stream)

    async def serve_tunnel(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        known = self._known(lease)
        if not 0 < port < 65536:
            raise UsageError("tunnel.port", f"there is no TCP port {port}")
        if container not in known.containers:
            raise UsageError("tunnel.container", f"the lease has no container {container[:40]!r}")
        service = known.containers[container].ports.get(port)
        if service is None:
            raise Unavailable("tunnel.closed", f"nothing answers on port {port} of {container}")
        try:
            await service(_Counted(stream, known))
        except Unavailable:
            pass  # a cut connection is an ordinary end of a tunnel
        finally:
            stream.abort()

    async def serve_datagrams(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        """Frames and their heads are bytes as all others: a service that echoes bytes echoes datagrams."""
        await self.serve_tunnel(lease, container, port, stream)

    async def serve_seed(self, lease: LeaseId, image: str, stream: Stream) -> None:
        known = self._known(lease)
        if image not in known.images:
            raise UsageError("image.unknown", f"the lease has no image {image[:19]}")
        asked = images.decode_reply(await read_frame(stream, images.ANSWER_MAX))
        if not isinstance(asked, images.Wanted):
            raise UsageError("image.unknown", "which layers?")
        manifest = known.images[image]
        images.check_wanted(manifest, asked)
        await send_layers(stream, manifest, asked, lambda layer: io.BytesIO(known.layers[layer.digest]))
        await stream.finish()

    async def serve_layers(
        self, lease: LeaseId, stream: Stream, open_source: OpenSource | None = None
    ) -> None:
        known = self._known(lease)
        try:
            image = await _receive(known, stream)
            await write_frame(stream, images.encode_reply(images.Loaded(image)))
        except UsageError as error:
            await write_frame(stream, images.encode_reply(images.Refused(error.code, error.message)))
        except PeerError as error:
            await write_frame(stream, images.encode_reply(images.Refused(error.code, error.message)))
            raise
        finally:
            await stream.finish()

    # -- within ------------------------------------------------------------------------------------
    def _ask(self) -> None:
        if self.down:
            raise Unavailable("engine.unreachable", "the fake engine is down; start it")

    def _do(self, what: str, lease: LeaseId) -> None:
        self._ask()
        self.log.append((what, lease))

    def _known(self, lease: LeaseId) -> _Lease:
        if lease not in self._leases:
            raise UsageError("lease.unknown", f"there is no lease {lease.hex()[:8]} on this machine")
        return self._leases[lease]

    def _brought_up(self, lease: LeaseId) -> _Lease:
        """Everything used until now, before anything changes."""
        known, now = self._known(lease), self._clock.now()
        elapsed, known.since = max(0, now - known.since), now
        if not known.paused:
            wish = sum(each.cpu_milli for each in known.containers.values())
            known.cpu_ns += min(wish, known.limits.cpu_milli or wish) * elapsed // 1000
            for each in known.containers.values():
                known.internet_bytes_ns += each.internet_out_per_s * elapsed
                known.replica_bytes_ns += each.replica_out_per_s * elapsed
        return known


class _Counted:
    """The container's end of a tunnel: what it reads came in, what it writes goes out."""

    def __init__(self, stream: Stream, lease: _Lease) -> None:
        self._stream, self._lease = stream, lease

    async def read(self, limit: int) -> bytes:
        piece = await self._stream.read(limit)
        self._lease.tunnel_in += len(piece)
        return piece

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)
        self._lease.tunnel_out += len(data)

    async def finish(self) -> None:
        await self._stream.finish()

    def abort(self) -> None:
        self._stream.abort()


async def echo(stream: Stream) -> None:
    """RFC 862, for tests of tunnels."""
    while piece := await stream.read(PIECE):
        await stream.write(piece)
    await stream.finish()


async def _receive(lease: _Lease, stream: Stream) -> str:
    manifest = images.decode_manifest(await read_frame(stream, images.MANIFEST_MAX))
    if manifest.size > lease.limits.disk_bytes:
        raise UsageError(
            "image.space", f"the image takes {manifest.size} bytes of the lease's {lease.limits.disk_bytes}"
        )
    held = {layer.digest: layer.size for layer in manifest.layers if layer.digest in lease.layers}
    wanted = images.wanted_layers(manifest, 0, held)
    await write_frame(stream, images.encode_reply(images.Wanted(wanted)))
    arriving: dict[int, bytes] = {}
    for expected in images.expected_chunks(manifest, wanted):
        chunk = images.decode_chunk(await read_frame(stream, images.CHUNK_FRAME_MAX))
        images.check_chunk(chunk, expected)
        arriving[chunk.layer] = arriving.get(chunk.layer, b"") + unpack(chunk)
    lease.layers |= {manifest.layers[index].digest: raw for index, raw in arriving.items()}
    lease.images[manifest.image] = manifest
    return manifest.image
