"""One test per lie about a payment or a funding; at the brim, one satoshi either way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcoin.parts import CHANGE, OUTPOINT, Coin, Pair
from dockage.domain.channel import RESERVE, Terms
from dockage.domain.errors import PeerError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.channel import (
    Commitment,
    check_funding,
    check_terms,
)
from dockage.protocol.bitcoin.script import taproot_script
from dockage.protocol.bitcoin.sighash import ALL, DEFAULT, NONE, SINGLE, taproot_digest
from dockage.protocol.bitcoin.tx import Tx, TxOut

PAIR = Pair()
FULL = PAIR.terms.spendable


def refused(code: str, before: int, paid: Any, signature: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        PAIR.commitment.check_payment(Sat(before), paid, signature)
    assert caught.value.code == code


# -- what must happen ----------------------------------------------------------------------------------
def test_a_hundred_payments_are_taken() -> None:
    for paid in range(1000, 100_001, 1000):
        PAIR.commitment.check_payment(Sat(paid - 1000), Sat(paid), PAIR.pay(paid))


def test_everything_but_the_reserve_can_be_paid() -> None:
    PAIR.commitment.check_payment(Sat(FULL - 1), FULL, PAIR.pay(FULL))
    assert PAIR.commitment.change(FULL).value == RESERVE == 330


def test_a_tenant_that_lost_its_state_knows_its_own_signature() -> None:
    newest = PAIR.pay(10_000)
    restored = Commitment(PAIR.terms, OUTPOINT, PAIR.curve)
    assert restored.is_signed(10_000, newest)
    assert not restored.is_signed(10_001, newest)


@given(st.integers(1, FULL))
@settings(max_examples=25, deadline=None)
def test_any_amount_in_reach_is_signed_and_taken(paid: int) -> None:
    PAIR.commitment.check_payment(Sat(paid - 1), Sat(paid), PAIR.pay(paid))


# -- lies about an amount ------------------------------------------------------------------------------
def test_a_replayed_payment() -> None:
    refused("channel.not-increasing", 1000, 1000, PAIR.pay(1000))


def test_an_older_and_lower_payment() -> None:
    refused("channel.not-increasing", 5000, 1000, PAIR.pay(1000))


@pytest.mark.parametrize("paid", [0, -1, -(2**70)])
def test_a_payment_of_nothing_or_less(paid: int) -> None:
    refused("channel.not-increasing", 0, paid, PAIR.pay(1000))


@pytest.mark.parametrize("paid", [True, False, 1000.0, "1000", None, b"\1"])
def test_an_amount_that_is_no_integer(paid: Any) -> None:
    refused("channel.amount", 0, paid, PAIR.pay(1000))


@pytest.mark.parametrize("paid", [FULL + 1, FULL + RESERVE, FULL + RESERVE + 1, 2**64, 2**70])
def test_more_than_the_channel_can_pay(paid: int) -> None:
    refused("channel.overdrawn", 0, paid, PAIR.pay(1000))


def test_the_tenant_itself_signs_no_dust_change() -> None:
    with pytest.raises(PeerError):
        PAIR.pay(FULL + 1)


# -- lies in a signature -------------------------------------------------------------------------------
@pytest.mark.parametrize("delta", [-1, 1])
def test_an_amount_other_than_the_signed_one(delta: int) -> None:
    refused("channel.signature", 0, 1000 + delta, PAIR.pay(1000))


@given(st.integers(0, 511))
@settings(max_examples=40, deadline=None)
def test_one_flipped_bit(bit: int) -> None:
    signature = int.from_bytes(PAIR.pay(1000), "big") ^ 1 << bit
    refused("channel.signature", 0, 1000, signature.to_bytes(64, "big"))


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length(size: int) -> None:
    refused("channel.signature", 0, 1000, (PAIR.pay(1000) * 2)[:size])


@given(st.binary(max_size=100))
@settings(max_examples=40, deadline=None)
def test_noise_for_a_signature(noise: bytes) -> None:
    refused("channel.signature", 0, 1000, noise)


def test_zeros_for_a_signature() -> None:
    refused("channel.signature", 0, 1000, bytes(64))


def test_the_negated_s_is_no_second_signature() -> None:
    """ECDSA's high-S twin; Schnorr has none, so nobody can make a second form of the same payment."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = PAIR.pay(1000)
    twin = order - int.from_bytes(signature[32:], "big")
    refused("channel.signature", 0, 1000, signature[:32] + twin.to_bytes(32, "big"))


