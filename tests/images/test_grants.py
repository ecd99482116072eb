"""A grant is one tenant's word to one provider about one node and one lease, for a while; and a lie each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dockage.domain.deployment import GRANT_MAX
from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant
from dockage.protocol.grants import PORTS_MAX, TERM, VALID, Grant, Use, open_grant, sign_grant
from dockage.protocol.signed import Signed
from dockage.protocol.streams import HEADER_MAX, Datagrams, encode_header
from dockage.testing.keys import MemoryKeys

VECTORS = json.loads((Path(__file__).parents[2] / "docs/spec/vectors/documents.json").read_text())
TENANT = MemoryKeys(1)
HOLDER, OTHER = NodeKey(b"h" * 32), NodeKey(b"o" * 32)
LEASE, NOW = LeaseId(b"l" * 16), Instant(1_000 * HOUR)
LAYERS = Grant(
    TENANT.node, LEASE, HOLDER, ("layers",), 0, Instant(NOW + VALID), image=hashlib.sha256(b"i").digest()
)
TUNNEL = Grant(TENANT.node, LEASE, HOLDER, ("tunnel",), 7, Instant(NOW + TERM), (80, 443))
SIGNED = sign_grant(TUNNEL, TENANT.sign)


def refusal(
    blob: bytes,
    holder: NodeKey = HOLDER,
    lease: LeaseId = LEASE,
    use: Use = "tunnel",
    now: Instant = NOW,
    fence: int = 0,
) -> str:
    with pytest.raises(PeerError) as caught:
        open_grant(blob, holder, lease, use, now, TENANT.verify, fence)
    return caught.value.code


@pytest.mark.parametrize(("grant", "use"), [(LAYERS, "layers"), (TUNNEL, "tunnel")])
def test_who_it_was_given_to_may_use_it(grant: Grant, use: Use) -> None:
    assert open_grant(sign_grant(grant, TENANT.sign), HOLDER, LEASE, use, NOW, TENANT.verify) == grant


@pytest.mark.parametrize("vector", VECTORS["grants"], ids=lambda v: v["use"])
def test_the_vectors_of_the_spec(vector: dict[str, str]) -> None:
    blob = bytes.fromhex(vector["signed"])
    grant = msgspec.msgpack.decode(msgspec.msgpack.decode(blob, type=Signed).body, type=Grant)
    assert grant.use == (vector["use"],)
    assert sign_grant(grant, TENANT.sign) == blob


def test_the_largest_fits_its_bound_and_the_header_too() -> None:
    largest = replace(
        LAYERS,
        use=("layers", "tunnel"),
        epoch=(1 << 63) - 1,
        expires=Instant((1 << 63) - 1),
        ports=(65535,) * PORTS_MAX,
    )
    blob = sign_grant(largest, TENANT.sign)
    assert len(blob) <= GRANT_MAX
    assert len(encode_header(Datagrams(LEASE, "a" * 64, 65535, bytes(GRANT_MAX)))) <= HEADER_MAX


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"holder": OTHER}, "grant.other"),
        ({"lease": LeaseId(b"x" * 16)}, "grant.other"),
        ({"use": "layers"}, "grant.other"),
        ({"now": Instant(NOW + TERM)}, "grant.expired"),
        ({"now": Instant(NOW - 3 * VALID)}, "grant.expired"),
        ({"fence": 8}, "grant.fenced"),
    ],
)
def test_it_is_good_for_nothing_else(change: dict[str, Any], code: str) -> None:
    assert refusal(SIGNED, **change) == code


def test_its_own_epoch_is_not_fenced() -> None:
    assert open_grant(SIGNED, HOLDER, LEASE, "tunnel", NOW, TENANT.verify, fence=7) == TUNNEL


@pytest.mark.parametrize(
    "change",
    [
        {"image": b"short"},
        {"image": b"i" * 32},
        {"use": ("layers",)},
        {"ports": (0,)},
        {"ports": (70_000,)},
        {"ports": (1,) * 17},
        {"epoch": -1},
        {"use": ("tunnel",) * 3},
        {"use": ("everything",)},
        {"tenant": NodeKey(b"short")},
    ],
)
def test_impossible_values_are_refused(change: dict[str, Any]) -> None:
    assert refusal(sign_grant(replace(TUNNEL, **change), TENANT.sign)) == "grant.malformed"


def test_it_opens_the_ports_that_it_names() -> None:
    assert TUNNEL.opens(80)
    assert not TUNNEL.opens(5432)
    assert replace(TUNNEL, ports=()).opens(5432)
