"""Real Ed25519 identities from a number: the same in every run, no file."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dockage.domain.identity import NodeKey


class MemoryKeys:
    """A Keys port. ``seed`` is what a real link is made from."""

    def __init__(self, number: int) -> None:
        self.seed = hashlib.sha256(b"dockage test key %d" % number).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self._node = NodeKey(self._key.public_key().public_bytes_raw())

    @property
    def node(self) -> NodeKey:
        return self._node

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        return verify(key, message, signature)


def verify(key: NodeKey, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
