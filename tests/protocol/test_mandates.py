"""What a deputy takes as its tenant's word, and every lie about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import SECOND, Instant, Msat, Sat
from dockage.protocol.docker.recipe import Recipe, encode
from dockage.protocol.mandates import (
    HORIZON,
    LEASES_MAX,
    MANDATE_MAX,
    AskTerm,
    Give,
    Held,
    Mandate,
    Refused,
    Said,
    Taken,
    decode_answer,
    decode_request,
    encode_said,
    open_mandate,
    sign_mandate,
)
from dockage.protocol.signed import Signed
from dockage.testing.keys import MemoryKeys, verify

NOW = Instant(1_800_000_000 * SECOND)
TENANT, DEPUTY, OTHER = MemoryKeys(1), MemoryKeys(2), MemoryKeys(3)
HELD = Held(OTHER.node, LeaseId(b"l" * 16), b"a grant")
MANDATE = Mandate(
    TENANT.node,
    DEPUTY.node,
    "shop",
    7,
    Instant(NOW + HORIZON),
    Sat(500),
    Msat(1000),
    (HELD,),
    encode(Recipe("shop")),
)


def signed(mandate: Mandate = MANDATE, keys: MemoryKeys = TENANT) -> bytes:
    return sign_mandate(mandate, keys.sign)


def refused(blob: bytes, tenant: NodeKey = TENANT.node, deputy: NodeKey = DEPUTY.node, now: int = NOW) -> str:
    with pytest.raises(PeerError) as caught:
        open_mandate(blob, tenant, deputy, Instant(now), verify)
    return caught.value.code


def test_what_was_signed_is_what_is_read() -> None:
    assert open_mandate(signed(), TENANT.node, DEPUTY.node, NOW, verify) == (MANDATE, Recipe("shop"))
    withdrawn = replace(MANDATE, recipe=b"")
    assert open_mandate(signed(withdrawn), TENANT.node, DEPUTY.node, NOW, verify) == (withdrawn, None)


def test_forged() -> None:
    _, signature = msgspec.msgpack.decode(signed())
    richer = msgspec.msgpack.encode(replace(MANDATE, budget=Sat(501)))
    assert refused(msgspec.msgpack.encode(Signed(richer, signature))) == "mandate.forged"


def test_shown_by_somebody_else_or_to_another_deputy() -> None:
    assert refused(signed(), tenant=OTHER.node) == "mandate.other"
    assert refused(signed(), deputy=OTHER.node) == "mandate.other"


def test_expired_or_for_too_long() -> None:
    assert refused(signed(), now=MANDATE.expires) == "mandate.expired"
    assert refused(signed(), now=NOW - 1) == "mandate.expired"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": b"short"},
        {"deputy": b""},
        {"name": "a b"},
        {"name": ""},
        {"version": 0},
        {"version": 1 << 63},
        {"budget": -1},
        {"budget": 1 << 60},
        {"hourly": -1},
        {"leases": (HELD,) * (LEASES_MAX + 1)},
        {"leases": (replace(HELD, lease=LeaseId(b"short")),)},
        {"leases": (replace(HELD, grant=b"g" * 321),)},
        {"recipe": b"r" * ((1 << 20) + 1)},
    ],
)
def test_impossible_values(wrong: dict[str, Any]) -> None:
    assert refused(signed(replace(MANDATE, **wrong))) == "mandate.malformed"


def test_oversized_and_nonsense() -> None:
    assert refused(bytes(MANDATE_MAX + 1)) == "mandate.oversized"
    assert refused(b"") == "mandate.malformed"
    assert refused(signed(replace(MANDATE, recipe=b"nonsense"))) == "recipe.malformed"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_order(blob: bytes) -> None:
    for read in (decode_request, decode_answer):
        with pytest.raises(PeerError):
            read(b"\xff" + blob)


@pytest.mark.parametrize("said", [Give(b"mandate"), AskTerm("shop", 3, serves=True)])
def test_requests(said: Any) -> None:
    assert decode_request(encode_said(said)) == said


@pytest.mark.parametrize("said", [Taken(7), Said(3, yes=True, acts=False), Refused("deputy.full", "no more")])
def test_answers(said: Any) -> None:
    assert decode_answer(encode_said(said)) == said


@pytest.mark.parametrize(
    "frame", [["term", "n" * 65, 1, True], ["term", "shop", -1, True], ["mandate", "text"]]
)
def test_requests_beyond_measure(frame: Any) -> None:
    with pytest.raises(PeerError):
        decode_request(msgspec.msgpack.encode(frame))
