"""``Curve`` over ``coincurve`` (cffi, libsecp256k1 0.6): the second binding, for cross-checks in the tests.

Never imported by what runs in production. MuSig2 is reached through coincurve's private cffi layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from dockage.domain.errors import PeerError


class CoincurveSecp:
    """Implements ``protocol.bitcoin.curve.Curve``."""

    def pubkey(self, secret: bytes) -> bytes:
        _demand(secret, 32)
        return bytes(PrivateKey(secret).public_key.format())

    def sign(self, secret: bytes, digest: bytes) -> bytes:
        _demand(secret, 32)
        _demand(digest, 32)
        return bytes(PrivateKey(secret).sign_schnorr(digest))

    def verify(self, key: bytes, digest: bytes, signature: bytes) -> bool:
        point = _point(key)
        return len(signature) == 64 and bool(point.verify(signature, digest))

    def aggregate(self, keys: Sequence[bytes]) -> bytes:
        points = [_full_point(key) for key in sorted(keys)]
        pointers = ffi.new("secp256k1_pubkey *[]", [point.public_key for point in points])
        aggregate = ffi.new("secp256k1_xonly_pubkey *")
        cache = ffi.new("secp256k1_musig_keyagg_cache *")
        context = GLOBAL_CONTEXT.ctx
        if not lib.secp256k1_musig_pubkey_agg(context, aggregate, cache, pointers, len(points)):
            raise _bad_key()
        out = ffi.new("unsigned char[32]")
        lib.secp256k1_xonly_pubkey_serialize(context, out, aggregate)
        return bytes(ffi.buffer(out))

    def tweak(self, key: bytes, tweak: bytes) -> tuple[bytes, int]:
        point = _point(key)
        try:
            point.tweak_add(tweak)
        except ValueError as error:
            raise _bad_key() from error
        return bytes(point.format()), int(point.parity)


def _point(key: bytes) -> PublicKeyXOnly:
    if len(key) != 32:
        raise _bad_key()
    try:
        return PublicKeyXOnly(key)
    except ValueError as error:
        raise _bad_key() from error


def _full_point(key: bytes) -> PublicKey:
    if len(key) != 33:
        raise _bad_key()
    try:
        return PublicKey(key)
    except ValueError as error:
        raise _bad_key() from error


def _demand(data: bytes, size: int) -> None:
    if len(data) != size:
        raise ValueError(f"{size} bytes are needed, not {len(data)}")


def _bad_key() -> PeerError:
    return PeerError("channel.key", "the peer's channel key is not a point of secp256k1")
