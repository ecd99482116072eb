"""A tenant's word to one provider that another may have an image's layers from it. Spec: docs/spec/06-images.md.

It names everything that it is about: whose word, to whom, which image of which lease, until when. So it can neither be
passed on nor used for anything else, and nobody has to remember it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant

from .images import GRANT_MAX

GRANT_CONTEXT = b"dockage/1\0grant\0"
VALID = HOUR
"""Long enough for a transfer, and for the clocks of two homes."""

Verify = Callable[[NodeKey, bytes, bytes], bool]


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tenant: NodeKey
    lease: LeaseId
    """Where the image is: the tenant's own lease at the provider that is to give it."""
    image: bytes
    """sha256 of its config."""
    holder: NodeKey
    """The provider that may ask."""
    until: Instant


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


_grant = msgspec.msgpack.Decoder(Grant)
_signed = msgspec.msgpack.Decoder(Signed)


def sign_grant(grant: Grant, sign: Callable[[bytes], bytes]) -> bytes:
    body = msgspec.msgpack.encode(grant)
    return msgspec.msgpack.encode(Signed(body, sign(GRANT_CONTEXT + body)))


def open_grant(blob: bytes, holder: NodeKey, lease: LeaseId, now: Instant, verify: Verify) -> Grant:
    """Its content if *holder*, who shows it, may use it on *lease* now. That the lease is the tenant's is for the
    caller to check. Raises PeerError("grant.malformed" | "grant.forged" | "grant.other" | "grant.expired")."""
    try:
        if len(blob) > GRANT_MAX:
            raise PeerError("grant.malformed", f"a grant has at most {GRANT_MAX} bytes")
        signed = _signed.decode(blob)
        grant = _grant.decode(signed.body)
    except msgspec.MsgspecError as error:
        raise PeerError("grant.malformed", f"not a grant: {error}") from None
    if not verify(grant.tenant, GRANT_CONTEXT + signed.body, signed.signature):
        raise PeerError("grant.forged", "the grant is not signed by the tenant that it names")
    if grant.holder != holder or grant.lease != lease:
        raise PeerError("grant.other", "the grant was given to somebody else, or for another lease")
    if not now < grant.until <= now + 2 * VALID:
        raise PeerError("grant.expired", "the grant is not valid now; the tenant gives a new one")
    return grant
