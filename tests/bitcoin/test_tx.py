"""Serialisation, and the parser on bytes nobody promised anything about."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitcoin.parts import vectors
from dockage.domain.errors import PeerError
from dockage.protocol.bitcoin.tx import SEQUENCE_RBF, Tx, TxIn, TxOut, compact, fee_for, parse

txids = st.binary(min_size=32, max_size=32).map(bytes.hex)
inputs = st.builds(TxIn, txids, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=300))
outputs = st.builds(TxOut, st.integers(0, 2**63 - 1), st.binary(max_size=300))
stacks = st.lists(st.binary(max_size=300), max_size=3).map(tuple)


@st.composite
def txs(draw: st.DrawFn) -> Tx:
    ins = tuple(draw(st.lists(inputs, min_size=1, max_size=4)))
    witnesses = tuple(draw(st.lists(stacks, min_size=len(ins), max_size=len(ins))))
    outs = tuple(draw(st.lists(outputs, min_size=1, max_size=4)))
    number = st.integers(0, 2**32 - 1)
    return Tx(draw(number), ins, outs, draw(number), witnesses if any(witnesses) else ())


@given(txs())
def test_what_is_encoded_is_read_back(tx: Tx) -> None:
    assert parse(tx.encode()) == tx


@given(txs(), st.data())
def test_a_cut_or_lengthened_transaction_is_refused(tx: Tx, data: st.DataObject) -> None:
    raw = tx.encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    for wrong in (raw[:cut], raw + b"\0"):
        with pytest.raises(PeerError) as caught:
            parse(wrong)
        assert caught.value.code == "tx.malformed"


@given(st.binary(max_size=400))
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(PeerError):
        tx = parse(noise)
        assert parse(tx.encode()) == tx


def test_a_huge_announced_count_costs_nothing() -> None:
    for rest in (b"", b"\0", bytes(41)):
        with pytest.raises(PeerError, match="ends too early"):
            parse(b"\3\0\0\0" + b"\xff" * 9 + rest)


def test_an_oversized_transaction_is_refused_unread() -> None:
    def long(size: int) -> bytes:
        frame = len(Tx(3, (), (TxOut(1, bytes(size)),)).encode()) - size
        return Tx(3, (TxIn("ab" * 32, 0),), (TxOut(1, bytes(size - frame - 41)),)).encode()

    assert len(long(400_000)) == 400_000
    assert parse(long(400_000)).encode() == long(400_000)
    with pytest.raises(PeerError, match="the limit"):
        parse(long(400_001))


@pytest.mark.parametrize("size", [0, 1, 252, 253, 254, 255, 0xFFFF, 0x10000])
def test_a_size_at_each_edge_is_read_back(size: int) -> None:
    tx = Tx(3, (TxIn("ab" * 32, 0),), (TxOut(1, bytes(size)),))
    assert parse(tx.encode()) == tx


def test_the_unsigned_transaction_of_bip341_survives_the_round_trip() -> None:
    raw = bytes.fromhex(vectors("bip341.json")["keyPathSpending"][0]["given"]["rawUnsignedTx"])
    assert parse(raw).encode() == raw


@pytest.mark.parametrize(
    ("n", "encoded"),
    [(0, "00"), (0xFC, "fc"), (0xFD, "fdfd00"), (0xFFFF, "fdffff"), (0x10000, "fe00000100")],
)
def test_compact_sizes_at_their_edges(n: int, encoded: str) -> None:
    assert compact(n).hex() == encoded


def test_a_fee_is_rounded_up() -> None:
    assert [fee_for(205, rate) for rate in (1000, 1001, 1)] == [205, 206, 1]


def test_an_output_is_found_by_script_and_value() -> None:
    tx = Tx(3, (TxIn("00" * 32, 0),), (TxOut(5, b"a"), TxOut(6, b"a"), TxOut(6, b"b")))
    assert (tx.find(b"b", 6), tx.find(b"a", 6), tx.find(b"b", 5)) == (2, 1, None)
    assert tx.inputs[0].sequence == SEQUENCE_RBF
