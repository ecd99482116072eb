"""A tenant's word to one provider that another node may use one of its leases. Spec: docs/spec/08-deployments.md.

It names everything that it is about: whose word, to whom, which lease, for what, until when, of which epoch. So it can
neither be passed on nor used for anything else, and nobody has to remember it. One mechanism for layers between
replicas (``seed``), for tunnels from a gateway and for a deputy that ends a lease.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dockage.domain.deployment import GRANT_MAX
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Duration, Instant

from .signed import Form, Verify

GRANT_CONTEXT = b"dockage/1\0grant\0"
VALID = HOUR
"""Long enough for a transfer of layers, and for the clocks of two homes."""
TERM = Duration(24 * HOUR)
"""The longest that a grant or a document is good for."""
PORTS_MAX = 16

Use = Literal["layers", "tunnel", "end"]
"""``layers``: have an image of the lease. ``tunnel``: reach its containers, by TCP and UDP. ``end``: end it."""


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tenant: NodeKey
    lease: LeaseId
    """The tenant's own lease at the provider that it is shown to."""
    holder: NodeKey
    """The node that may show it."""
    use: tuple[Use, ...]
    epoch: int
    """Once the tenant told the provider a newer one, this grant is void."""
    expires: Instant
    ports: tuple[int, ...] = ()
    """For ``tunnel``: the containers' ports that may be reached; none named = all."""
    image: bytes = b""
    """For ``layers``: sha256 of the image's config."""

    @property
    def is_sane(self) -> bool:
        return (
            (len(self.tenant), len(self.lease), len(self.holder)) == (32, 16, 32)
            and 0 <= self.epoch < 1 << 63
            and len(self.use) <= 2
            and len(self.ports) <= PORTS_MAX
            and all(0 < port < 65536 for port in self.ports)
            and len(self.image) == (32 if "layers" in self.use else 0)
        )

    def opens(self, port: int) -> bool:
        return not self.ports or port in self.ports


_form = Form("grant.malformed", "not a grant", Grant, GRANT_CONTEXT)
sign_grant = _form.sign


def open_grant(
    blob: bytes, holder: NodeKey, lease: LeaseId, use: Use, now: Instant, verify: Verify, fence: int = 0
) -> Grant:
    """Its content if *holder*, who shows it, may use *lease* so now. That the lease is the tenant's is for the caller
    to check; *fence* is the newest epoch that the tenant told. Raises PeerError("grant.malformed" | "grant.forged" |
    "grant.other" | "grant.expired" | "grant.fenced"); the last two are an honest holder's bad luck, too."""
    if len(blob) > GRANT_MAX:
        raise PeerError("grant.malformed", f"a grant has at most {GRANT_MAX} bytes")
    grant, signed = _form.read(blob)
    if not grant.is_sane:
        raise PeerError("grant.malformed", "a grant with an impossible value")
    if not _form.is_by(grant.tenant, signed, verify):
        raise PeerError("grant.forged", "the grant is not signed by the tenant that it names")
    if grant.holder != holder or grant.lease != lease or use not in grant.use:
        raise PeerError(
            "grant.other", "the grant was given to somebody else, for another lease or another use"
        )
    if not now < grant.expires <= now + TERM + 2 * VALID:
        raise PeerError("grant.expired", "the grant is not valid now; the tenant gives a new one")
    if grant.epoch < fence:
        raise PeerError("grant.fenced", "the tenant has moved on: grants of an older epoch are void")
    return grant
