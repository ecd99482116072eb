"""Channel keys: one for each (role, channel), always the same, and nothing of the seed in sight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.adapters.secp import ChannelKeys, Secp, channel_secret
from dockage.adapters.secp.keys import ORDER, wif

SEED = bytes([5]) * 32
CURVE = Secp()
KEYS = ChannelKeys(SEED, CURVE)
IDS = st.binary(min_size=1, max_size=128)


@given(IDS, IDS)
def test_every_channel_and_role_has_its_own_key(one: bytes, other: bytes) -> None:
    assert channel_secret(SEED, "tenant", one) != channel_secret(SEED, "provider", one)
    assert (channel_secret(SEED, "tenant", one) == channel_secret(SEED, "tenant", other)) == (one == other)
    assert channel_secret(bytes(32), "tenant", one) != channel_secret(SEED, "tenant", one)


@given(IDS)
def test_a_channel_secret_is_a_valid_scalar(channel_id: bytes) -> None:
    assert 0 < int.from_bytes(channel_secret(SEED, "tenant", channel_id), "big") < ORDER


def test_a_channel_secret_never_changes() -> None:
    """Changing the derivation would lose every open channel's key."""
    assert channel_secret(SEED, "tenant", bytes(16)).hex() == FIXED


FIXED = "9b5ef01ec54696e54d3e3143439c849fe704ca0600bbde1beaaf412914a72d41"


def test_what_is_signed_verifies_under_the_public_key() -> None:
    digest = bytes([9]) * 32
    for sign in (KEYS.signer("tenant", b"id"), lambda d: KEYS.sign("tenant", b"id", d)):
        assert CURVE.verify(KEYS.public("tenant", b"id")[1:], digest, sign(digest))
        assert not CURVE.verify(KEYS.public("provider", b"id")[1:], digest, sign(digest))


@pytest.mark.parametrize(
    ("seed", "channel_id"), [(b"", b"id"), (bytes(31), b"id"), (SEED, b""), (SEED, bytes(129))]
)
def test_wrong_sizes_are_bugs(seed: bytes, channel_id: bytes) -> None:
    with pytest.raises(ValueError, match="channel key"):
        channel_secret(seed, "tenant", channel_id)
    with pytest.raises(ValueError, match="seed"):
        ChannelKeys(bytes(31), CURVE)


def test_the_seed_is_not_shown() -> None:
    assert SEED.hex() not in repr(KEYS)
    assert "\\x05" not in repr(KEYS)


def test_wallet_import_format() -> None:
    one = (1).to_bytes(32, "big")
    assert wif(one, "main") == "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn"
    assert wif(one, "regtest") == "cMahea7zqjxrtgAbB7LSGbcQUr1uX1ojuat9jZodMN87JcbXMTcA"


def test_a_crowd_of_signers_is_bounded_and_still_signs() -> None:
    curve = Secp(signers_max=2)
    digest = bytes(32)
    for _ in range(2):
        for n in range(1, 6):
            secret = n.to_bytes(32, "big")
            assert curve.verify(curve.pubkey(secret)[1:], digest, curve.sign(secret, digest))
    curve.close()
