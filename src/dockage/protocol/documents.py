"""Deployment documents as bytes: signed by the tenant, read by gateways. Spec: docs/spec/08-deployments.md.

There is one encoding of a document, so its bytes can be compared. Counterpart: ``domain/deployment.py``.
"""

from __future__ import annotations

import msgspec

from dockage.domain.deployment import OWN, REPLICAS_MAX, SITES_MAX, Document
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import MINUTE, Duration, Instant

from .grants import TERM
from .reading import decoded
from .signed import Form, Sign, Verify

DOCUMENT_CONTEXT = b"dockage/1\0deployment\0"
DOCUMENT_MAX = 16 << 10
"""Bytes as signed: about 45 replicas of one service."""
ANSWER_MAX = DOCUMENT_MAX + 1024
"""It names hosts of the document."""
CLOCK_SLACK = Duration(2 * MINUTE)


class Taken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="taken"):
    """The gateway routes by it from now on, but for *lacking*."""

    epoch: int
    lacking: tuple[str, ...] = ()
    """Hosts that it does not serve now."""
    why: Reason | None = None
    """Of the first of them."""


class Refused(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="refused"):
    code: str
    message: str


Answer = Taken | Refused


class SiteSign(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How busy a site is, in the order of the document."""

    in_flight: int
    """Requests and connections now."""
    total: int
    """Since the document of this deployment came to this gateway."""


class ReplicaSign(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a replica looks from the gateway."""

    lease: LeaseId
    misses: int
    """Checks and connections in a row that came to nothing; 0 = it answers. One takes it out of rotation."""
    in_flight: int
    is_reached: bool = True
    """False: its provider could not be spoken with; what the replica itself does is not known here."""


class Signs(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a gateway sees of a deployment: a frame when something changed, and one a second."""

    epoch: int
    sites: tuple[SiteSign, ...]
    replicas: tuple[ReplicaSign, ...]
    wanted: bool
    """Somebody waits and no replica serves: wake one."""

    @property
    def is_sane(self) -> bool:
        numbers = [self.epoch, *(n for s in self.sites for n in (s.in_flight, s.total))]
        numbers += [n for r in self.replicas for n in (r.misses, r.in_flight)]
        return (
            len(self.sites) <= SITES_MAX
            and len(self.replicas) <= REPLICAS_MAX
            and all(0 <= number < 1 << 63 for number in numbers)
            and all(len(replica.lease) == 16 for replica in self.replicas)
        )


SIGNS_MAX = 8 << 10

_encode = msgspec.msgpack.Encoder().encode
_form = Form("document.malformed", "not a deployment document", Document, DOCUMENT_CONTEXT)
_signs = msgspec.msgpack.Decoder(Signs)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def sign_document(document: Document, sign: Sign) -> bytes:
    """Raises UsageError("document.impossible" | "document.large")."""
    if not document.is_sane:
        raise UsageError(
            "document.impossible",
            f"the deployment {document.name[:64]} cannot be published so: a host name, port or replica is twice there, "
            "or a name is none",
        )
    blob = _form.sign(document, sign)
    if len(blob) > DOCUMENT_MAX:
        raise UsageError(
            "document.large",
            f"the deployment {document.name} takes {len(blob)} bytes to describe, {DOCUMENT_MAX} is the limit: "
            "publish fewer replicas or names",
        )
    return blob


def open_document(blob: bytes, now: Instant, verify: Verify, deputy: NodeKey | None = None) -> Document:
    """*deputy*: who signed it in place of its tenant; that it may is for the caller to check. Raises
    PeerError("document.oversized" | "malformed" | "out-of-range" | "expired" | "horizon" | "deputy" | "signature"). The
    signature, by far the dearest check, comes last."""
    if len(blob) > DOCUMENT_MAX:
        raise PeerError("document.oversized", f"a document of {len(blob)} bytes; {DOCUMENT_MAX} is the limit")
    document, signed = _form.read(blob)
    if _encode(document) != signed.body or _encode(signed) != blob:
        raise PeerError("document.malformed", "a document that is not in the one encoding")
    if not document.is_sane:
        raise PeerError(
            "document.out-of-range", "a document with an impossible value, or with something twice"
        )
    if document.expires <= now:
        raise PeerError("document.expired", "a document whose term is over")
    if document.expires > now + TERM + CLOCK_SLACK:
        raise PeerError("document.horizon", "a document that wants to count for longer than a day")
    if deputy is not None and document.epoch >= OWN:
        raise PeerError("document.deputy", "a deputy's document that would count before its tenant's own")
    if not _form.is_by(deputy or document.tenant, signed, verify):
        raise PeerError(
            "document.signature", "a document that neither its tenant nor the deputy who shows it signed"
        )
    return document


def encode_answer(answer: Answer) -> bytes:
    return _encode(answer)


def decode_answer(frame: bytes) -> Answer:
    """Raises PeerError("document.answer")."""
    answer = decoded("document.answer", "the gateway's answer is none", _answers, frame)
    if isinstance(answer, Taken) and answer.why is not None and not answer.why.is_sane:
        raise PeerError("document.answer", "the gateway's answer has a reason that is none")
    return answer


def encode_signs(signs: Signs) -> bytes:
    return _encode(signs)


def decode_signs(frame: bytes) -> Signs:
    """Raises PeerError("signs.malformed")."""
    signs = decoded("signs.malformed", "not a gateway's signs", _signs, frame)
    if not signs.is_sane:
        raise PeerError("signs.malformed", "a gateway's signs with an impossible value")
    return signs
