"""What the daemon needs from the outside world: one Protocol each, by role.

Adapters implement them; ``daemon/system.py`` alone knows which adapter stands behind which port. Each
port says its limits: what may block, for how long, and which error means what. ``UsageError`` and
``Unavailable`` (domain/errors.py) are the only exceptions that cross a port, besides cancellation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from dockage.domain.checks import Look
from dockage.domain.deployment import Document
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.pricing import Tariff
from dockage.domain.query import Excerpt, Query
from dockage.domain.resources import Resources
from dockage.domain.units import Instant, Sat
from dockage.domain.usage import Reading
from dockage.protocol.adverts import Advert
from dockage.protocol.docker.recipe import Recipe
from dockage.protocol.docker.stats import ContainerUse
from dockage.protocol.documents import Signs
from dockage.protocol.images import Manifest, Source


# -- the machine itself ------------------------------------------------------------------------------
class Clock(Protocol):
    def now(self) -> Instant:
        """Wall time, ns since the epoch."""


class Keys(Protocol):
    """The node's Ed25519 identity. The secret never leaves the adapter."""

    @property
    def node(self) -> NodeKey: ...

    def sign(self, message: bytes) -> bytes:
        """A 64-byte Ed25519 signature (RFC 8032)."""

    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        """False for anything that is not a valid signature, whatever its length or shape."""


class Row(NamedTuple):
    """One machine's state: the lease or channel *key* of *kind* is now *value*."""

    kind: str
    key: bytes
    value: bytes


