"""One contract for ``Curve``, on both bindings and across them, with the vectors of BIP340 and BIP327."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.adapters.secp import Secp
from dockage.adapters.secp.coincurve import CoincurveSecp
from dockage.domain.errors import PeerError
from dockage.protocol.bitcoin.curve import Curve

VECTORS = Path(__file__).parents[1] / "bitcoin" / "vectors"
BIP340 = list(csv.DictReader((VECTORS / "bip340.csv").read_text().splitlines()))
BIP327 = json.loads((VECTORS / "bip327_key_agg.json").read_text())
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
NOT_ON_CURVE = bytes(31) + b"\5"
secrets = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)
BINDINGS: dict[str, Curve] = {"btclib": Secp(), "coincurve": CoincurveSecp()}


@pytest.fixture(params=BINDINGS)
def curve(request: pytest.FixtureRequest) -> Curve:
    return BINDINGS[request.param]


@pytest.mark.parametrize("row", [r for r in BIP340 if len(r["message"]) == 64], ids=lambda row: row["index"])
def test_bip340_vectors(curve: Curve, row: dict[str, str]) -> None:
    key, digest, signature = (bytes.fromhex(row[f]) for f in ("public key", "message", "signature"))
    if row["secret key"]:
        assert curve.pubkey(bytes.fromhex(row["secret key"]))[1:] == key
    if row["comment"].startswith("public key"):
        with pytest.raises(PeerError, match="not a point"):
            curve.verify(key, digest, signature)
    else:
        assert curve.verify(key, digest, signature) == (row["verification result"] == "TRUE")


def test_there_are_vectors_of_both_kinds() -> None:
    assert {row["verification result"] for row in BIP340 if len(row["message"]) == 64} == {"TRUE", "FALSE"}


@pytest.mark.parametrize("case", BIP327["valid_test_cases"], ids=lambda case: str(case["key_indices"]))
def test_bip327_aggregates(curve: Curve, case: dict[str, Any]) -> None:
    """Our aggregate sorts first, so only the vectors that are sorted already apply; the others must differ."""
    keys = [bytes.fromhex(BIP327["pubkeys"][n]) for n in case["key_indices"]]
    assert (curve.aggregate(keys).hex().upper() == case["expected"]) == (keys == sorted(keys))


def test_bip327_sorted_vector_was_among_them() -> None:
    orders = [[BIP327["pubkeys"][n] for n in case["key_indices"]] for case in BIP327["valid_test_cases"]]
    assert any(order == sorted(order) for order in orders)


@pytest.mark.parametrize(
    "key",
    [b"", bytes(32), bytes(33), b"\2" + NOT_ON_CURVE, b"\2" + b"\xff" * 32, b"\4" + bytes(64), b"\2" * 34],
)
def test_an_aggregate_of_a_bad_key(curve: Curve, key: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        curve.aggregate([curve.pubkey(bytes([1]) * 32), key])
    assert caught.value.code == "channel.key"


@pytest.mark.parametrize("key", [b"", NOT_ON_CURVE, b"\xff" * 32, bytes(31), b"\2" + bytes([1]) * 32])
def test_a_bad_x_only_key(curve: Curve, key: bytes) -> None:
    for use in (lambda: curve.verify(key, bytes(32), bytes(64)), lambda: curve.tweak(key, bytes([1]) * 32)):
        with pytest.raises(PeerError) as caught:
            use()
        assert caught.value.code == "channel.key"


def test_a_tweak_beyond_the_group_order(curve: Curve) -> None:
    with pytest.raises(PeerError):
        curve.tweak(curve.pubkey(bytes([1]) * 32)[1:], ORDER.to_bytes(32, "big"))


@given(secrets, digests, st.binary(max_size=130))
@settings(max_examples=25, deadline=None)
def test_noise_never_verifies_and_never_raises(secret: bytes, digest: bytes, noise: bytes) -> None:
    for curve in BINDINGS.values():
        assert not curve.verify(curve.pubkey(secret)[1:], digest, noise)


@given(secrets, digests)
@settings(max_examples=25, deadline=None)
def test_each_binding_takes_what_the_other_signs(secret: bytes, digest: bytes) -> None:
    one, other = BINDINGS.values()
    assert one.pubkey(secret) == other.pubkey(secret)
    for signer, verifier in ((one, other), (other, one)):
        signature = signer.sign(secret, digest)
        assert len(signature) == 64
        assert verifier.verify(signer.pubkey(secret)[1:], digest, signature)
        assert not verifier.verify(
            signer.pubkey(secret)[1:], digest, signature[:-1] + bytes([signature[-1] ^ 1])
        )


@given(st.lists(secrets, min_size=2, max_size=4), digests)
@settings(max_examples=25, deadline=None)
def test_both_bindings_build_the_same_keys(several: list[bytes], tweak: bytes) -> None:
    one, other = BINDINGS.values()
    keys = [one.pubkey(secret) for secret in several]
    aggregate = one.aggregate(keys)
    assert aggregate == other.aggregate(keys[::-1])
    assert one.tweak(aggregate, tweak) == other.tweak(aggregate, tweak)


def test_a_wrong_size_of_our_own_is_a_bug(curve: Curve) -> None:
    for secret, digest in ((bytes(31), bytes(32)), (bytes([1]) * 32, bytes(31)), (bytes(32), bytes(32))):
        with pytest.raises(ValueError):  # noqa: PT011 - each binding has its own words
            curve.sign(secret, digest)
