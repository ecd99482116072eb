"""docs/spec/vectors/channel.json, number for number: what another implementation is measured with."""

from __future__ import annotations

import json
from functools import partial

import pytest
from btclib_secp256k1 import ssa
from ecc.ecc import musig2

from bitcoin.parts import PROVIDER, SPEC_VECTORS, TENANT, Pair
from dockage.adapters.secp import channel_secret
from dockage.adapters.secp.keys import wif
from dockage.domain import channel, credit, refill
from dockage.domain.channel import Terms
from dockage.domain.units import MINUTE, Sat
from dockage.protocol.bitcoin import channel as payments
from dockage.protocol.bitcoin import script, settlement, sighash, together, tx
from dockage.protocol.bitcoin.address import PREFIXES, encode
from dockage.protocol.bitcoin.channel import Commitment
from dockage.protocol.bitcoin.curve import Joint, Part
from dockage.protocol.bitcoin.descriptor import descriptor
from dockage.protocol.bitcoin.settlement import Claim, Settlement, closing
from dockage.protocol.bitcoin.settlement import refund as refund_to
from dockage.protocol.bitcoin.together import agreement

SPEC = json.loads((SPEC_VECTORS / "channel.json").read_text())
PARTS = ("values", "keys", "terms", "funding", "settlement")
VALUES, KEYS, TERMS, FUNDING, SETTLEMENT = (SPEC[part] for part in PARTS)
PAIR = Pair()


def sign_repeatably(secret: bytes, digest: bytes) -> bytes:
    return bytes(ssa.sign(digest, secret, bytes(32)))


TENANT_SIGNS, PROVIDER_SIGNS = partial(sign_repeatably, TENANT), partial(sign_repeatably, PROVIDER)


@pytest.fixture(scope="module")
def commitment() -> Commitment:
    terms = Terms(
        bytes.fromhex(TERMS["tenant_key"]),
        bytes.fromhex(TERMS["provider_key"]),
        TERMS["expiry_height"],
        Sat(TERMS["capacity_sat"]),
        bytes.fromhex(TERMS["tenant_script"]),
    )
    return Commitment(terms, (SPEC["outpoint"]["txid"], SPEC["outpoint"]["vout"]), PAIR.curve)


def test_values() -> None:
    """What both sides must agree on, and what a state is called on the wire and in the journal."""
    assert {
        "reserve_sat": channel.RESERVE,
        "setup_max_sat": channel.SETUP_MAX,
        "capacity_min_sat": payments.CAPACITY_MIN,
        "supply_sat": payments.SUPPLY,
        "settle_before_expiry": channel.SETTLE_BEFORE_EXPIRY,
        "stop_before_expiry": channel.STOP_BEFORE_EXPIRY,
        "refill_before_expiry": refill.REFILL_BEFORE_EXPIRY,
        "buried": channel.BURIED,
        "bump_after": channel.BUMP_AFTER,
        "forget_unfunded": channel.FORGET_UNFUNDED,
        "height_max": payments.HEIGHT_MAX,
        "coinbase_maturity": payments.COINBASE_MATURITY,
        "version": payments.VERSION,
        "sequence": tx.SEQUENCE_RBF,
        "signature_bytes": payments.SIGNATURE_SIZE,
        "transaction_bytes_max": tx.SIZE_MAX,
        "leaf_version": script.LEAF_VERSION,
        "opcodes": {name: getattr(script, name).hex() for name in VALUES["opcodes"]},
        "hash_types": {name: getattr(sighash, name.upper()) for name in VALUES["hash_types"]},
        "vbytes": {
            "open": settlement.OPEN_VBYTES,
            "setup": settlement.SETUP_VBYTES,
            "close": settlement.CLOSE_VBYTES,
            "close_added": settlement.ADDED_VBYTES,
            "refund": settlement.REFUND_VBYTES,
            "together": together.CLOSE_VBYTES,
        },
        "batch_max": settlement.BATCH_MAX,
        "relay_feerate_sat_per_kvb": settlement.RELAY_FEERATE,
        "given_back_below_sat": together.HOPELESS,
        "credit_share": credit.SHARE,
        "block_min": refill.BLOCK / MINUTE,
        "handling_min": refill.HANDLING / MINUTE,
        "states": list(channel.ChannelState),
        "prefixes": PREFIXES,
    } == VALUES


def test_keys() -> None:
    assert (KEYS["tenant_secret"], KEYS["provider_secret"]) == (TENANT.hex(), PROVIDER.hex())
    assert KEYS["tenant_wif_regtest"] == wif(TENANT, "regtest")
    assert TERMS["tenant_key"] == PAIR.curve.pubkey(TENANT).hex()
    assert TERMS["provider_key"] == PAIR.curve.pubkey(PROVIDER).hex()
    for one in KEYS["derivation"]:
        seed, channel_id = bytes.fromhex(one["seed"]), bytes.fromhex(one["channel_id"])
        assert channel_secret(seed, one["role"], channel_id).hex() == one["secret"]


