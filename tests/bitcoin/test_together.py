"""The close by both as bytes: who gets what, to the satoshi, and what a tenant would not sign."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcoin.parts import CHANGE, PAYOUT, PROVIDER, TENANT, Pair
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.curve import Joint, Part
from dockage.protocol.bitcoin.settlement import (
    ADDED_VBYTES,
    DUST,
    OPEN_VBYTES,
    REFUND_VBYTES,
    closing,
    replacing,
    worth_closing,
)
from dockage.protocol.bitcoin.together import CLOSE_VBYTES, HOPELESS, Agreement, agreement, check_share
from dockage.protocol.bitcoin.tx import SEQUENCE_RBF, Tx, TxIn, TxOut, fee_for

PAIR = Pair()
ALL_BACK_VBYTES = 111


def agree(paid: int, feerate: int = 1000, *, pair: Pair = PAIR, script: bytes = PAYOUT) -> Agreement:
    return agreement(pair.commitment, Sat(paid), script, feerate)


def sign(agreed: Agreement, joint: Joint | None = None, pair: Pair = PAIR) -> Tx:
    """Each side signs what it built itself; *joint*: what the tenant built."""
    tenant, provider = pair.curve.half(TENANT, joint or agreed.joint), pair.curve.half(PROVIDER, agreed.joint)
    theirs = Part(pair.terms.tenant_key, tenant.nonce, tenant.sign(provider.nonce))
    ours = Part(pair.terms.provider_key, provider.nonce, provider.sign(tenant.nonce))
    return agreed.signed(pair.curve, ours, theirs)


def test_the_provider_pays_the_fee_and_everybody_gets_theirs() -> None:
    tx = sign(agree(100_000, 2000))
    assert tx.vsize == CLOSE_VBYTES
    assert (tx.version, tx.locktime, tx.inputs[0].sequence) == (3, 0, SEQUENCE_RBF)
    assert tx.outputs == (TxOut(100_000, CHANGE), TxOut(100_000 - 2 * CLOSE_VBYTES, PAYOUT))
    (signature,) = tx.witnesses[0]
    output_key = PAIR.commitment.coin.script[2:]
    assert PAIR.curve.verify(output_key, agree(100_000, 2000).joint.digest, signature)


def test_what_would_be_dust_goes_back_to_the_tenant() -> None:
    brim = CLOSE_VBYTES + DUST
    assert agree(brim).received == DUST
    back = agree(brim - 1)
    assert (back.received, back.fee, back.returned) == (0, ALL_BACK_VBYTES, 200_000 - ALL_BACK_VBYTES)
    assert sign(back).vsize == ALL_BACK_VBYTES
    assert brim == HOPELESS


@given(st.integers(0, 199_670), st.integers(1000, 400_000), st.sampled_from([PAYOUT, b"\0\x14" + bytes(20)]))
@settings(max_examples=200, deadline=None)
def test_no_satoshi_is_lost_or_found(paid: int, feerate: int, script: bytes) -> None:
    agreed = agree(paid, feerate, script=script)
    blank = agreed.tx._replace(witnesses=((bytes(64),),))
    assert agreed.fee == fee_for(blank.vsize, feerate)
    assert agreed.returned + agreed.received + agreed.fee == 200_000
    assert min(out.value for out in agreed.tx.outputs) >= DUST
    assert agreed.received in (0, paid - agreed.fee)
    if agreed.received:
        assert agreed.returned == 200_000 - paid


def test_a_channel_smaller_than_the_fee_is_not_closed() -> None:
    small = Pair(660)
    assert agree(0, 2972, pair=small).returned == DUST
    with pytest.raises(UsageError) as caught:
        agree(0, 2973, pair=small)
    assert caught.value.code == "channel.uneconomic"


@pytest.mark.parametrize(
    "script", [b"", b"\x6a", b"\x51\x20" + bytes(31), b"\x76\xa9\x14" + bytes(22), bytes(34)]
)
def test_a_payout_that_might_not_be_relayed_is_refused(script: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        agree(100_000, script=script)
    assert caught.value.code == "close.script"


# -- the tenant's check ------------------------------------------------------------------------------
def why_not(paid: int, signed: int, feerate: int = 1000, own: int = 1000) -> str:
    try:
        check_share(agree(paid, feerate), Sat(signed), own)
    except PeerError as error:
        return error.code
    return ""


def test_the_tenant_signs_for_what_it_paid_or_less() -> None:
    assert why_not(50_000, 50_000) == why_not(49_999, 50_000) == why_not(0, 50_000) == ""
    assert why_not(50_001, 50_000) == "close.overpaid"


def test_a_fee_of_the_providers_is_the_providers_business() -> None:
    assert why_not(50_000, 50_000, feerate=300_000) == ""


def test_the_tenant_bears_a_fee_up_to_that_of_its_refund() -> None:
    most = REFUND_VBYTES * 1000 // ALL_BACK_VBYTES
    assert why_not(0, 0, feerate=most) == ""
    assert why_not(0, 0, feerate=most + 10) == "close.fee"
    assert why_not(0, 0, feerate=most + 10, own=2000) == ""
    assert why_not(100, 100, feerate=100_000) == "close.fee"
    fee = agree(0, 100_000).fee
    assert why_not(fee, fee, feerate=100_000) == ""
    assert why_not(fee - 1, fee - 1, feerate=100_000) == "close.fee"


@given(st.integers(0, 199_670), st.integers(-3, 3), st.integers(1000, 200_000), st.integers(1000, 200_000))
@settings(max_examples=200, deadline=None)
def test_what_the_tenant_signs_returns_what_it_did_not_pay(
    signed: int, more: int, feerate: int, own: int
) -> None:
    paid = min(199_670, max(0, signed + more))
    agreed = agree(paid, feerate)
    if why_not(paid, signed, feerate, own) == "":
        assert agreed.returned >= 200_000 - signed - fee_for(REFUND_VBYTES, own)
        if agreed.received:
            assert agreed.returned >= 200_000 - signed


# -- lies --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "other",
    [
        agree(99_999),
        agree(100_000, 1001),
        agree(100_000, script=CHANGE),
        agree(100_000, pair=Pair(200_001)),
        agree(100_000, pair=Pair(expiry=900_001)),
        agree(100_000, pair=Pair(outpoint=("ab" * 32, 2))),
        agree(100_000, pair=Pair(change=PAYOUT)),
    ],
    ids=["amount", "fee", "payout", "capacity", "expiry", "outpoint", "change"],
)
def test_a_half_for_another_transaction_or_channel_is_refused(other: Agreement) -> None:
    with pytest.raises(PeerError) as caught:
        sign(agree(100_000), other.joint)
    assert caught.value.code == "close.partial"


def test_the_signature_of_a_close_fits_no_other() -> None:
    tx, other = sign(agree(100_000)), agree(99_999)
    assert not PAIR.curve.verify(PAIR.commitment.coin.script[2:], other.joint.digest, tx.witnesses[0][0])


# -- batches -----------------------------------------------------------------------------------------
def test_ten_channels_open_for_54_vbytes_each() -> None:
    def opened(channels: int) -> int:
        outputs = tuple(TxOut(1000, PAYOUT) for _ in range(channels + 1))
        return Tx(2, (TxIn("ab" * 32, 0),), outputs, 0, ((bytes(64),),)).vsize

    assert opened(1) == OPEN_VBYTES
    assert opened(10) == 541


def test_a_channel_that_costs_more_than_it_brings_is_left_out_of_a_batch() -> None:
    claims = [Pair(outpoint=("cd" * 32, n)).claim(paid) for n, paid in enumerate((5000, 151, 152, 700))]
    assert [claim.paid for claim in worth_closing(claims, 1000)] == [5000, 152, 700]
    assert worth_closing(claims, 10_000) == claims[:1]
    assert worth_closing(claims, 33_000) == []
    assert worth_closing(claims[1:3], 1000) == []


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(1000, 5000))
@settings(max_examples=60, deadline=None)
def test_what_is_worth_closing_can_be_closed(paid: list[int], feerate: int) -> None:
    claims = [Pair(outpoint=("cd" * 32, n)).claim(each) for n, each in enumerate(paid)]
    worth = worth_closing(claims, feerate)
    if worth:
        close = closing(worth, PAYOUT, feerate)
        assert close.received >= DUST
        assert close.fee <= fee_for(CLOSE_VBYTES + 51 + (len(worth) - 1) * ADDED_VBYTES, feerate)


@given(st.integers(1, 10_000), st.integers(1000, 50_000), st.integers(0, 100_000))
def test_what_replaces_pays_for_what_it_replaces_and_for_itself(vsize: int, rate: int, before: int) -> None:
    fee = fee_for(vsize, replacing(vsize, rate, before))
    assert fee >= before + fee_for(vsize, 1000)
    assert fee >= fee_for(vsize, rate)
