"""What a provider and a gateway need to run and reach what is leased from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from dockage.domain.checks import Look
from dockage.domain.deployment import Document
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.pricing import Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import Instant
from dockage.domain.usage import Reading
from dockage.ports.peers import Stream
from dockage.protocol.docker.stats import ContainerUse
from dockage.protocol.documents import Signs
from dockage.protocol.images import Source


class HostFacts(NamedTuple):
    """What this machine is, for the offer and for ``dockage provide`` to print."""

    engine_version: str
    cgroup_version: int
    cgroup_driver: str
    architecture: str
    capacity: Resources
    warnings: tuple[str, ...] = ()
    """What does not work here and what to do about it, one sentence each."""


class Resolver(Protocol):
    """The DNS of the world, as a gateway asks it whose a domain is."""

    async def texts(self, name: str) -> tuple[str, ...]:
        """The TXT records of *name*, each in one piece. Raises Unavailable("dns.*")."""

    async def alias(self, name: str) -> str | None:
        """What *name* is a CNAME of, if it is one. Raises Unavailable("dns.*")."""


OpenSource = Callable[[Source], Awaitable[Stream]]
"""A stream that ends in the other provider's ``serve_seed``. Raises Unavailable."""


class ContainerHost(Protocol):
    """The provider's machine, lease by lease. Every method is idempotent: recovery calls them again."""

    async def facts(self) -> HostFacts:
        """Raises Unavailable("engine.unreachable") with what to do."""

    async def prepare(self, lease: LeaseId, limits: Resources) -> None:
        """Make (or adjust) the lease's cgroup, bridge, firewall and disk."""

    async def pause(self, lease: LeaseId) -> None: ...

    async def thaw(self, lease: LeaseId) -> None: ...

    async def read(self, lease: LeaseId) -> Reading:
        """One raw reading now; about 40 us of CPU."""

    async def teardown(self, lease: LeaseId) -> None:
        """Remove everything of the lease: afterwards nothing of it is left on the machine."""

    async def present(self) -> frozenset[LeaseId]:
        """The leases that still have anything on the machine."""

    async def serve_engine(self, lease: LeaseId, stream: Stream) -> None:
        """One HTTP/1.1 exchange of the Docker Engine API, through the allow-list filter."""

    async def serve_tunnel(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        """Splice *stream* to a TCP port of a container of this lease, counting payload bytes."""

    async def serve_datagrams(self, lease: LeaseId, container: str, port: int, stream: Stream) -> None:
        """The same for a UDP port: one datagram a frame, until the flow is idle."""

    async def serve_layers(
        self, lease: LeaseId, stream: Stream, open_source: OpenSource | None = None
    ) -> None:
        """Receive one image by content: only the layers that are missing here, first from the sources that the
        sender names, if they can be opened."""

    async def serve_seed(self, lease: LeaseId, image: str, stream: Stream) -> None:
        """Give layers of an image (``sha256:...``) that the lease has; the asker names them (spec 06). Raises
        UsageError("image.unknown") or Unavailable."""


OpenPeer = Callable[[NodeKey, float], Awaitable[Stream]]
"""A stream to a peer within so many seconds; as ``PeerLink.open``, and looks a peer that moved up in the market."""


class Gateway(Protocol):
    """The relay of a gateway, as the daemon tells it what to serve. Its ``ContainerHost`` half meters and pauses.

    For DNS: ``documents`` is all that may be answered for, ``signs`` says which replicas are up."""

    def connect(self, open_peer: OpenPeer) -> None:
        """How replicas are reached; before anything is served."""

    async def publish(self, lease: LeaseId, document: Document) -> None:
        """Route by *document* from now on. Raises UsageError("document.*" | "site.*")."""

    def withdraw(self, lease: LeaseId) -> None:
        """Stop routing. No error if there is nothing."""

    def documents(self) -> Mapping[LeaseId, Document]:
        """What is served now, expired ones left out."""

    def signs(self, lease: LeaseId) -> Signs | None:
        """How the deployment at *lease* looks from here; None if nothing is published there."""

    async def moved(self, lease: LeaseId, within: float) -> None:
        """Returns when its signs have changed in a way that cannot wait (a replica fell out or came back, or somebody
        waits for one), or after *within* seconds."""

    def drop(self, names: Collection[str]) -> Collection[LeaseId]:
        """Never serve these (host names, tenants' keys in hex); the leases that lost their document. Replaces what
        was dropped before."""

    async def serve(self) -> None:
        """Listen and watch, until cancelled."""


LEASE_LABEL = "dockage.lease"
"""On every container, network and volume of a lease; the value is the lease id in full hex."""


class LeaseRoom(Protocol):
    """What a lease has on the machine, for the filter that rewrites its Engine API calls.

    The names are pure functions of the lease id; volumes are files with a hard size."""

    def cgroup_parent(self, lease: LeaseId) -> str:
        """``HostConfig.CgroupParent`` of every container of the lease."""

    def guard(self, lease: LeaseId) -> str:
        """A host folder that is there exactly while the lease is prepared: each container binds it, so that none
        starts without its walls. "" where there can be none."""

    def network(self, lease: LeaseId) -> str:
        """Name of the engine network that ``prepare`` made: where containers go by default, by its id."""

    def network_options(self, lease: LeaseId, n: int) -> dict[str, str]:
        """``Options`` of ``POST /networks/create`` for the lease's *n*-th network (driver ``bridge``), 0 to 999; 0 is
        the default one. The firewall covers exactly the bridges that they name."""

    async def enclose(self, lease: LeaseId, container: str) -> None:
        """Put what *container* (a full id; created, never started) will write onto the lease's own disk."""

    async def written(self, lease: LeaseId, container: str) -> int | None:
        """Bytes of the files in an enclosed container's own layer; None of another: the engine itself knows."""

    async def used(self, lease: LeaseId, container: str) -> ContainerUse | None:
        """What *container* (a full id) uses now, for people to look at; None while it does not run."""

    async def create_volume(self, lease: LeaseId, name: str, size: int) -> str:
        """The host path to bind, on a file system of at most *size* bytes. Idempotent by name (the first size
        stays). Raises UsageError("volume.*") when the lease's disk is not enough or the name is bad."""

    async def remove_volume(self, lease: LeaseId, name: str) -> None:
        """Also succeeds when there is none. Raises UsageError("volume.busy") while a container uses it."""

    async def volumes(self, lease: LeaseId) -> dict[str, str]:
        """Name to host path."""

    async def volume_sizes(self, lease: LeaseId) -> dict[str, int]:
        """Name to bytes in blocks that are taken now."""


class Prober(Protocol):
    """The tenant's eyes inside its own lease."""

    async def look(
        self, lease: LeaseId, since: Instant, until: Instant, touch_bytes: int, processes: int
    ) -> Look:
        """Read every container's own counters and have so many processes work beside them for half a second. *since*
        and *until* are on the provider's clock: a container that started or ended between them makes the look
        incomplete. Raises Unavailable or UsageError when the lease's engine does not do it."""


class PricePolicy(Protocol):
    """What new leases cost. Its answer never touches a lease that runs."""

    async def tariff(self, base: Tariff, sold_permille: int) -> Tariff:
        """From the prices in the config and how much of the machine is sold. Raises Unavailable("price.*") while
        there is none; takes ten seconds at most."""
