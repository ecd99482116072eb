"""Grants, letters, mandates and documents are signed in one form: what is true of one is true of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant, Sat
from dockage.protocol.docker.recipe import Recipe, encode
from dockage.protocol.documents import open_document, sign_document
from dockage.protocol.grants import Grant, open_grant, sign_grant
from dockage.protocol.letters import Letter, open_letter, sign_letter
from dockage.protocol.mandates import Mandate, open_mandate, sign_mandate
from dockage.protocol.signed import Sign, Signed
from dockage.testing.keys import MemoryKeys, verify

TENANT, THIEF = MemoryKeys(1), MemoryKeys(2)
ME, PROVIDER, LEASE = NodeKey(b"m" * 32), NodeKey(b"p" * 32), LeaseId(b"l" * 16)
NOW = Instant(500_000 * HOUR)
UNTIL = Instant(NOW + HOUR)
GRANT = Grant(TENANT.node, LEASE, ME, ("tunnel",), 0, UNTIL)
LETTER = Letter(TENANT.node, ME, "shop", UNTIL)
MANDATE = Mandate(TENANT.node, ME, "shop", 1, UNTIL, Sat(5), None, (), encode(Recipe("shop")))
DOCUMENT = Document(
    TENANT.node,
    "shop",
    1,
    UNTIL,
    (Site(("shop.example.com",), 80, "web"),),
    (Replica(PROVIDER, LEASE, (("web", "ab" * 32),), b"grant"),),
    (ME,),
)


class Kind(NamedTuple):
    name: str
    content: Any
    sign: Callable[[Any, Sign], bytes]
    open: Callable[[bytes], Any]
    forged: str


KINDS = (
    Kind(
        "grant",
        GRANT,
        sign_grant,
        lambda blob: open_grant(blob, ME, LEASE, "tunnel", NOW, verify),
        "grant.forged",
    ),
    Kind("letter", LETTER, sign_letter, lambda blob: open_letter(blob, ME, NOW, verify), "letter.forged"),
    Kind(
        "mandate",
        MANDATE,
        sign_mandate,
        lambda blob: open_mandate(blob, TENANT.node, ME, NOW, verify)[0],
        "mandate.forged",
    ),
    Kind(
        "document",
        DOCUMENT,
        sign_document,
        lambda blob: open_document(blob, NOW, verify),
        "document.signature",
    ),
)
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def refused(kind: Kind, blob: bytes) -> str:
    with pytest.raises(PeerError) as caught:
        kind.open(blob)
    assert caught.value.code.startswith(f"{kind.name}.")
    return caught.value.code


@each
def test_what_was_signed_is_what_is_read(kind: Kind) -> None:
    assert kind.open(kind.sign(kind.content, TENANT.sign)) == kind.content


@each
def test_nobody_else_signs_for_the_tenant(kind: Kind) -> None:
    assert refused(kind, kind.sign(kind.content, THIEF.sign)) == kind.forged


@each
@pytest.mark.parametrize("context", [b"", *(b"dockage/1\0%s\0" % other.name.encode() for other in KINDS[:3])])
def test_a_signature_of_another_kind_counts_for_nothing(kind: Kind, context: bytes) -> None:
    body = msgspec.msgpack.encode(kind.content)
    if kind.name.encode() not in context:
        blob = msgspec.msgpack.encode(Signed(body, TENANT.sign(context + body)))
        assert refused(kind, blob) == kind.forged


@each
@settings(deadline=None)
@given(data=st.data())
def test_a_changed_byte_is_found(kind: Kind, data: st.DataObject) -> None:
    blob = bytearray(kind.sign(kind.content, TENANT.sign))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    refused(kind, bytes(blob))


@each
@settings(deadline=None)
@given(noise=st.binary(max_size=600))
def test_noise_is_refused(kind: Kind, noise: bytes) -> None:
    assert refused(kind, noise) == f"{kind.name}.malformed"


@each
def test_more_or_less_than_a_body_and_a_signature_is_none(kind: Kind) -> None:
    body, signature = msgspec.msgpack.decode(kind.sign(kind.content, TENANT.sign))
    for parts in ([body], [body, signature, b""], {"body": body}, [signature, body]):
        assert refused(kind, msgspec.msgpack.encode(parts)) == f"{kind.name}.malformed"
