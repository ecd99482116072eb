"""The names of things. A node *is* its Ed25519 key; leases and channels get random ids from outside."""

from typing import NewType

NodeKey = NewType("NodeKey", bytes)
"""32-byte Ed25519 public key: the node's name in connections, offers and statements."""
LeaseId = NewType("LeaseId", bytes)
"""16 random bytes, chosen by the tenant."""
ChannelId = NewType("ChannelId", bytes)
"""16 random bytes, chosen by the tenant; unique per (tenant, provider) pair."""


def short(name: bytes) -> str:
    """The first eight hex digits: for people and logs, never for look-ups that spend money."""
    return name.hex()[:8]
