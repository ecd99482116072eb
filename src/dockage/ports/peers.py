"""Other nodes: the link to them, who is near, and the directory of the market."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from dockage.domain.identity import NodeKey
from dockage.domain.query import Excerpt, Query
from dockage.protocol.adverts import Advert


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

    def relayed(self, url: str) -> tuple[int, int]:
        """Bytes of datagrams (sent, received) through it on all our connections, since this was first asked."""


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
    unpaid_frames: int = 0
    """Not passed on, as neither side has a lease that runs."""


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
