"""Every bound on what strangers can make a node's network side hold or wait for, in one place.

The link (QUIC), the relay (TCP) and the messages on top; docs/reference/limits.md is made from the docstrings.
Times are in seconds, sizes in bytes. The market's own are in ``adapters/dht/limits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkLimits:
    peers_known: int = 4096
    """Address book entries; the longest unused one goes first."""
    addresses_per_peer: int = 8
    """The newest ones."""
    connections: int = 1024
    """About 80 kB each. At the limit the longest idle one is closed; if all are busy, newcomers are refused."""
    connections_per_peer: int = 3
    """Two after a simultaneous dial, and one for the moment of a reconnect."""
    handshakes: int = 64
    """In progress at once; from a quarter of it on, an address must prove itself by a QUIC retry first."""
    source_rate: int = 20
    """New connections a second from one address (IPv6: one /64), on average; what is beyond it is not answered."""
    source_burst: int = 100
    """The same at once. The second half of it is only for an address that has proven itself by a QUIC retry: nobody
    can use up another's share with forged packets."""
    sources: int = 4096
    """Addresses whose rate is remembered."""
    streams_per_connection: int = 1024
    """Incoming and open at once. The transport's own default of 99 makes ``open_bi`` wait silently. A stream holds at
    most 1.19 MiB that nobody read yet, and 256 KiB more once somebody began to; all of a connection together have no
    further bound: the binding's ``set_receive_window`` comes after the handshake has granted an unlimited one, and
    changes nothing (measured)."""
    streams: int = 8192
    """Incoming over all connections."""
    handshake_sec: float = 10.0
    """From the first packet to a connection."""
    close_sec: float = 5.0
    """The transport waits up to 3 s for dials that are under way."""
    heartbeat_sec: float = 5.0
    """The transport itself notices a vanished peer only after 30 s."""
    silence_sec: float = 3.0
    """A probe that stays unanswered this long ends the connection."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Of the relay that a node runs for others. ``[relay]`` of the configuration sets the first three."""

    clients: int = 1000
    """At once; about 30 kB each."""
    rate: int = 4_000_000
    """Bytes a second that one client may send, on average; one second's worth at once. Beyond it we read slower."""
    rate_total: int = 16_000_000
    """The same for all clients together."""
    rate_source: int = 8_000_000
    """The same for all clients of one address (IPv6: one /64) together: a key costs nothing."""
    visitors: int = 2048
    """TCP connections, those of clients among them."""
    visitors_per_source: int = 64
    """The same from one address (IPv6: one /64)."""
    source_rate: int = 10
    """New TCP connections a second from one address, on average."""
    source_burst: int = 100
    """The same at once."""
    sources: int = 4096
    """Addresses whose rate is remembered."""
    handshake_sec: float = 10.0
    """From the upgrade to WebSocket to a proven key; also how long a visitor may ask for nothing."""
    queue_frames: int = 512
    """Waiting for one client; what comes then is dropped, which QUIC takes as the sign to slow down."""
    queue_bytes: int = 1 << 20
    """The same in bytes."""
    write_sec: float = 10.0
    """A client that takes nothing for so long is closed."""
    ping_sec: float = 15.0
    """Between two pings of a client."""
    silence_sec: float = 45.0
    """A client that has not been heard for so long is closed."""


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Of the messages between nodes (``daemon/peers.py``)."""

    outbox: int = 256
    """Messages waiting for one peer. Beyond it the oldest goes: every message may be lost, the newest says most."""
    sending: int = 1_000
    """Peers that we are sending to at this moment; half of the jobs there may be, so that silent peers can't take
    the machine's and the chain's turns."""
    streams: int = 1_024
    """Open streams to peers; the longest unused one goes first."""
    peers: int = 4_096
    """Peers whose rate is remembered."""
    message_streams: int = 8
    """From one peer at once. One is used; others are left over from connections that broke."""
    bundles: int = 8
    """From one peer at once: streams that carry many others."""
    bundled: int = 8_192
    """Streams inside of bundles, of all peers together; beyond it a newcomer is reset."""
    unread: int = 128 << 20
    """Bytes of them that nobody read yet, together; what comes when there are so many costs its stream."""
    send_sec: float = 20.0
    """For one message, a look-up of a peer that moved included."""
    dial_sec: float = 5.0
    """For a connection to a peer that has a known address."""
    header_sec: float = 10.0
    """From a stream's opening to its first frame."""
    rate: int = 500
    """Messages a second from one peer, on average; twice as many at once."""


LINK = LinkLimits()
RELAY = RelayLimits()
PEERS = PeerLimits()
