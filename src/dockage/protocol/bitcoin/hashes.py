"""The hashes of bitcoin. Counterpart: BIP340's tagged hashes and the double SHA256 of 2009.

A tag is hashed once and its midstate copied: hashing is on the path of every payment.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash


def sha(data: bytes) -> bytes:
    return sha256(data).digest()


def sha_twice(data: bytes) -> bytes:
    return sha256(sha256(data).digest()).digest()


def tagged(tag: str) -> _Hash:
    """A fresh hash that has already taken in ``SHA256(tag) || SHA256(tag)`` (BIP340)."""
    prefix = sha(tag.encode())
    return sha256(prefix + prefix)


def tagged_hash(tag: str, data: bytes) -> bytes:
    state = tagged(tag)
    state.update(data)
    return state.digest()
