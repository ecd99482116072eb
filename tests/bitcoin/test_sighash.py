"""Taproot digests: the vectors of BIP341, an independent library, and our two ways of making one."""

from __future__ import annotations

from typing import Any

import pytest
from btclib.script import sig_hash as oracle
from btclib.script.script_pub_key import ScriptPubKey
from btclib.tx.out_point import OutPoint
from btclib.tx.tx import Tx as OracleTx
from btclib.tx.tx_in import TxIn as OracleIn
from btclib.tx.tx_out import TxOut as OracleOut
from hypothesis import given, settings
from hypothesis import strategies as st

from bitcoin.parts import vectors
from dockage.protocol.bitcoin.sighash import PAYMENT, PaymentHash, taproot_digest
from dockage.protocol.bitcoin.tx import Tx, TxIn, TxOut, parse

SPENDING = vectors("bip341.json")["keyPathSpending"][0]
KINDS = (0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83)
taproot_scripts = st.binary(min_size=32, max_size=32).map(lambda key: b"\x51\x20" + key)
coins = st.builds(TxOut, st.integers(0, 4_000_000 * 10**8), taproot_scripts)
ins = st.builds(
    TxIn,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize("spend", SPENDING["inputSpending"], ids=lambda s: f"{s['given']['hashType']:#x}")
def test_bip341_key_path_digests(spend: Any) -> None:
    tx = parse(bytes.fromhex(SPENDING["given"]["rawUnsignedTx"]))
    spent = [
        TxOut(coin["amountSats"], bytes.fromhex(coin["scriptPubKey"]))
        for coin in SPENDING["given"]["utxosSpent"]
    ]
    given_ = spend["given"]
    digest = taproot_digest(tx, given_["txinIndex"], spent, given_["hashType"])
    assert digest.hex() == spend["intermediary"]["sigHash"]


@st.composite
def spends(draw: st.DrawFn) -> tuple[Tx, int, list[TxOut]]:
    count = draw(st.integers(1, 4))
    inputs = tuple(draw(st.lists(ins, min_size=count, max_size=count, unique_by=lambda i: i.outpoint)))
    spent = draw(st.lists(coins, min_size=count, max_size=count))
    outputs = tuple(draw(st.lists(coins, min_size=count, max_size=5)))
    tx = Tx(draw(st.sampled_from((1, 2, 3))), inputs, outputs, draw(st.integers(0, 2**32 - 1)))
    return tx, draw(st.integers(0, count - 1)), spent


def _oracle_tx(tx: Tx) -> OracleTx:
    return OracleTx(
        tx.version,
        tx.locktime,
        [OracleIn(OutPoint(bytes.fromhex(i.txid), i.vout), b"", i.sequence) for i in tx.inputs],
        [OracleOut(o.value, ScriptPubKey(o.script)) for o in tx.outputs],
    )


@settings(max_examples=60, deadline=None)
@given(spends(), st.sampled_from(KINDS), st.one_of(st.just(b""), st.binary(min_size=32, max_size=32)))
def test_an_independent_library_makes_the_same_digests(
    spend: tuple[Tx, int, list[TxOut]], kind: int, leaf: bytes
) -> None:
    tx, index, spent = spend
    before = [OracleOut(coin.value, ScriptPubKey(coin.script)) for coin in spent]
    extension = leaf + b"\0\xff\xff\xff\xff" if leaf else b""
    expected = oracle.taproot(_oracle_tx(tx), index, before, kind, 1 if leaf else 0, b"", extension)
    assert taproot_digest(tx, index, spent, kind, leaf) == expected


@given(ins, coins, st.binary(min_size=32, max_size=32), coins)
def test_the_fast_payment_digest_is_the_generic_one(
    one: TxIn, coin: TxOut, leaf: bytes, change: TxOut
) -> None:
    fast = PaymentHash(3, one, coin, leaf, change.script)
    tx = Tx(3, (one,), (change,))
    assert fast.digest(change.value) == taproot_digest(tx, 0, [coin], PAYMENT, leaf)


@pytest.mark.parametrize("kind", [0x04, 0x80, 0x84, 0xFF])
def test_an_unknown_kind_has_no_digest(kind: int) -> None:
    tx = Tx(3, (TxIn("00" * 32, 0),), (TxOut(1, b"\x51"),))
    with pytest.raises(ValueError, match="BIP341"):
        taproot_digest(tx, 0, [TxOut(1, b"\x51")], kind)


def test_single_without_its_output_has_no_digest() -> None:
    tx = Tx(3, (TxIn("00" * 32, 0), TxIn("00" * 32, 1)), (TxOut(1, b"\x51"),))
    with pytest.raises(ValueError, match="BIP341"):
        taproot_digest(tx, 1, [TxOut(1, b"\x51")] * 2, PAYMENT)
