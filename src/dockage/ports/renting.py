"""The tenant's side of the market, as the Docker front sees it: leases, copies of deployments, images."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import Resources
from dockage.domain.units import Instant
from dockage.ports.peers import Stream
from dockage.protocol.docker.recipe import Recipe
from dockage.protocol.images import Manifest
from dockage.protocol.registry import Credentials

Progress = Callable[[str], None]
"""Takes one line for people about a step that takes longer than a second."""
Line = dict[str, Any]
"""One of the JSON lines in which an engine tells how a pull goes (ImageCreate, Engine API v1.44)."""


class LeaseInfo(NamedTuple):
    """A lease of ours, for labels on ``docker ps`` and for errors."""

    id: LeaseId
    deployment: str
    provider: NodeKey
    state: str
    """A ``domain.lease.LeaseState`` value."""
    limits: Resources
    msat_hour: int
    """Worst-case price of one hour, network aside."""
    reason: str
    """Why it is paused or ended; "" while it runs."""
    ends_at: Instant = Instant(0)
    """When the provider will end it, as it has announced; 0 while that is open."""


class Leases(Protocol):
    """Rents engines in the market. Everything it opens is a Stream to the provider that holds the lease."""

    async def obtain(
        self, deployment: str, need: Resources, wishes: Mapping[str, str], progress: Progress
    ) -> LeaseInfo:
        """The running lease of *deployment*, grown by *need* if it is there, else a new one: finds a provider,
        opens the channel, waits until the lease runs. *wishes* are ``dockage.*`` labels. Raises
        UsageError("market.nothing-fits" | "wallet.insufficient" | "channel.small" | ...) or Unavailable."""

    async def rename(self, lease: LeaseId, deployment: str) -> LeaseInfo:
        """An idle lease serves another deployment from now on. Raises Unavailable("lease.ended")."""

    async def release(self, lease: LeaseId) -> None:
        """End the lease at its provider; returns once the provider confirmed or 10 s passed."""

    def all(self) -> Sequence[LeaseInfo]:
        """Every lease that has not ended, oldest first."""

    async def engine(self, lease: LeaseId) -> Stream:
        """For one HTTP/1.1 exchange of the Engine API. Raises Unavailable("lease.ended" | "peer.unreachable")."""

    async def tunnel(self, lease: LeaseId, container: str, port: int) -> Stream:
        """To a TCP port of a container of the lease (full container id); payload is counted."""

    async def datagrams(self, lease: LeaseId, container: str, port: int) -> Stream:
        """To a UDP port, for one flow: a frame is a datagram (wire/datagrams.py); counted with its frame's head."""

    async def layers(self, lease: LeaseId) -> Stream:
        """For the sending of one image (spec 06)."""


class Spot(NamedTuple):
    """Where a container is."""

    lease: LeaseId
    remote: str
    """Its id at the lease's engine."""


Placed = Mapping[str, Spot]
"""By our id of the container."""


class Copies(Protocol):
    """The Docker front as a controller uses it: deployments as values, set up again in other leases. All raise what
    asking a lease's engine raises: UsageError, Unavailable, PeerError."""

    def deployments(self) -> Sequence[str]:
        """Those that have a container."""

    def lease_of(self, deployment: str) -> LeaseId | None:
        """The lease that our user's commands go to."""

    def where(self, deployment: str) -> Placed:
        """Its containers as our user's commands reach them."""

    def recipe(self, deployment: str) -> Recipe:
        """Raises UsageError("recipe.unknown" | "recipe.incomplete")."""

    async def replay(
        self, recipe: Recipe, lease: LeaseId, progress: Progress, *, start: bool = True
    ) -> Placed:
        """Set it up; may be cut and repeated."""

    async def start_replayed(self, recipe: Recipe, placed: Placed, progress: Progress) -> None: ...

    async def stop_replayed(self, placed: Placed) -> None:
        """Stop all of it; what does not run stays so."""

    async def adopt(self, deployment: str, placed: Placed) -> None:
        """From now on our user's docker and published ports lead there."""


class StoredImage(NamedTuple):
    manifest: Manifest
    tags: tuple[str, ...]
    """``name:tag`` in the short form, in the order of their making."""
    since: Instant
    """When it was tagged last."""
    digests: tuple[str, ...] = ()
    """``repository@sha256:...`` of what was pulled."""


class ImageStore(Protocol):
    """Images on a tenant's machine without a Docker engine. A reference is a name (``app``, ``app:1``) or the
    beginning of an id; one that fits none raises UsageError("image.unknown"), one that fits several
    UsageError("image.ambiguous")."""

    def all(self) -> Sequence[StoredImage]:
        """Newest first."""

    def find(self, reference: str) -> StoredImage: ...

    async def load(self, archive: AsyncIterator[bytes]) -> Sequence[str]:
        """The names (ids of nameless images) that came with a ``docker save`` archive, raw or compressed. Raises
        UsageError("image.strange" | "image.store-full")."""

    async def tag(self, reference: str, name: str) -> None: ...

    async def remove(self, reference: str, force: bool) -> tuple[Sequence[str], Sequence[str]]:
        """(names taken away, ids of images that are gone). Raises UsageError("image.conflict") for an id with
        several names, unless *force*."""

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """An archive for ``docker load``. Raises before the first piece."""


class LeftImages(Protocol):
    """Images that linked machines leave with us, by id; ``adapters/images/left.py``."""

    def lacks(self, ids: Collection[str]) -> Sequence[str]: ...

    async def receive(self, stream: Stream) -> None:
        """One image. Raises PeerError; any other end is told to who sends."""

    async def retain(self, ids: Collection[str]) -> None:
        """Only these, and what has just come."""


class Puller(Protocol):
    """Registries, for a tenant's machine without a Docker engine."""

    def pull(self, name: str, platform: str, credentials: Credentials) -> AsyncGenerator[Line]:
        """Into the store of images. *platform*: ``os/architecture``, "" for this machine's. Raises
        UsageError("image.*" | "registry.*"), PeerError for a registry that lies, Unavailable."""

    async def login(self, credentials: Credentials) -> None:
        """Raises UsageError("registry.denied") if the registry does not take them, Unavailable."""
