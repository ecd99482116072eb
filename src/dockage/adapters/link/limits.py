"""Every bound of the peer link in one place: what a stranger can make us hold or wait for."""

from __future__ import annotations

from dataclasses import dataclass

ALPN = b"dockage/1"
"""One protocol for everything: the first frame of a stream says what it is for (docs/spec/01-frames.md)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    peers_known: int = 4096
    """Address book entries; the longest unused one goes first."""
    addresses_per_peer: int = 8
    connections: int = 1024
    """About 80 kB each. At the limit the longest idle one is closed; if all are busy, newcomers are refused."""
    connections_per_peer: int = 3
    """Two after a simultaneous dial, and one for the moment of a reconnect."""
    handshakes: int = 64
    """In progress at once; from a quarter of it on, an address must prove itself by a QUIC retry first."""
    streams_per_connection: int = 1024
    """Incoming and open at once. The transport's own default of 99 makes ``open_bi`` wait silently. A stream holds at
    most 1.19 MiB that nobody read yet; all of a connection together have no further bound: the binding's
    ``set_receive_window`` comes after the handshake has granted an unlimited one, and changes nothing (measured)."""
    streams: int = 8192
    """Incoming over all connections."""
    handshake_sec: float = 10.0
    close_sec: float = 5.0
    """The transport waits up to 3 s for dials that are under way."""
    heartbeat_sec: float = 5.0
    """The transport itself notices a vanished peer only after 30 s."""
    silence_sec: float = 3.0
    """A probe that stays unanswered this long ends the connection."""


DEFAULT = Limits()
