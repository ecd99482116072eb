"""A tenant's word to gateways that its deputy may publish one of its deployments, under the tenant's own names.

Part of a mandate; shown with each document that the deputy signs. Spec: docs/spec/12-terms.md. A tenant's own document
counts before any of its deputy's, so a letter is worth nothing while its tenant publishes itself.
"""

from __future__ import annotations

import msgspec

from dockage.domain.deployment import GRANT_MAX, is_name
from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MINUTE, Duration, Instant

from .signed import Form, Verify

LETTER_CONTEXT = b"dockage/1\0letter\0"
LETTER_MAX = GRANT_MAX
"""Bytes: it is part of a stream's header."""
HORIZON = Duration(31 * 24 * HOUR)
SLACK = Duration(10 * MINUTE)
"""Between the clocks of three homes."""


class Letter(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tenant: NodeKey
    deputy: NodeKey
    name: str
    """The deployment's."""
    expires: Instant

    @property
    def is_sane(self) -> bool:
        return (len(self.tenant), len(self.deputy)) == (32, 32) and is_name(self.name)


_form = Form("letter.malformed", "not a letter", Letter, LETTER_CONTEXT)
sign_letter = _form.sign


def open_letter(blob: bytes, deputy: NodeKey, now: Instant, verify: Verify) -> Letter:
    """Its content, if *deputy*, who shows it, may publish so now. Raises PeerError("letter.malformed" |
    "letter.other" | "letter.forged" | "letter.expired")."""
    if len(blob) > LETTER_MAX:
        raise PeerError("letter.malformed", f"a letter has at most {LETTER_MAX} bytes")
    letter, signed = _form.read(blob)
    if not letter.is_sane:
        raise PeerError("letter.malformed", "a letter with an impossible value")
    if letter.deputy != deputy:
        raise PeerError("letter.other", "the letter was given to another deputy")
    if not _form.is_by(letter.tenant, signed, verify):
        raise PeerError("letter.forged", "the letter is not signed by the tenant that it names")
    if not now - SLACK < letter.expires <= now + HORIZON + SLACK:
        raise PeerError("letter.expired", "the letter is not valid now; the tenant gives a new one")
    return letter
