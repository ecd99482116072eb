"""The funding output of a channel: a taproot tree of two leaves (BIP341, BIP342).

    tr(MuSig2(T,P), { and_v(v:pk(T),pk(P)) , and_v(v:pk(T),after(expiry)) })

Key path: both together, any time. Leaf *close*: the tenant's newest payment and the provider. Leaf *refund*:
the tenant alone from the expiry height on. Every byte follows from the terms, so both sides build the same.
"""

from __future__ import annotations

from typing import NamedTuple

from dockage.domain.channel import Terms

from .curve import Curve
from .hashes import tagged_hash
from .tx import sized

CHECKSIG = b"\xac"
CHECKSIGVERIFY = b"\xad"
CHECKLOCKTIMEVERIFY = b"\xb1"
LEAF_VERSION = 0xC0


def push(data: bytes) -> bytes:
    """A direct push of 1..75 bytes."""
    return len(data).to_bytes(1, "little") + data


def push_number(n: int) -> bytes:
    """A minimal push of a positive script number: ``OP_1``..``OP_16``, or little-endian with a sign bit."""
    if n <= 16:
        return bytes([0x50 + n])
    return push(n.to_bytes(n.bit_length() // 8 + 1, "little"))


def close_leaf(tenant: bytes, provider: bytes) -> bytes:
    """and_v(v:pk(T),pk(P)) of two x-only keys."""
    return push(tenant) + CHECKSIGVERIFY + push(provider) + CHECKSIG


def refund_leaf(tenant: bytes, expiry_height: int) -> bytes:
    """and_v(v:pk(T),after(N))"""
    return push(tenant) + CHECKSIGVERIFY + push_number(expiry_height) + CHECKLOCKTIMEVERIFY


def leaf_hash(script: bytes) -> bytes:
    return tagged_hash("TapLeaf", bytes([LEAF_VERSION]) + sized(script))


def branch_hash(one: bytes, other: bytes) -> bytes:
    return tagged_hash("TapBranch", min(one, other) + max(one, other))


def taproot_script(key: bytes) -> bytes:
    """The scriptPubKey of an x-only output key."""
    return b"\x51\x20" + key


class Leaf(NamedTuple):
    script: bytes
    hash: bytes
    control: bytes
    """The control block that proves the leaf is in the tree (65 bytes for two leaves)."""


class Funding(NamedTuple):
    internal_key: bytes
    """x-only MuSig2(T,P)."""
    root: bytes
    """The merkle root the internal key is tweaked with: what a key-path signature needs."""
    script: bytes
    """The scriptPubKey that the funding transaction pays."""
    close: Leaf
    refund: Leaf

    @property
    def tweak(self) -> bytes:
        """BIP341: what is added to the internal key."""
        return tagged_hash("TapTweak", self.internal_key + self.root)


def funding(terms: Terms, curve: Curve) -> Funding:
    """Raises PeerError("channel.key") if a key in *terms* is not a point."""
    tenant, provider = terms.tenant_key[1:], terms.provider_key[1:]
    close, refund = close_leaf(tenant, provider), refund_leaf(tenant, terms.expiry_height)
    close_hash, refund_hash = leaf_hash(close), leaf_hash(refund)
    root = branch_hash(close_hash, refund_hash)
    internal = curve.aggregate((terms.tenant_key, terms.provider_key))
    output, parity = curve.tweak(internal, tagged_hash("TapTweak", internal + root))
    proof = bytes([LEAF_VERSION | parity]) + internal
    return Funding(
        internal,
        root,
        taproot_script(output),
        Leaf(close, close_hash, proof + refund_hash),
        Leaf(refund, refund_hash, proof + close_hash),
    )
