"""``Curve`` over ``btclib-secp256k1`` (cffi, libsecp256k1 0.8): the binding we ship.

Counterpart: ``coincurve.py``, which tests hold it against. What is expensive to prepare (a keypair, the y of a
peer's key) is prepared once and kept in a bounded cache: 23 us a signature and 45 us a check, all of it in C.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from btclib_secp256k1 import keys, musig, ssa, xonly

from dockage.domain.errors import PeerError
from dockage.protocol.bitcoin.curve import Half, Joint, Part

SIGNERS_MAX = 1024
"""Keypairs held at once; the one used longest ago is wiped to make room."""


class Secp:
    """Implements ``protocol.bitcoin.curve.Curve``. One per process is enough; for one thread."""

    def __init__(self, signers_max: int = SIGNERS_MAX) -> None:
        self._signers: OrderedDict[bytes, ssa.Signer] = OrderedDict()
        self._signers_max = signers_max

    def pubkey(self, secret: bytes) -> bytes:
        return bytes(keys.pubkey_from_prvkey(secret))

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        # verify=False: the receiver checks every signature anyway, and each one takes fresh randomness, so a
        # computation gone wrong never meets a second one over the same nonce.
        return bytes(self._signer(secret).sign(digest, verify=False))

    def _signer(self, secret: bytes) -> ssa.Signer:
        signer = self._signers.pop(secret, None) or ssa.Signer(secret)
        self._signers[secret] = signer
        if len(self._signers) > self._signers_max:
            self._signers.popitem(last=False)[1].wipe()
        return signer

    def verify(self, key: bytes, digest: bytes, signature: bytes) -> bool:
        point = _point(key)
        return len(signature) == 64 and bool(ssa.verify(digest, point, signature))

    def aggregate(self, keys: Sequence[bytes]) -> bytes:
        if any(len(key) != 33 for key in keys):
            raise bad_key()
        try:
            return bytes(musig.KeyAggCache(sorted(keys)).agg_pubkey)
        except ValueError as error:
            raise bad_key() from error

    def tweak(self, key: bytes, tweak: bytes) -> tuple[bytes, int]:
        if len(key) != 32:
            raise bad_key()
        try:
            point, parity = xonly.tweak_add(key, tweak)
        except ValueError as error:
            raise bad_key() from error
        return bytes(point), int(parity)

    def half(self, secret: bytes, joint: Joint) -> Half:
        return _Half(secret, joint)

    def join(self, joint: Joint, one: Part, other: Part) -> bytes:
        cache = _aggregate(joint)
        session = _session(joint, cache, (one.nonce, other.nonce))
        for part in (one, other):
            if not _is_valid(part, session, cache):
                raise bad_part()
        return bytes(session.partial_sig_agg((one.signature, other.signature)))

    def close(self) -> None:
        """Overwrite every key held."""
        while self._signers:
            self._signers.popitem()[1].wipe()


class _Half:
    """The secret nonce stays in the library's buffer, which refuses a second use, a copy and a pickle, and is wiped."""

    def __init__(self, secret: bytes, joint: Joint) -> None:
        self._secret, self._joint, self._cache = secret, joint, _aggregate(joint)
        key = keys.pubkey_from_prvkey(secret)
        self._nonce = musig.nonce_gen(key, secret, joint.digest, self._cache)

    @property
    def nonce(self) -> bytes:
        return bytes(self._nonce.pubnonce)

    def sign(self, theirs: bytes) -> bytes:
        with self._nonce as nonce:
            session = _session(self._joint, self._cache, (nonce.pubnonce, theirs))
            return bytes(nonce.partial_sign(self._secret, self._cache, session))

    def forget(self) -> None:
        self._nonce.wipe()


def _aggregate(joint: Joint) -> musig.KeyAggCache:
    if any(len(key) != 33 for key in joint.keys):
        raise bad_key()
    try:
        cache = musig.KeyAggCache(sorted(joint.keys))
        cache.pubkey_xonly_tweak_add(joint.tweak)
    except ValueError as error:
        raise bad_key() from error
    return cache


def _session(joint: Joint, cache: musig.KeyAggCache, nonces: tuple[bytes, bytes]) -> musig.Session:
    try:
        together = musig.nonce_agg(nonces)
    except ValueError as error:
        raise bad_nonce() from error
    return musig.Session(together, joint.digest, cache)


def _is_valid(part: Part, session: musig.Session, cache: musig.KeyAggCache) -> bool:
    try:
        return bool(session.partial_sig_verify(part.signature, part.nonce, part.key, cache))
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _point(key: bytes) -> bytes:
    """The uncompressed form: libsecp256k1 reads it, where 32 bytes cost it a square root every time."""
    if len(key) != 32:
        raise bad_key()
    try:
        return bytes(xonly.to_pubkey(key, compressed=False))
    except ValueError as error:
        raise bad_key() from error


def bad_key() -> PeerError:
    return PeerError("channel.key", "the peer's channel key is not a point of secp256k1")


def bad_nonce() -> PeerError:
    return PeerError("close.nonce", "the peer's nonce for the common close is not one of BIP327")


def bad_part() -> PeerError:
    return PeerError("close.partial", "the peer's half of the common close does not verify")
