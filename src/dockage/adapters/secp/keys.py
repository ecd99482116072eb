"""The keys of channels, all from one 32-byte seed: a fresh one for each (role, channel).

Nothing but the seed has to be kept. A key is used in one channel only; even if it were not, a signature commits
to its channel's outpoint and is worth nothing in another.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import Literal

from dockage.protocol.bitcoin.curve import Curve, Half, Joint, Signer
from dockage.protocol.bitcoin.hashes import sha_twice, tagged_hash

Role = Literal["tenant", "provider"]

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1."""
CHANNEL_ID_MAX = 128


def channel_secret(seed: bytes, role: Role, channel_id: bytes) -> bytes:
    """A 32-byte secret key. *seed*: 32 bytes from the system's randomness; *channel_id*: what makes the channel
    unique **for us**. A tenant takes its own random id; a provider, whom a tenant tells the id, takes the
    tenant's node key and the id. Raises ValueError for a wrong size."""
    if len(seed) != 32 or not 0 < len(channel_id) <= CHANNEL_ID_MAX:
        raise ValueError("a channel key needs a 32-byte seed and an id of 1 to 128 bytes")
    what = seed + role.encode().ljust(8, b"\0") + bytes([len(channel_id)]) + channel_id
    for attempt in range(256):
        secret = tagged_hash("dockage/channel-key", what + bytes([attempt]))
        if 0 < int.from_bytes(secret, "big") < ORDER:
            return secret
    raise AssertionError("256 hashes in a row past the group order")


class ChannelKeys:
    """Signs for channels. The seed stays in here; ``repr`` does not show it."""

    def __init__(self, seed: bytes, curve: Curve) -> None:
        if len(seed) != 32:
            raise ValueError("the seed of the channel keys is 32 bytes long")
        self._seed = seed
        self._curve = curve

    def __repr__(self) -> str:
        return f"<ChannelKeys {sha256(self._seed).hexdigest()[:8]}>"

    def public(self, role: Role, channel_id: bytes) -> bytes:
        """33 bytes, compressed: what goes into the terms."""
        return self._curve.pubkey(channel_secret(self._seed, role, channel_id))

    def sign(self, role: Role, channel_id: bytes, digest: bytes) -> bytes:
        """A 64-byte BIP340 signature of a 32-byte digest."""
        return self._curve.sign(channel_secret(self._seed, role, channel_id), digest)

    def signer(self, role: Role, channel_id: bytes) -> Signer:
        """The same for one channel, as the templates take it; the key is derived once."""
        return partial(self._curve.sign, channel_secret(self._seed, role, channel_id))

    def half(self, role: Role, channel_id: bytes, joint: Joint) -> Half:
        """Our half of one joint signature, with a fresh nonce."""
        return self._curve.half(channel_secret(self._seed, role, channel_id), joint)

    def wif(self, role: Role, channel_id: bytes, network: str) -> str:
        """The secret itself, for the tenant's backup descriptor (``protocol.bitcoin.descriptor``)."""
        return wif(channel_secret(self._seed, role, channel_id), network)


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def wif(secret: bytes, network: str) -> str:
    """Wallet import format of the key of a compressed public key."""
    body = (b"\x80" if network == "main" else b"\xef") + secret + b"\1"
    number = int.from_bytes(body + sha_twice(body)[:4], "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return text
