"""Closes and refunds as bytes: sizes, fees to the satoshi, who signs what. The chain's word is in test_regtest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcoin.parts import CHANGE, PAYOUT, Pair
from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.script import taproot_script
from dockage.protocol.bitcoin.settlement import (
    ADDED_VBYTES,
    BATCH_MAX,
    CLOSE_VBYTES,
    DUST,
    OPEN_VBYTES,
    REFUND_VBYTES,
    SETUP_VBYTES,
    Claim,
    bumped,
    closing,
    overhead,
    refund,
    replacing,
    worth_closing,
)
from dockage.protocol.bitcoin.sighash import DEFAULT, PAYMENT, taproot_digest
from dockage.protocol.bitcoin.tx import SEQUENCE_RBF, Tx, TxIn, TxOut, fee_for, parse

PAIR = Pair()


@pytest.fixture(scope="module")
def batch() -> list[Claim]:
    pairs = [Pair(50_000 + n, outpoint=("cd" * 32, n)) for n in range(10)]
    return [pair.claim(7000 + n) for n, pair in enumerate(pairs)]


def test_a_close_pays_everybody_to_the_satoshi() -> None:
    close = closing([PAIR.claim(100_000)], PAYOUT, 2000)
    assert close.fee == 2 * CLOSE_VBYTES == 2 * close.tx.vsize
    assert close.tx.outputs == (TxOut(100_000, CHANGE), TxOut(100_000 - close.fee, PAYOUT))
    assert close.received == 100_000 - close.fee
    assert (close.tx.version, close.tx.locktime) == (3, 0)
    assert [one.sequence for one in close.tx.inputs] == [SEQUENCE_RBF]
    assert parse(close.tx.encode()) == close.tx


def test_the_provider_signs_everything_and_the_tenant_its_own_part() -> None:
    commitment = PAIR.commitment
    tx = closing([PAIR.claim(100_000)], PAYOUT, 2000).tx
    provider, tenant, script, control = tx.witnesses[0]
    whole = taproot_digest(tx, 0, (commitment.coin,), DEFAULT, commitment.funding.close.hash)
    assert PAIR.curve.verify(PAIR.terms.provider_key[1:], whole, provider)
    assert PAIR.curve.verify(PAIR.terms.tenant_key[1:], commitment.digest(100_000), tenant[:64])
    assert tenant[64:] == bytes([PAYMENT])
    assert (script, control) == (commitment.funding.close.script, commitment.funding.close.control)


def test_a_changed_payout_breaks_the_providers_signature() -> None:
    tx = closing([PAIR.claim(100_000)], PAYOUT, 2000).tx
    stolen = tx._replace(outputs=(tx.outputs[0], tx.outputs[1]._replace(script=CHANGE)))
    digest = taproot_digest(stolen, 0, (PAIR.commitment.coin,), DEFAULT, PAIR.commitment.funding.close.hash)
    assert not PAIR.curve.verify(PAIR.terms.provider_key[1:], digest, tx.witnesses[0][0])


def test_a_higher_rate_replaces_with_the_same_payment() -> None:
    claim = PAIR.claim(100_000)
    low, high = closing([claim], PAYOUT, 2000), closing([claim], PAYOUT, 10_000)
    assert low.tx.inputs == high.tx.inputs
    assert low.tx.outputs[0] == high.tx.outputs[0]
    assert high.fee - low.fee == 8 * CLOSE_VBYTES
    assert low.tx.witnesses[0][1] == high.tx.witnesses[0][1]


def test_in_a_batch_each_output_is_beside_its_input(batch: list[Claim]) -> None:
    close = closing(batch, PAYOUT, 1000)
    for claim, one, out in zip(batch, close.tx.inputs, close.tx.outputs, strict=False):
        assert (one.txid, one.vout) == claim.commitment.outpoint
        assert out.value == claim.commitment.terms.capacity - claim.paid
    assert close.tx.outputs[-1] == TxOut(close.received, PAYOUT)
    assert close.tx.vsize == 1561
    assert sum(out.value for out in close.tx.outputs) + close.fee == sum(
        claim.commitment.terms.capacity for claim in batch
    )


@given(st.integers(-2, 2), st.integers(1000, 100_000))
@settings(max_examples=40, deadline=None)
def test_a_close_leaves_at_least_dust_or_is_refused(extra: int, feerate: int) -> None:
    paid = fee_for(CLOSE_VBYTES, feerate) + DUST + extra
    if extra < 0:
        with pytest.raises(UsageError) as caught:
            closing([PAIR.claim(paid)], PAYOUT, feerate)
        assert caught.value.code == "channel.uneconomic"
    else:
        assert closing([PAIR.claim(paid)], PAYOUT, feerate).received == DUST + extra


def test_the_largest_batch_is_still_relayed_as_version_3() -> None:
    script = b"\0\x20" + bytes(32)
    pair = Pair(change=script)
    claim = pair.claim(50_000)
    claims = [
        claim._replace(commitment=Pair(outpoint=("ef" * 32, n), change=script).commitment)
        for n in range(BATCH_MAX)
    ]
    assert closing(claims, script, 1000).tx.vsize <= 10_000


def test_misuse_of_a_batch_is_a_bug() -> None:
    claim = PAIR.claim(100_000)
    for claims in ([], [claim, claim], [claim._replace(signature=b"")]):
        with pytest.raises(ValueError, match="close"):
            closing(claims, PAYOUT, 1000)


def test_a_refund_waits_for_the_expiry() -> None:
    back = refund(PAIR.commitment, CHANGE, 3000, PAIR.tenant)
    assert back.tx.locktime == PAIR.terms.expiry_height
    assert back.tx.inputs[0].sequence < 0xFFFFFFFF
    assert back.tx.vsize == REFUND_VBYTES
    assert back.tx.outputs == (TxOut(200_000 - 3 * REFUND_VBYTES, CHANGE),)
    digest = taproot_digest(back.tx, 0, (PAIR.commitment.coin,), DEFAULT, PAIR.commitment.funding.refund.hash)
    assert PAIR.curve.verify(PAIR.terms.tenant_key[1:], digest, back.tx.witnesses[0][0])


def test_a_refund_that_is_all_fee_is_refused() -> None:
    poor = Pair(660)
    assert refund(poor.commitment, CHANGE, 2391, poor.tenant).received == DUST
    with pytest.raises(UsageError) as caught:
        refund(poor.commitment, CHANGE, 2392, poor.tenant)
    assert caught.value.code == "channel.uneconomic"


def test_the_size_of_an_opening() -> None:
    key = taproot_script(bytes(32))
    tx = Tx(3, (TxIn("00" * 32, 0),), (TxOut(1, key), TxOut(1, key)), 0, ((bytes(64),),))
    assert tx.vsize == OPEN_VBYTES


@dataclass
class Rate:
    feerate: int
    total: int
    ten_percent: int


@pytest.mark.parametrize(
    "rate", [Rate(1000, 359, 3590), Rate(10_000, 3590, 35_900), Rate(50_000, 17_950, 179_500)]
)
def test_overhead_and_the_smallest_sensible_channel(rate: Rate) -> None:
    cost = overhead(rate.feerate)
    assert (cost.total, cost.smallest_capacity(10)) == (rate.total, rate.ten_percent)
    assert cost.total * 100 <= rate.ten_percent * 10


def test_what_the_provider_gets_of_a_funding_is_overhead() -> None:
    assert overhead(2000, Sat(1000)).open == 2 * (OPEN_VBYTES + SETUP_VBYTES) + 1000
    assert overhead(2000, Sat(1000)).close == overhead(2000).close == 2 * CLOSE_VBYTES


@pytest.mark.parametrize(
    ("before", "after"), [(1000, 2000), (1999, 2999), (2000, 3000), (2001, 3002), (10_000, 15_000)]
)
def test_a_bump_is_half_more_and_no_more_than_needed(before: int, after: int) -> None:
    assert bumped(before) == after


@pytest.mark.parametrize(
    ("vsize", "feerate", "before", "wanted"),
    [(205, 1000, 410, 3000), (200, 1000, 401, 3005), (205, 9000, 205, 9000), (300, 1000, 100, 1334)],
)
def test_a_replacement_pays_no_more_than_it_must(vsize: int, feerate: int, before: int, wanted: int) -> None:
    assert replacing(vsize, feerate, before) == wanted


def test_what_is_worth_closing_at_the_brim() -> None:
    first, added = CLOSE_VBYTES - ADDED_VBYTES, ADDED_VBYTES
    alone = PAIR.claim(first + added + DUST)
    poor = Pair(outpoint=("ce" * 32, 0)).claim(added)
    assert worth_closing([alone], 1000) == [alone]
    assert worth_closing([PAIR.claim(first + added + DUST - 1)], 1000) == []
    assert worth_closing([alone, poor], 1000) == [alone]
    assert worth_closing([], 1000) == []


@given(st.integers(1000, 10_000_000))
def test_a_bump_always_replaces(feerate: int) -> None:
    """BIP125 rule 4: the new fee pays for its own relay on top of the old one."""
    for size in (CLOSE_VBYTES, REFUND_VBYTES, 1561, 9999):
        assert fee_for(size, bumped(feerate)) >= fee_for(size, feerate) + fee_for(size, 1000)
    assert bumped(feerate) * 2 >= feerate * 3
