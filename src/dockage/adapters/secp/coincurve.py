"""``Curve`` over ``coincurve`` (cffi, libsecp256k1 0.6): the second binding, for cross-checks in the tests.

Never imported by what runs in production. MuSig2 is reached through coincurve's private cffi layer.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from dockage.domain.errors import PeerError
from dockage.protocol.bitcoin.curve import Half, Joint, Part


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

    def half(self, secret: bytes, joint: Joint) -> Half:
        return _Half(secret, joint)

    def join(self, joint: Joint, one: Part, other: Part) -> bytes:
        cache = _aggregate(joint)
        session = _session(joint, cache, (one.nonce, other.nonce))
        for part in (one, other):
            if not lib.secp256k1_musig_partial_sig_verify(
                CTX,
                _parsed("partial_sig", part.signature, 32),
                _parsed("pubnonce", part.nonce, 66),
                _full_point(part.key).public_key,
                cache,
                session,
            ):
                raise _bad_part()
        parts = [_parsed("partial_sig", part.signature, 32) for part in (one, other)]
        out = ffi.new("unsigned char[64]")
        lib.secp256k1_musig_partial_sig_agg(
            CTX, out, session, ffi.new("secp256k1_musig_partial_sig *[]", parts), 2
        )
        return bytes(ffi.buffer(out))


CTX = GLOBAL_CONTEXT.ctx


class _Half:
    def __init__(self, secret: bytes, joint: Joint) -> None:
        _demand(secret, 32)
        self._joint, self._cache = joint, _aggregate(joint)
        self._keypair = ffi.new("secp256k1_keypair *")
        lib.secp256k1_keypair_create(CTX, self._keypair, secret)
        self._secret = ffi.new("secp256k1_musig_secnonce *")
        self._public = ffi.new("secp256k1_musig_pubnonce *")
        key = PrivateKey(secret).public_key.public_key
        seed = ffi.new("unsigned char[32]", secrets.token_bytes(32))
        lib.secp256k1_musig_nonce_gen(
            CTX, self._secret, self._public, seed, secret, key, joint.digest, self._cache, ffi.NULL
        )
        self._used = False

    @property
    def nonce(self) -> bytes:
        out = ffi.new("unsigned char[66]")
        lib.secp256k1_musig_pubnonce_serialize(CTX, out, self._public)
        return bytes(ffi.buffer(out))

    def sign(self, theirs: bytes) -> bytes:
        if self._used:
            raise ValueError("this nonce is used up")
        try:
            session = _session(self._joint, self._cache, (self.nonce, theirs))
            part = ffi.new("secp256k1_musig_partial_sig *")
            lib.secp256k1_musig_partial_sign(CTX, part, self._secret, self._keypair, self._cache, session)
        finally:
            self.forget()
        out = ffi.new("unsigned char[32]")
        lib.secp256k1_musig_partial_sig_serialize(CTX, out, part)
        return bytes(ffi.buffer(out))

    def forget(self) -> None:
        self._used = True
        ffi.memmove(self._secret, bytes(ffi.sizeof("secp256k1_musig_secnonce")), ffi.sizeof(self._secret[0]))


def _aggregate(joint: Joint) -> Any:
    points = [_full_point(key) for key in sorted(joint.keys)]
    cache = ffi.new("secp256k1_musig_keyagg_cache *")
    pointers = ffi.new("secp256k1_pubkey *[]", [point.public_key for point in points])
    if not lib.secp256k1_musig_pubkey_agg(CTX, ffi.NULL, cache, pointers, 2):
        raise _bad_key()
    if not lib.secp256k1_musig_pubkey_xonly_tweak_add(CTX, ffi.NULL, cache, joint.tweak):
        raise _bad_key()
    return cache


def _session(joint: Joint, cache: Any, nonces: tuple[bytes, bytes]) -> Any:
    parsed = [_parsed("pubnonce", nonce, 66) for nonce in nonces]
    together = ffi.new("secp256k1_musig_aggnonce *")
    lib.secp256k1_musig_nonce_agg(CTX, together, ffi.new("secp256k1_musig_pubnonce *[]", parsed), 2)
    session = ffi.new("secp256k1_musig_session *")
    lib.secp256k1_musig_nonce_process(CTX, session, together, joint.digest, cache)
    return session


def _parsed(kind: str, data: bytes, size: int) -> Any:
    found = ffi.new(f"secp256k1_musig_{kind} *")
    if len(data) != size or not getattr(lib, f"secp256k1_musig_{kind}_parse")(CTX, found, data):
        raise _bad_nonce() if kind == "pubnonce" else _bad_part()
    return found


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


def _bad_nonce() -> PeerError:
    return PeerError("close.nonce", "the peer's nonce for the common close is not one of BIP327")


def _bad_part() -> PeerError:
    return PeerError("close.partial", "the peer's half of the common close does not verify")