def test_funding(commitment: Commitment) -> None:
    funding = commitment.funding
    assert {
        "internal_key": funding.internal_key.hex(),
        "close_leaf": funding.close.script.hex(),
        "close_leaf_hash": funding.close.hash.hex(),
        "close_control": funding.close.control.hex(),
        "refund_leaf": funding.refund.script.hex(),
        "refund_leaf_hash": funding.refund.hash.hex(),
        "refund_control": funding.refund.control.hex(),
        "root": funding.root.hex(),
        "script": funding.script.hex(),
        "address_regtest": encode(funding.script, "regtest"),
        "address_main": encode(funding.script, "main"),
        "descriptor": descriptor(commitment.terms, funding),
        "descriptor_spending": descriptor(commitment.terms, funding, wif(TENANT, "regtest")),
    } == FUNDING


@pytest.mark.parametrize("payment", SPEC["payments"], ids=lambda payment: str(payment["paid_sat"]))
def test_payments(commitment: Commitment, payment: dict[str, str | int]) -> None:
    paid, signature = Sat(int(payment["paid_sat"])), bytes.fromhex(str(payment["signature"]))
    assert commitment.digest(paid).hex() == payment["digest"]
    assert commitment.pay(paid, TENANT_SIGNS) == signature
    commitment.check_payment(Sat(0), paid, signature)


def claim(commitment: Commitment, paid: int) -> Claim:
    return Claim(commitment, Sat(paid), commitment.pay(Sat(paid), TENANT_SIGNS), PROVIDER_SIGNS)


def numbers(made: Settlement) -> dict[str, str | int]:
    return {
        "fee_sat": made.fee,
        "received_sat": made.received,
        "vsize": made.tx.vsize,
        "txid": made.tx.txid,
        "raw": made.tx.encode().hex(),
    }


def test_close(commitment: Commitment) -> None:
    payout, feerate = bytes.fromhex(SETTLEMENT["payout_script"]), SETTLEMENT["feerate_sat_per_kvb"]
    assert numbers(closing([claim(commitment, 100_000)], payout, feerate)) == SETTLEMENT["close"]


def test_batch_close(commitment: Commitment) -> None:
    batch = dict(SETTLEMENT["batch_close"])
    other = batch.pop("second_channel")
    second = Pair(other["capacity_sat"], other["expiry_height"], outpoint=(other["txid"], other["vout"]))
    claims = [claim(commitment, 100_000), claim(second.commitment, other["paid_sat"])]
    payout, feerate = bytes.fromhex(SETTLEMENT["payout_script"]), SETTLEMENT["feerate_sat_per_kvb"]
    assert numbers(closing(claims, payout, feerate)) == batch


TOGETHER = SETTLEMENT["together"]


@pytest.mark.parametrize("close", TOGETHER["closes"], ids=lambda close: close["what"])
def test_close_by_both(commitment: Commitment, close: dict[str, str | int]) -> None:
    payout, feerate = bytes.fromhex(SETTLEMENT["payout_script"]), SETTLEMENT["feerate_sat_per_kvb"]
    agreed = agreement(commitment, Sat(int(close["paid_sat"])), payout, feerate)
    assert (agreed.fee, agreed.returned, agreed.received) == (
        close["fee_sat"],
        close["returned_sat"],
        close["received_sat"],
    )
    joint = agreed.joint
    assert (joint.digest.hex(), joint.tweak.hex()) == (close["digest"], TOGETHER["tweak"])
    tenant, provider = _nonces(joint)
    assert (tenant[1].hex(), provider[1].hex()) == (close["tenant_nonce"], close["provider_nonce"])
    session = musig2.SessionContext(
        musig2.nonce_agg_var([tenant[1], provider[1]]),
        musig2.key_sort(joint.keys),
        [joint.tweak],
        [True],
        joint.digest,
    )
    halves = [
        musig2.sign(secret, int.from_bytes(key, "big"), session)
        for secret, key in ((tenant[0], TENANT), (provider[0], PROVIDER))
    ]
    assert [half.hex() for half in halves] == [close["tenant_partial"], close["provider_partial"]]
    parts = (Part(joint.keys[0], tenant[1], halves[0]), Part(joint.keys[1], provider[1], halves[1]))
    signed = agreed.signed(PAIR.curve, *parts)
    assert (signed.vsize, signed.txid, signed.encode().hex()) == (close["vsize"], close["txid"], close["raw"])


def _nonces(joint: Joint) -> list[tuple[bytearray, bytes]]:
    """By the signer in pure Python: what we ship can not be told which randomness to take."""
    rands = (bytes([0x11]) * 32, bytes([0x22]) * 32)
    return [
        musig2.nonce_gen_(rand, int.from_bytes(secret, "big"), key, None, joint.digest)
        for rand, secret, key in zip(rands, (TENANT, PROVIDER), joint.keys, strict=True)
    ]


def test_refund(commitment: Commitment) -> None:
    expected = dict(SETTLEMENT["refund"])
    destination = bytes.fromhex(expected.pop("destination_script"))
    back = refund_to(commitment, destination, SETTLEMENT["feerate_sat_per_kvb"], TENANT_SIGNS)
    assert numbers(back) == expected
