"""Things that a node signed.

Grants, letters, mandates and deployment documents are signed in one form: the body, and a signature over a context and
the body. The context is the kind's own, so that a signature of one kind never counts for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from dockage.domain.identity import NodeKey

from .reading import decoded

T = TypeVar("T")

Sign = Callable[[bytes], bytes]
Verify = Callable[[NodeKey, bytes, bytes], bool]


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


_encode = msgspec.msgpack.Encoder().encode
_signed = msgspec.msgpack.Decoder(Signed)


class Form(Generic[T]):
    """How one kind is signed and read. What it means to have read one, each kind says itself."""

    def __init__(self, code: str, told: str, kind: type[T], context: bytes) -> None:
        self._code, self._told, self._context = code, told, context
        self._decoder = msgspec.msgpack.Decoder(kind)

    def sign(self, content: T, sign: Sign) -> bytes:
        body = _encode(content)
        return _encode(Signed(body, sign(self._context + body)))

    def read(self, blob: bytes) -> tuple[T, Signed]:
        """Raises PeerError(*code*). Nothing of it is proven yet."""
        signed = decoded(self._code, self._told, _signed, blob)
        return decoded(self._code, self._told, self._decoder, signed.body), signed

    def is_by(self, signer: NodeKey, signed: Signed, verify: Verify) -> bool:
        return verify(signer, self._context + signed.body, signed.signature)
