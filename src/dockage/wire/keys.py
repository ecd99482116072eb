"""A node's Ed25519 key (RFC 8032), from 32 bytes of seed."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dockage.domain.identity import NodeKey


class SeedKeys:
    """A Keys port. ``seed`` is also what the link's handshake and the channels' keys are made from."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.node = NodeKey(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.node.hex()[:8]}>"  # never the seed

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        return verify(key, message, signature)


def verify(key: NodeKey, message: bytes, signature: bytes) -> bool:
    """False for anything that is not a valid signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
