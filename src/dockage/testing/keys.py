"""Real Ed25519 identities from a number: the same in every run, no file."""

from __future__ import annotations

import hashlib

from dockage.wire.keys import SeedKeys, verify

__all__ = ["MemoryKeys", "verify"]


class MemoryKeys(SeedKeys):
    def __init__(self, number: int) -> None:
        super().__init__(hashlib.sha256(b"dockage test key %d" % number).digest())
