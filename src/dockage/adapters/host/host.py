"""The provider's machine, lease by lease: the real ``ContainerHost`` and ``LeaseRoom``.

Wiring only: each resource is a module beside this one. The order keeps it right: the ledger entry is made first
and removed last, the firewall stands before there is a bridge and until there is no container.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random, SystemRandom
from typing import Protocol

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.usage import Reading
from dockage.ports.hosting import HostFacts, OpenSource
from dockage.ports.peers import Stream
from dockage.protocol.docker.stats import ContainerUse
from dockage.wire.engine import EngineClient

from . import cgroup, inside, machine, names
from .command import Run, run, together
from .disk import WritableLayers
from .enclosure import Enclosure
from .engine import LeaseEngine, network_options
from .firewall import Carried, Firewall, unavailable
from .guard import Guards
from .intake import EngineImages
from .layers import LayerReceiver
from .ledger import Ledger
from .seed import Seeder
from .slices import Slices
from .tunnel import Count, Tunnels
from .volumes import Volumes

UNCOUNTED = (
    "what a lease's containers send to each other is not counted: load the module br_netfilter to sell it"
)
PAUSED = "the lease is paused; `dockage why` tells what for (its provider was not paid, or its disk is full)"


class Gate(Protocol):
    """What serves the Engine API of leases (``adapters/engine``)."""

    async def serve(self, lease: LeaseId, limits: Resources, stream: Stream) -> None: ...

    def hold(self, lease: LeaseId, why: str) -> None:
        """Refuse what would change or start anything."""

    def release(self, lease: LeaseId) -> None: ...

    def forget(self, lease: LeaseId) -> None: ...


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Room:
    """What this process keeps open for one lease."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        """Making, removing and volumes: one at a time."""
        self.receiving = asyncio.Lock()
        """One image at a time; two would write the same part."""
        self.count = Count()
        self.gauge: cgroup.Gauge | None = None


class DockerHost:
    """``run_id`` names this process in readings: tunnel counters begin at 0 in a new one.

    ``gate`` serves the Engine API (adapters/engine); it needs this object as its LeaseRoom, so it is set after
    construction. ``resolvers`` are the DNS servers that leases may ask although they lie in a private
    network. ``firewall=False`` is for machines that are walled off otherwise: leases then reach everything.
    """

    def __init__(
        self,
        engine_socket: Path,
        home: Path,
        run_id: str,
        *,
        firewall: bool = True,
        resolvers: Iterable[str] = (),
        share_layers: bool = True,
        disk_every: float = 10.0,
        random: Random | None = None,
        execute: Run = run,
        cgroup_root: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self.gate: Gate | None = None
        self._home, self._run_id, self._walled, self._cgroup_root = home, run_id, firewall, cgroup_root
        self._boot = BOOT_ID.read_text().strip()
        self._client = EngineClient(engine_socket)
        self._engine = LeaseEngine(self._client)
        self._ledger = Ledger(home)
        self._firewall = Firewall(execute, time.monotonic, resolvers)
        self._guards = Guards()
        self._slices = Slices(execute)
        self._volumes = Volumes(self._ledger, execute)
        self._enclosure = Enclosure(self._ledger, self._client, execute)
        self._layers = WritableLayers(engine_socket, time.monotonic, random or SystemRandom(), disk_every)
        self._tunnels = Tunnels(self._client, time.monotonic)
        self._receiver = LayerReceiver(EngineImages(self._client, share_layers), self._ledger)
        self._seeder = Seeder(engine_socket)
        self._rooms: dict[LeaseId, _Room] = {}
        self._groups: cgroup.Layout | None = None
        self._facts: HostFacts | None = None

    async def start(self) -> None:
        """Looks at what this machine can do; a silent engine is not an error yet (``facts`` says it)."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._groups = cgroup.detect(self._cgroup_root)
        with contextlib.suppress(Unavailable):
            await self.facts()

    async def close(self) -> None:
        """Leaves the leases as they are: they go on while the daemon restarts."""
        for room in self._rooms.values():
            if room.gauge is not None:
                room.gauge.close()
        self._rooms.clear()
        await asyncio.to_thread(self._layers.close)
        await asyncio.to_thread(self._enclosure.close)
        await self._client.close()

    # -- ContainerHost -----------------------------------------------------------------------------
    async def facts(self) -> HostFacts:
        warnings = [*await self._wall_warnings(), *filter(None, [self._guards.warning])]
        self._facts, info = await machine.ask(self._client, self._home, warnings)
        self._enclosure.look(info)
        return self._facts

    async def _ask_once(self) -> None:
        """The cgroup driver decides where a lease lies; it does not change while an engine lives."""
        if self._facts is None:
            await self.facts()

    async def _wall_warnings(self) -> list[str]:
        if not self._walled:
            return ["the firewall is off: leases reach this machine and your LAN"]
        if wrong := await self._firewall.check():
            return [wrong]
        return [] if self._firewall.sees_bridged else [UNCOUNTED]

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        """Also after a crash or a reboot. Raises UsageError("lease.*") or Unavailable."""
        await self._ask_once()
        room = self._rooms.setdefault(lease, _Room())
        async with room.lock:
            self._ledger.enter(lease, limits)
            # At once: there is no container yet, or, after a restart, the walls and the network stand already.
            wall = [self._raise_wall(lease)] if self._walled else []
            walls = [*wall, self._engine.make_network(lease), self._make_group(lease, limits)]
            await together([*walls, self._enclosure.prepare(lease)])
            await self._volumes.mount_all(lease)
            await self._enclose_forgotten(lease)
            self._open_gauge(lease, room)
            if self._guards.set(lease):
                await self._engine.resume(lease, self._guards.path(lease))

    async def _enclose_forgotten(self, lease: LeaseId) -> None:
        """A crash may have come between the making of a container and its enclosure."""
        if self._enclosure.works:
            for each in await self._engine.containers(lease, "created"):
                await self._enclosure.enclose(lease, each["Id"])

    async def _raise_wall(self, lease: LeaseId) -> None:
        if not self._firewall.works and (wrong := await self._firewall.check()):
            raise unavailable(wrong)
        await self._firewall.prepare(lease)

    async def _make_group(self, lease: LeaseId, limits: Resources) -> None:
        if self._systemd:
            await self._slices.make(names.slice_unit(lease), limits)
        else:
            self._layout.make(self._group(lease), limits)

    async def pause(self, lease: LeaseId) -> None:
        if self.gate is not None:
            self.gate.hold(lease, PAUSED)  # first: whoever does not pay must not start what the freeze misses
        await self._engine.pause(lease)
        self._firewall.look_again()  # what is read now may be the last

    async def thaw(self, lease: LeaseId) -> None:
        await self._engine.thaw(lease)
        if self.gate is not None:
            self.gate.release(lease)

    async def read(self, lease: LeaseId) -> Reading:
        """Raises UsageError("lease.unknown"), or Unavailable("lease.unprepared") after a reboot."""
        room = self._known(lease)
        await self._ask_once()
        carried = await self._firewall.carried(lease) if self._walled else Carried()
        sample = self._sample(lease, room)
        return Reading(
            boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            boot=self._boot,
            run=self._run_id,
            cpu_ns=sample.cpu_ns,
            memory_bytes=sample.working_set,
            disk_bytes=self._volumes.held(lease) + self._written(lease),
            tunnel_in_bytes=room.count.into,
            tunnel_out_bytes=room.count.out,
            internet_out_bytes=carried.internet,
            replica_out_bytes=carried.replica,
            containers=sample.containers,
        )

    def _written(self, lease: LeaseId) -> int:
        return self._enclosure.held(lease) if self._enclosure.works else self._layers.held(lease)

    async def teardown(self, lease: LeaseId) -> None:
        """Raises Unavailable while the engine is silent or something is stuck: call again."""
        if lease not in self._ledger.present():
            return
        await self._ask_once()
        room = self._rooms.setdefault(lease, _Room())
        async with room.lock:
            await self._engine.remove_containers(lease, lambda: self._layout.thaw(self._group(lease)))
            self._guards.drop(lease)
            await self._engine.remove_volumes(lease)
            await self._engine.remove_networks(lease)
            await self._engine.remove_images(lease)
            await self._volumes.remove_all(lease)
            await self._enclosure.remove(lease)
            if self._walled:
                await self._firewall.remove(lease)
            await self._remove_group(lease, room)
            self._ledger.leave(lease)
        self._layers.forget(lease)
        self._tunnels.forget(lease)
        self._rooms.pop(lease, None)
        if self.gate is not None:
            self.gate.forget(lease)

    async def _remove_group(self, lease: LeaseId, room: _Room) -> None:
        if room.gauge is not None:
            room.gauge.close()
            room.gauge = None
        if self._systemd:
            await self._slices.remove(names.slice_unit(lease))
        else:
            await self._layout.remove(self._group(lease))

    async def present(self) -> frozenset[LeaseId]:
        return self._ledger.present()

    async def serve_engine(self, lease: LeaseId, stream: Stream) -> None:
        self._known(lease)
        if self.gate is None:
            raise Unavailable("engine.closed", "this node lends no engine; rent from another provider")
        await self.gate.serve(lease, self._ledger.limits(lease), stream)

    async def serve_tunnel(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        """Raises UsageError("tunnel.*") or Unavailable("tunnel.closed") before any byte is read."""
        await self._tunnels.serve(lease, container, port, stream, self._known(lease).count)

    async def serve_datagrams(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        """Raises as ``serve_tunnel`` does."""
        await self._tunnels.serve_datagrams(lease, container, port, stream, self._known(lease).count)

    async def serve_layers(
        self, lease: LeaseId, stream: Stream, open_source: OpenSource | None = None
    ) -> None:
        """Raises PeerError("image.*") after having told the sender; every other refusal is only told."""
        async with self._known(lease).receiving:
            await self._receiver.receive(lease, stream, open_source)

    async def serve_seed(self, lease: LeaseId, image: str, stream: Stream) -> None:
        self._known(lease)
        await self._seeder.serve(lease, image, self._ledger.folder(lease), stream)

    # -- LeaseRoom ---------------------------------------------------------------------------------
    def cgroup_parent(self, lease: LeaseId) -> str:
        return names.slice_unit(lease) if self._systemd else "/" + self._group(lease)

    def guard(self, lease: LeaseId) -> str:
        return self._guards.path(lease)

    def network(self, lease: LeaseId) -> str:
        return names.network(lease)

    def network_options(self, lease: LeaseId, n: int) -> dict[str, str]:
        return network_options(lease, n)

    async def enclose(self, lease: LeaseId, container: str) -> None:
        async with self._known(lease).lock:
            await self._enclosure.enclose(lease, container)

    async def written(self, lease: LeaseId, container: str) -> int | None:
        return await self._enclosure.written(lease, container)

    async def used(self, lease: LeaseId, container: str) -> ContainerUse | None:
        await self._ask_once()
        leaf = f"docker-{container}.scope" if self._systemd else container
        try:
            return inside.read(self._cgroup_root, self._layout.version, f"{self._group(lease)}/{leaf}")
        except OSError:
            return None

    async def create_volume(self, lease: LeaseId, name: str, size: int) -> str:
        async with self._known(lease).lock:
            return str(await self._volumes.create(lease, name, size))

    async def remove_volume(self, lease: LeaseId, name: str) -> None:
        async with self._known(lease).lock:
            path = self._volumes.mounts(lease).get(name, "")
            for each in await self._engine.containers(lease) if path else []:
                if any(mount.get("Source") == path for mount in each.get("Mounts") or []):
                    why = f"container {each['Id'][:12]} uses volume {name}; remove it first"
                    raise UsageError("volume.busy", why)
            await self._volumes.remove(lease, name)

    async def volumes(self, lease: LeaseId) -> dict[str, str]:
        return self._volumes.mounts(lease)

    async def volume_sizes(self, lease: LeaseId) -> dict[str, int]:
        return self._volumes.sizes(lease)

    # -- within ------------------------------------------------------------------------------------
    @property
    def _layout(self) -> cgroup.Layout:
        if self._groups is None:
            self._groups = cgroup.detect(self._cgroup_root)
        return self._groups

    @property
    def _systemd(self) -> bool:
        return self._facts is not None and self._facts.cgroup_driver == "systemd"

    def _group(self, lease: LeaseId) -> str:
        """Below the hierarchy's root, whichever driver made it."""
        if self._systemd:
            return Slices.group(names.slice_unit(lease))
        return f"dockage/{names.checked(lease)}"

    def _known(self, lease: LeaseId) -> _Room:
        """Also one that an earlier run of the daemon prepared."""
        if (room := self._rooms.get(lease)) is None:
            self._ledger.limits(lease)
            room = self._rooms.setdefault(lease, _Room())
        return room

    def _open_gauge(self, lease: LeaseId, room: _Room) -> cgroup.Gauge:
        if room.gauge is not None:
            room.gauge.close()
            room.gauge = None
        try:
            room.gauge = self._layout.gauge(self._group(lease))
        except OSError as error:
            why = f"lease {lease.hex()[:8]} has no cgroup ({error}); prepare it again"
            raise Unavailable("lease.unprepared", why) from error
        return room.gauge

    def _sample(self, lease: LeaseId, room: _Room) -> cgroup.Sample:
        try:
            if room.gauge is not None:
                return room.gauge.read()
        except OSError:
            pass  # the group was removed and made again under us
        try:
            return self._open_gauge(lease, room).read()
        except OSError as error:
            raise Unavailable(
                "lease.unprepared", f"the cgroup of lease {lease.hex()[:8]} went away"
            ) from error
