"""A grant is one tenant's word to one provider about one image, for an hour; and a lie each."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.errors import PeerError
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, Instant
from dockage.protocol.grants import VALID, Grant, open_grant, sign_grant
from dockage.protocol.images import GRANT_MAX
from dockage.testing.keys import MemoryKeys

TENANT = MemoryKeys(1)
HOLDER, OTHER = NodeKey(b"h" * 32), NodeKey(b"o" * 32)
LEASE, NOW = LeaseId(b"l" * 16), Instant(1_000 * HOUR)
GRANT = Grant(TENANT.node, LEASE, hashlib.sha256(b"image").digest(), HOLDER, Instant(NOW + VALID))
SIGNED = sign_grant(GRANT, TENANT.sign)


def test_who_it_was_given_to_may_use_it() -> None:
    assert len(SIGNED) <= GRANT_MAX
    assert open_grant(SIGNED, HOLDER, LEASE, NOW, TENANT.verify) == GRANT


@pytest.mark.parametrize(
    ("holder", "lease", "now", "code"),
    [
        (OTHER, LEASE, NOW, "grant.other"),
        (HOLDER, LeaseId(b"x" * 16), NOW, "grant.other"),
        (HOLDER, LEASE, Instant(NOW + VALID), "grant.expired"),
        (HOLDER, LEASE, Instant(NOW - 2 * VALID), "grant.expired"),
    ],
)
def test_it_is_good_for_nothing_else(holder: NodeKey, lease: LeaseId, now: Instant, code: str) -> None:
    with pytest.raises(PeerError) as error:
        open_grant(SIGNED, holder, lease, now, TENANT.verify)
    assert error.value.code == code


def test_nobody_can_sign_for_the_tenant() -> None:
    forged = sign_grant(GRANT, MemoryKeys(2).sign)
    with pytest.raises(PeerError) as error:
        open_grant(forged, HOLDER, LEASE, NOW, TENANT.verify)
    assert error.value.code == "grant.forged"


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_found(at: int, change: int) -> None:
    bent = bytearray(SIGNED)
    bent[at] ^= change
    with pytest.raises(PeerError):
        open_grant(bytes(bent), HOLDER, LEASE, NOW, TENANT.verify)


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(PeerError):
        open_grant(noise, HOLDER, LEASE, NOW, TENANT.verify)
