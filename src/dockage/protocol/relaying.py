"""The frames between a relay and its clients: iroh's relay protocol, ``iroh-relay-v2`` and ``-v1``.

Each is one binary WebSocket message: a type (one byte, as all types are below 64 in QUIC's varint), then its body.
A relay proves who a client is, passes on datagrams that it cannot read, and answers pings; nothing else is taken.
Source: n0-computer/iroh, ``iroh-relay/src/protos`` (2026-11).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey

PATH = "/relay"
VERSIONS = ("iroh-relay-v2", "iroh-relay-v1")
"""WebSocket sub-protocols, best first."""
CONTEXT = "iroh-relay handshake v1 challenge signature"
"""BLAKE3 derives from it and the challenge the 32 bytes that the client signs (Ed25519)."""
CHALLENGE_SIZE = 16
DATAGRAMS_MAX = 1 << 16
"""Bytes after a frame's type, as in the source."""
FRAME_MAX = 1 + DATAGRAMS_MAX

CHALLENGE, AUTH, CONFIRMED, DENIED, SENT, SENT_BATCH, PASSED, PASSED_BATCH, GONE, PING, PONG = range(11)
STATUS = 13
SAME_KEY, THROTTLED = 1, 2
"""Bodies of a status, which only the second version knows."""

_AUTH_SIZE = 1 + 32 + 1 + 64
_KEY_END = 33
_LEAST = {SENT: _KEY_END + 1, SENT_BATCH: _KEY_END + 3}
"""With the ECN byte, and a batch's segment size."""


class Auth(NamedTuple):
    """A client's answer to the challenge; nothing is proven before the signature is checked."""

    key: NodeKey
    signature: bytes


class Datagrams(NamedTuple):
    """For *to*; ``passed_on`` is the frame that it gets."""

    to: NodeKey
    frame: bytes

    @property
    def size(self) -> int:
        """Bytes of the datagrams themselves, all of a batch: what is paid for."""
        return len(self.frame) - _LEAST[self.frame[0]]

    def passed_on(self, sender: NodeKey) -> bytes:
        return bytes((self.frame[0] + PASSED - SENT,)) + sender + self.frame[_KEY_END:]


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


FromClient: TypeAlias = Datagrams | Ping | Pong


def decode_auth(frame: bytes) -> Auth:
    """Raises PeerError("relay.auth"). Bytes as postcard writes them: key, length, signature."""
    if len(frame) != _AUTH_SIZE or frame[0] != AUTH or frame[_KEY_END] != 64:
        raise PeerError("relay.auth", "the answer to a relay's challenge is a key and a signature")
    return Auth(NodeKey(frame[1:_KEY_END]), frame[_KEY_END + 1 :])


def decode(frame: bytes) -> FromClient:
    """What a client that is known may say. Raises PeerError("relay.frame")."""
    kind = frame[0] if frame else -1
    if len(frame) <= FRAME_MAX:
        if kind in _LEAST and len(frame) >= _LEAST[kind]:
            return Datagrams(NodeKey(frame[1:_KEY_END]), frame)
        if kind in (PING, PONG) and len(frame) == 9:
            return (Ping if kind == PING else Pong)(frame[1:])
    raise PeerError("relay.frame", f"a relay takes no frame of type {kind} and {len(frame)} bytes")


def challenge(nonce: bytes) -> bytes:
    return bytes((CHALLENGE,)) + nonce


def confirmed() -> bytes:
    return bytes((CONFIRMED,))


def denied(why: str) -> bytes:
    """*why* in at most 127 bytes of ASCII."""
    text = why.encode("ascii")[:127]
    return bytes((DENIED, len(text))) + text


def gone(key: NodeKey) -> bytes:
    return bytes((GONE,)) + key


def ping(payload: bytes) -> bytes:
    return bytes((PING,)) + payload


def pong(payload: bytes) -> bytes:
    return bytes((PONG,)) + payload


def status(code: int) -> bytes:
    return bytes((STATUS, code))