class Journal(Protocol):
    """The durable state of every machine. Written before any effect is performed."""

    def write(self, rows: Sequence[Row]) -> None:
        """All rows or none; returns only once they would survive ``kill -9``."""

    def load(self, only: Collection[str] = (), without: Collection[str] = ()) -> Iterable[Row]:
        """The newest row of each (kind, key), in the order of first writing; of the kinds *only*, if any are
        named, and none of the kinds *without*."""

    def forget(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Drop these (kind, key), those that are there: all or none. For what only grows old, never for a lease
        or a channel."""

    def close(self) -> None: ...


class Evidence(Protocol):
    """Where proofs against peers are kept for our user: small files, written once and never changed."""

    def keep(self, name: str, data: bytes) -> str:
        """Where it is, for people. Keeping it twice changes nothing; a full store keeps what it has."""


# -- peers -------------------------------------------------------------------------------------------
class Stream(Protocol):
    """One bidirectional byte stream to an authenticated peer, with back-pressure and half-close."""

    async def read(self, limit: int) -> bytes:
        """Up to *limit* bytes once there are any; ``b""`` once the peer finished. Unavailable if it broke."""

    async def write(self, data: bytes) -> None:
        """Returns when the bytes are taken over by the transport."""

    async def finish(self) -> None:
        """Half-close: no more writing; the peer reads to the end and can still answer."""

    def abort(self) -> None:
        """Drop both directions now. Never raises, may be called twice."""


class Address(NamedTuple):
    """How a node can be reached, as it says itself: a relay URL or "" and ``ip:port`` strings."""

    relay: str
    direct: tuple[str, ...]


AcceptStream = Callable[[NodeKey, Stream], Awaitable[None]]
"""Serves one incoming stream of the peer whose key the handshake proved; owns and closes the stream."""


class PeerLink(Protocol):
    """Connections by key. One stream per call; connections are kept and shared underneath."""

    @property
    def node(self) -> NodeKey: ...

    def address(self) -> Address: ...

    def learn(self, peer: NodeKey, address: Address) -> None:
        """Remember how *peer* can be reached (bounded memory; the newest wins)."""

    def current(self, peer: NodeKey) -> object | None:
        """Which connection a new stream would be on, for comparing; None: a dial would come first."""

    async def open(self, peer: NodeKey, timeout: float = 10.0) -> Stream:
        """A new stream, over the live connection if there is one (also one that the peer dialled).
        Raises Unavailable("peer.unreachable") after *timeout* seconds."""

    async def serve(self, accept: AcceptStream) -> None:
        """Accept until cancelled."""

    async def close(self) -> None: ...


class NatLink(PeerLink, Protocol):
    """What a node behind a NAT needs of its link besides."""

    def seen(self, peer: NodeKey) -> str:
        """The ``ip:port`` that a connected peer uses; "" if it is relayed or not connected."""

    async def advertise(self, address: str) -> None:
        """Add an ``ip:port`` to our own address. Raises Unavailable("link.address")."""

    async def withdraw(self, address: str) -> None:
        """Take it away again."""

    async def use_relay(self, url: str) -> None:
        """Be reachable through it, too. Raises Unavailable("link.relay")."""

    async def leave_relay(self, url: str) -> None: ...


class RelayFigures(NamedTuple):
    """What the relay that this node runs for others has done since the start."""

    clients: int
    """Now."""
    passed_bytes: int
    dropped_frames: int
    """Their reader was too slow."""
    throttled_sec: float
    """Waited, over all clients, because one sent more than its share."""
    refused: Mapping[str, int]
    """Connections and clients by the reason why."""


class Neighbours(Protocol):
    """Who else is on the local network. All that is heard is a hint: the handshake proves a key."""

    def use(self) -> AbstractAsyncContextManager[None]:
        """Listening, and saying what was announced, while anybody is inside. Raises Unavailable("lan.silent")."""

    async def announce(self, advert: Advert | None) -> None:
        """What we say of ourselves from now on; None: nothing. Raises Unavailable("lan.silent")."""

    async def heard(self) -> Sequence[Advert]:
        """At most 64 others, within two seconds."""


class PublicSquare(Protocol):
    """A place on the internet that everybody knows, where market nodes can be asked for and say where they are."""

    async def find(self, within: float) -> Sequence[tuple[NodeKey, Address]]:
        """At most 64 hints, after *within* seconds and three more at the latest. Raises Unavailable("mainline.*")."""

    async def stand(self) -> None:
        """Say that we are one of them, until cancelled."""


class Pake(Protocol):
    """Our side of a password-authenticated key exchange: who has another password comes to another key, and learns
    nothing else of ours."""

    @property
    def message(self) -> bytes:
        """For the other side; at most 64 bytes."""

    def finish(self, theirs: bytes) -> bytes:
        """32 secret bytes, from the other side's message. Raises PeerError("link.malformed")."""


class NewPake(Protocol):
    def __call__(self, password: str, parties: tuple[bytes, bytes], *, first: bool) -> Pake: ...


class Directory(Protocol):
    """The market's notice board: signed records under topics. Its answers are already verified."""

    async def publish(self, topic: bytes, record: bytes) -> int:
        """Store at the closest nodes; returns how many took it. Raises Unavailable("market.unreachable")."""

    async def search(self, topic: bytes) -> Sequence[bytes]:
        """The newest valid record of each publisher under *topic*."""

    async def select(self, topic: bytes, query: Query) -> Excerpt:
        """The best offers under *topic*, at most ``query.most`` of each holder that is asked.
        Raises Unavailable("market.unreachable")."""


# -- containers --------------------------------------------------------------------------------------
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
        """Name of the engine network that ``prepare`` made: where containers go by default."""

    def bridge_name(self, lease: LeaseId, n: int) -> str:
        """Linux interface name (at most 15 characters) of the lease's *n*-th network, 0 to 999; 0 is the
        default network. The firewall covers exactly these names."""

    def network_options(self, lease: LeaseId, n: int) -> dict[str, str]:
        """``Options`` of ``POST /networks/create`` for the lease's *n*-th network (driver ``bridge``)."""

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


# -- the tenant's side of the market, as the Docker front sees it --------------------------------------
Progress = Callable[[str], None]
"""Takes one line for people about a step that takes longer than a second."""


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
    ends_why: str = ""


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


# -- bitcoin -----------------------------------------------------------------------------------------
class Outpoint(NamedTuple):
    txid: str
    """Hex in the usual (reversed) display order."""
    vout: int


class Coin(NamedTuple):
    """An unspent output as the node sees it now."""

    value: Sat
    script: bytes
    confirmations: int
    coinbase: bool


class ChainTx(NamedTuple):
    txid: str
    raw: bytes
    fee: Sat


class Chain(Protocol):
    """A view of the bitcoin chain. Raises Unavailable("chain.unreachable") when the node does not answer."""

    @property
    def sees_mempool(self) -> bool:
        """False for a light client: of what waits, and of what neither pays nor spends from our wallet, it knows
        only what was broadcast through it. ``None`` then means "unknown", not "not there"."""

    async def network(self) -> str:
        """ "regtest", "signet", "testnet4" or "main"."""

    async def height(self) -> int: ...

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        """None if unknown or spent (the mempool counts as spent)."""

    async def depth(self, txid: str) -> int | None:
        """Confirmations, 0 in the mempool, None if the node does not know it (or it was replaced)."""

    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        """The confirmed transaction that spent *outpoint*, looked for from block *from_height* on (fee 0 =
        not known)."""

    async def broadcast(self, raw: bytes) -> str:
        """The txid; idempotent for a known one. Raises UsageError("chain.refused") with the reason. A light client
        learns of no reason: what it sends may still be refused, and then never confirms."""

    async def feerate(self, target_blocks: int) -> int:
        """sat per 1000 vB, never below the relay minimum, capped."""


class Balance(NamedTuple):
    confirmed: Sat
    pending: Sat


class Wallet(Protocol):
    """The user's own coins. Never holds anybody else's."""

    async def receive(self) -> str:
        """A fresh bech32m address."""

    async def script(self) -> bytes:
        """The scriptPubKey of a fresh address."""

    async def unused(self) -> bytes:
        """The scriptPubKey of an address that nobody has paid yet, where it matters little who else knows it: what
        strangers ask for must not use addresses up."""

    async def balance(self) -> Balance: ...

    async def fund(self, outputs: Sequence[tuple[bytes, Sat]], feerate: int) -> ChainTx:
        """A signed transaction that pays *outputs* (scriptPubKey, sat); its coins are locked, it is NOT yet
        broadcast. Raises UsageError("wallet.insufficient") naming what is missing."""

    async def forget(self, tx: ChainTx) -> None:
        """Unlock the coins of a transaction that will not be broadcast."""

    async def send(self, address: str, amount: Sat, feerate: int) -> ChainTx:
        """Pay a plain address and broadcast."""
