"""What the channel needs of secp256k1. Counterpart: ``adapters/secp``, two bindings behind one contract suite.

Keys and signatures cross as plain bytes; the protocol never sees a point or a nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Joint(NamedTuple):
    """What two keys sign together (MuSig2, BIP327)."""

    keys: tuple[bytes, bytes]
    """33 bytes each, in either order: they are sorted."""
    tweak: bytes
    """32 bytes, added to the aggregate as an x-only tweak (BIP341)."""
    digest: bytes


class Half(Protocol):
    """One side's half of one joint signature. Its secret nonce signs once or never, and can neither be copied nor
    written down."""

    @property
    def nonce(self) -> bytes:
        """The public nonce, 66 bytes."""

    def sign(self, theirs: bytes) -> bytes:
        """The partial signature, 32 bytes, with the other side's public nonce. Uses the secret nonce up, also when
        it fails. Raises PeerError("close.nonce"); ValueError if it is used up already."""

    def forget(self) -> None:
        """Wipe the secret nonce. May be called twice."""


class Part(NamedTuple):
    """What one side contributes to a joint signature."""

    key: bytes
    nonce: bytes
    signature: bytes
    """Partial, 32 bytes."""


class Curve(Protocol):
    """secp256k1. A wrong length of our *own* argument (secret, digest) is a bug: ``ValueError``."""

    def pubkey(self, secret: bytes) -> bytes:
        """The 33-byte compressed public key of a 32-byte secret."""

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        """A 64-byte BIP340 signature of a 32-byte digest; two calls may differ (fresh nonce)."""

    def verify(self, key: bytes, digest: bytes, signature: bytes) -> bool:
        """BIP340, for a 32-byte x-only *key*. False for anything but a valid signature, whatever its
        length. Raises PeerError("channel.key") if *key* is not the x of a point."""

    def aggregate(self, keys: Sequence[bytes]) -> bytes:
        """The x-only MuSig2 key (BIP327) of these 33-byte keys, *sorted first*: the order given does not
        matter. Raises PeerError("channel.key")."""

    def tweak(self, key: bytes, tweak: bytes) -> tuple[bytes, int]:
        """BIP341: the x-only key plus ``tweak * G``, and the parity of its y.
        Raises PeerError("channel.key")."""

    def half(self, secret: bytes, joint: Joint) -> Half:
        """Begin a joint signature with a fresh nonce. Raises PeerError("channel.key")."""

    def join(self, joint: Joint, one: Part, other: Part) -> bytes:
        """The 64-byte BIP340 signature under the tweaked aggregate. Both parts are checked (PartialSigVerify).
        Raises PeerError("close.partial" | "close.nonce" | "channel.key")."""


Signer = Callable[[bytes], bytes]
"""Signs one 32-byte digest with a key it alone knows; returns the 64-byte signature."""
