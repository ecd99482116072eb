"""Deployment documents of spec 08: vectors, the round trip, and a lie each."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant
from dockage.protocol import documents as docs
from dockage.protocol.grants import TERM, Grant, open_grant, sign_grant
from dockage.protocol.signed import Signed
from dockage.testing.keys import MemoryKeys, verify

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "docs/spec/vectors/documents.json").read_text())
SPEC = (ROOT / "docs/spec/08-deployments.md").read_text()
TENANT, THIEF = MemoryKeys(1), MemoryKeys(2)
GATEWAY = NodeKey(b"g" * 32)
NOW = Instant(500_000 * HOUR)
WEB = Site(("shop.example.com",), 80, "web")
REPLICA = Replica(NodeKey(b"p" * 32), LeaseId(b"l" * 16), (("web", "ab" * 32),), b"grant")
DOCUMENT = Document(TENANT.node, "shop", 1, Instant(NOW + HOUR), (WEB,), (REPLICA,), (GATEWAY,))


def signed(document: Document, keys: MemoryKeys = TENANT) -> bytes:
    """Without the checks of the signer: what a liar does."""
    body = msgspec.msgpack.encode(document)
    return msgspec.msgpack.encode(Signed(body, keys.sign(docs.DOCUMENT_CONTEXT + body)))


def refusal(blob: bytes, now: Instant = NOW) -> str:
    with pytest.raises(PeerError) as caught:
        docs.open_document(blob, now, verify)
    assert f"`{caught.value.code}`" in SPEC
    return caught.value.code


# -- vectors -----------------------------------------------------------------------------------------
def test_the_vectors_of_the_spec() -> None:
    blob = bytes.fromhex(VECTORS["document"]["signed"])
    document = docs.open_document(blob, VECTORS["document"]["opened_at"], verify)
    assert document.name == "shop"
    assert [site.mode for site in document.sites] == ["terminate", "pass", "tcp"]
    assert docs.sign_document(document, TENANT.sign) == blob
    [replica] = document.replicas
    grant = open_grant(
        replica.grant, document.gateways[0], replica.lease, "tunnel", VECTORS["document"]["opened_at"], verify
    )
    assert grant.tenant == document.tenant
    assert sign_grant(grant, TENANT.sign) == replica.grant


# -- what must happen --------------------------------------------------------------------------------
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
hosts = st.builds("{}.{}".format, names, st.sampled_from(["example.com", "x.org"]))
ports = st.integers(1, 65535)
by_name = st.builds(Site, st.tuples(hosts), ports, names, st.sampled_from(["terminate", "pass"]), st.just(0))
by_port = st.builds(Site, st.just(()), ports, names, st.sampled_from(["tcp", "udp"]), ports)
containers = st.binary(min_size=32, max_size=32).map(bytes.hex)
replicas = st.builds(
    Replica,
    st.binary(min_size=32, max_size=32).map(NodeKey),
    st.binary(min_size=16, max_size=16).map(LeaseId),
    st.dictionaries(names, containers, max_size=3).map(lambda x: tuple(sorted(x.items()))),
    st.binary(max_size=300),
    st.sampled_from(["serving", "draining", "standby"]),
)
documents = st.builds(
    Document,
    st.just(TENANT.node),
    names,
    st.integers(1, (1 << 63) - 1),
    st.integers(NOW + 1, NOW + TERM).map(Instant),
    st.lists(by_name | by_port, max_size=6, unique_by=lambda s: s.hosts or (s.mode, s.public_port)).map(
        tuple
    ),
    st.lists(replicas, max_size=6, unique_by=lambda r: r.lease).map(tuple),
    st.lists(st.binary(min_size=32, max_size=32).map(NodeKey), max_size=3, unique=True).map(tuple),
)


@given(documents)
@settings(deadline=None, max_examples=40)
def test_what_is_signed_is_read_back_whole(document: Document) -> None:
    assert docs.open_document(docs.sign_document(document, TENANT.sign), NOW, verify) == document


def test_sixty_four_sites_fit_and_forty_replicas() -> None:
    sites = tuple(Site((f"h{n}.example.com",), 80, "web") for n in range(64))
    grant = Grant(TENANT.node, LeaseId(bytes(16)), GATEWAY, ("tunnel",), 9, Instant(NOW + HOUR), (80, 443))
    seal = sign_grant(grant, TENANT.sign)
    many = tuple(replace(REPLICA, lease=LeaseId(bytes([n]) * 16), grant=seal) for n in range(40))
    for document in (replace(DOCUMENT, sites=sites), replace(DOCUMENT, replicas=many)):
        assert docs.open_document(docs.sign_document(document, TENANT.sign), NOW, verify) == document


def test_the_newer_one_ranks_higher() -> None:
    later = replace(DOCUMENT, expires=Instant(DOCUMENT.expires + 1))
    assert DOCUMENT.rank < later.rank < replace(DOCUMENT, epoch=2).rank


# -- lies --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 0},
        {"epoch": 1 << 63},
        {"name": "../x"},
        {"name": ""},
        {"tenant": NodeKey(b"short")},
        {"sites": (replace(WEB, hosts=("Shop.Example.COM",)),)},
        {"sites": (replace(WEB, hosts=("shop.example.com.",)),)},
        {"sites": (replace(WEB, hosts=()),)},
        {"sites": (WEB, WEB)},
        {"sites": (replace(WEB, port=0),)},
        {"sites": (replace(WEB, public_port=80),)},
        {"sites": (replace(WEB, mode="tcp"),)},
        {"sites": (Site((), 22, "web", "tcp", 0),)},
        {"sites": (Site((), 22, "web", "tcp", 99), Site((), 23, "web", "tcp", 99))},
        {"sites": (replace(WEB, service="a/b"),)},
        {"sites": tuple(Site((), 22, "web", "tcp", n + 1) for n in range(65))},
        {"replicas": (REPLICA, REPLICA)},
        {"replicas": (replace(REPLICA, provider=NodeKey(b"short")),)},
        {"replicas": (replace(REPLICA, services=(("web", "../../etc"),)),)},
        {"replicas": (replace(REPLICA, services=(("web", "ab" * 32), ("web", "ab" * 32))),)},
        {"replicas": (replace(REPLICA, services=(("web", "cd" * 32), ("web", "ab" * 32))),)},
        {"replicas": (replace(REPLICA, services=(("web", "ab" * 32), ("db", "cd" * 32))),)},
        {"replicas": (replace(REPLICA, grant=bytes(321)),)},
        {"gateways": (GATEWAY, GATEWAY)},
        {"gateways": (NodeKey(b"short"),)},
    ],
)
def test_impossible_values_are_neither_signed_nor_read(change: dict[str, Any]) -> None:
    document = replace(DOCUMENT, **change)
    assert refusal(signed(document)) == "document.out-of-range"
    with pytest.raises(UsageError) as caught:
        docs.sign_document(document, TENANT.sign)
    assert caught.value.code == "document.impossible"


def test_an_unknown_mode_or_state_is_refused() -> None:
    for old, new in ((b"terminate", b"terminatE"), (b"serving", b"servinG")):
        body = msgspec.msgpack.encode(DOCUMENT).replace(old, new)
        blob = msgspec.msgpack.encode(Signed(body, TENANT.sign(docs.DOCUMENT_CONTEXT + body)))
        assert refusal(blob) == "document.malformed"


def test_its_time() -> None:
    blob = signed(DOCUMENT)
    assert refusal(blob, DOCUMENT.expires) == "document.expired"
    assert refusal(blob, Instant(DOCUMENT.expires - TERM - HOUR)) == "document.horizon"


def test_a_second_encoding_of_the_same_is_refused() -> None:
    body = msgspec.msgpack.encode(DOCUMENT)
    longer = body.replace(b"\xa4shop", b"\xd9\x04shop", 1)
    assert longer != body
    blob = msgspec.msgpack.encode(Signed(longer, TENANT.sign(docs.DOCUMENT_CONTEXT + longer)))
    assert refusal(blob) == "document.malformed"
    assert refusal(signed(DOCUMENT) + b"\x00") == "document.malformed"


def test_too_many_bytes_are_not_even_decoded() -> None:
    assert refusal(bytes(docs.DOCUMENT_MAX + 1)) == "document.oversized"
    many = tuple(replace(REPLICA, lease=LeaseId(bytes([n]) * 16), grant=bytes(320)) for n in range(64))
    with pytest.raises(UsageError) as caught:
        docs.sign_document(replace(DOCUMENT, replicas=many), TENANT.sign)
    assert caught.value.code == "document.large"


def test_answers_are_read_back() -> None:
    for answer in (docs.Taken(3), docs.Refused("document.old", "older")):
        assert docs.decode_answer(docs.encode_answer(answer)) == answer


@given(st.binary(max_size=100))
def test_what_is_no_answer_is_a_breach(noise: bytes) -> None:
    with suppress(PeerError):
        docs.decode_answer(noise)