@pytest.mark.parametrize("kind", [DEFAULT, ALL, NONE, SINGLE, 0x81, 0x82])
def test_a_signature_of_another_sighash_type(kind: int) -> None:
    commitment = PAIR.commitment
    tx = Tx(3, (commitment.input,), (commitment.change(1000), TxOut(700, CHANGE)))
    digest = taproot_digest(tx, 0, (commitment.coin,), kind, commitment.funding.close.hash)
    refused("channel.signature", 0, 1000, PAIR.tenant(digest))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"locktime": 1},
        {"inputs": (PAIR.commitment.input._replace(sequence=0xFFFFFFFF),)},
        {"inputs": (PAIR.commitment.input._replace(vout=0),)},
        {"outputs": (TxOut(PAIR.terms.capacity - 1000, taproot_script(bytes([9]) * 32)),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_signature_over_another_template(change: dict[str, Any]) -> None:
    commitment = PAIR.commitment
    tx = Tx(3, (commitment.input,), (commitment.change(1000),))._replace(**change)
    digest = taproot_digest(tx, 0, (commitment.coin,), 0x83, commitment.funding.close.hash)
    refused("channel.signature", 0, 1000, PAIR.tenant(digest))


def test_a_signature_for_the_refund_leaf_or_the_key_path() -> None:
    commitment = PAIR.commitment
    tx = Tx(3, (commitment.input,), (commitment.change(1000),))
    for leaf in (commitment.funding.refund.hash, b""):
        digest = taproot_digest(tx, 0, (commitment.coin,), 0x83, leaf)
        refused("channel.signature", 0, 1000, PAIR.tenant(digest))


@pytest.mark.parametrize(
    "other",
    [
        Pair(outpoint=(OUTPOINT[0], 2)),
        Pair(outpoint=("ac" * 32, 1)),
        Pair(expiry=900_001),
        Pair(capacity=200_001),
        Pair(provider=bytes([3]) * 32),
        Pair(change=taproot_script(bytes([9]) * 32)),
    ],
    ids=["vout", "txid", "expiry", "capacity", "provider", "change"],
)
def test_a_signature_from_another_channel_with_the_same_key(other: Pair) -> None:
    refused("channel.signature", 0, 1000, other.pay(1000))


def test_a_signature_by_the_provider_itself() -> None:
    refused("channel.signature", 0, 1000, PAIR.provider(PAIR.commitment.digest(1000)))


@pytest.mark.parametrize("paid", [0, -1, FULL + 1, 2**70, True, None, "1"])
def test_a_claim_out_of_range_is_just_not_signed(paid: Any) -> None:
    assert not PAIR.commitment.is_signed(paid, PAIR.pay(1000))


def test_a_signature_for_nothing_is_no_payment() -> None:
    assert not PAIR.commitment.is_signed(0, PAIR.tenant(PAIR.commitment.digest(0)))


def test_a_refused_payment_leaves_no_trace() -> None:
    digest = PAIR.commitment.digest(1000)
    refused("channel.signature", 0, 1000, bytes(64))
    assert PAIR.commitment.digest(1000) == digest
    PAIR.commitment.check_payment(Sat(0), Sat(1000), PAIR.pay(1000))


# -- lies in the terms ---------------------------------------------------------------------------------
def altered(**change: Any) -> Terms:
    return msgspec.structs.replace(PAIR.terms, **change)


@pytest.mark.parametrize(
    "terms",
    [
        altered(tenant_key=b""),
        altered(tenant_key=PAIR.terms.tenant_key[1:]),
        altered(tenant_key=b"\4" + PAIR.terms.tenant_key[1:]),
        altered(provider_key=b"\2" * 65),
        altered(tenant_key=PAIR.terms.provider_key),
        altered(tenant_key=bytes([PAIR.terms.provider_key[0] ^ 1]) + PAIR.terms.provider_key[1:]),
        altered(expiry_height=0),
        altered(expiry_height=-1),
        altered(expiry_height=500_000_000),
        altered(capacity=659),
        altered(capacity=-1),
        altered(capacity=21 * 10**14 + 1),
        altered(tenant_script=b""),
        altered(tenant_script=b"\x6a" + bytes(40)),
        altered(tenant_script=bytes(10_000)),
        altered(tenant_script=b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"),
    ],
)
def test_terms_that_cannot_be_used(terms: Terms) -> None:
    with pytest.raises(PeerError) as caught:
        Commitment(terms, OUTPOINT, PAIR.curve)
    assert caught.value.code == "channel.terms"


def test_a_key_that_is_not_on_the_curve() -> None:
    with pytest.raises(PeerError) as caught:
        Commitment(altered(tenant_key=b"\2" + bytes(31) + b"\5"), OUTPOINT, PAIR.curve)
    assert caught.value.code == "channel.key"


@pytest.mark.parametrize(
    "outpoint",
    [
        ("", 0),
        ("ab" * 31, 0),
        ("AB" * 32, 0),
        ("ab " * 21 + "a", 0),
        ("zz" * 32, 0),
        ("0x" * 32, 0),
        ("ab" * 32, -1),
        ("ab" * 32, 2**32),
    ],
)
def test_an_outpoint_that_is_none(outpoint: tuple[str, int]) -> None:
    with pytest.raises(PeerError) as caught:
        Commitment(PAIR.terms, outpoint, PAIR.curve)
    assert caught.value.code == "channel.outpoint"


@pytest.mark.parametrize(
    "terms",
    [
        altered(capacity=660),
        altered(capacity=21 * 10**14),
        altered(expiry_height=1),
        altered(expiry_height=499_999_999),
        altered(tenant_script=b"\0\x14" + bytes(20)),
        altered(tenant_script=b"\0\x20" + bytes(32)),
    ],
)
def test_terms_at_the_brim(terms: Terms) -> None:
    check_terms(terms)


@pytest.mark.parametrize("outpoint", [("00" * 32, 0), ("ff" * 32, 2**32 - 1)])
def test_an_outpoint_at_the_brim(outpoint: tuple[str, int]) -> None:
    assert Commitment(PAIR.terms, outpoint, PAIR.curve).input.outpoint[32:] == outpoint[1].to_bytes(
        4, "little"
    )


# -- lies about the funding ----------------------------------------------------------------------------
@dataclass
class Case:
    code: str
    coin: Coin


SEEN = PAIR.coin()


@pytest.mark.parametrize(
    "case",
    [
        Case("channel.value", SEEN._replace(value=Sat(PAIR.terms.capacity - 1))),
        Case("channel.value", SEEN._replace(value=Sat(PAIR.terms.capacity + 1))),
        Case("channel.script", SEEN._replace(script=Pair(expiry=900_050).commitment.funding.script)),
        Case(
            "channel.script", SEEN._replace(script=Pair(provider=bytes([3]) * 32).commitment.funding.script)
        ),
        Case("channel.script", SEEN._replace(script=CHANGE)),
        Case("channel.script", SEEN._replace(script=b"")),
        Case("channel.immature", SEEN._replace(coinbase=True, confirmations=99)),
    ],
    ids=lambda case: case.code,
)
def test_a_funding_that_is_refused(case: Case) -> None:
    with pytest.raises(PeerError) as caught:
        check_funding(PAIR.commitment, case.coin)
    assert caught.value.code == case.code


@pytest.mark.parametrize("coin", [SEEN, PAIR.coin(0), SEEN._replace(coinbase=True, confirmations=100)])
def test_a_funding_that_is_as_agreed(coin: Coin) -> None:
    check_funding(PAIR.commitment, coin)
