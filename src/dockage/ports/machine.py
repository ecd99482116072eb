"""The machine a node runs on: its clock, its identity and its durable state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from dockage.domain.identity import NodeKey
from dockage.domain.units import Instant


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


class Supervisor(Protocol):
    """Who started us and starts us anew, such as systemd. Telling it something never fails and never waits."""

    @property
    def is_there(self) -> bool: ...

    @property
    def watchdog_sec(self) -> float:
        """Within which time it must hear ``WATCHDOG=1`` again, or we are taken for dead; 0: it does not watch."""

    def tell(self, *lines: str) -> None:
        """Such as ``READY=1``, ``STATUS=...`` (sd_notify(3))."""


class Evidence(Protocol):
    """Where proofs against peers are kept for our user: small files, written once and never changed."""

    def keep(self, name: str, data: bytes) -> str:
        """Where it is, for people. Keeping it twice changes nothing; a full store keeps what it has."""
