"""An Ed25519 identity in a file that only its owner can read: 32 bytes of seed, in hex.

The seed also feeds the link's handshake and derived keys (channels); it is handed out by this class alone.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey


class FileKeys:
    """Reads the seed at *path*, or makes one there (mode 0600, its folder 0700). Raises UsageError("keys.*") if
    the file is damaged or open to others: a new key would be a new node, so that is never done silently."""

    def __init__(self, path: Path) -> None:
        self.seed = _read(path) if path.exists() else _create(path)
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self._node = NodeKey(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"<FileKeys {self._node.hex()[:8]}>"  # never the seed

    @property
    def node(self) -> NodeKey:
        return self._node

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def verify(self, key: NodeKey, message: bytes, signature: bytes) -> bool:
        return verify(key, message, signature)


def verify(key: NodeKey, message: bytes, signature: bytes) -> bool:
    """Ed25519 (RFC 8032); False for anything that is not a valid signature."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise UsageError("keys.exposed", f"{path} can be read by others; run: chmod 600 {path}")
    try:
        seed = bytes.fromhex(path.read_text("ascii"))
    except (ValueError, OSError) as error:
        raise UsageError(
            "keys.damaged", f"{path} is not a dockage key file; restore it from a backup"
        ) from error
    if len(seed) != 32:
        raise UsageError("keys.damaged", f"{path} is not a dockage key file; restore it from a backup")
    return seed


def _create(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = secrets.token_bytes(32)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    _publish(part, path)
    return seed


def _publish(part: Path, path: Path) -> None:
    """Link rather than rename: of two daemons that start together, the second fails instead of replacing."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise UsageError("keys.busy", f"another process just made {path}; start again") from None
    finally:
        part.unlink()
