"""What a taproot signature signs (BIP341, BIP342): the generic digest, and the fast one of a payment.

The generic function is the clear one and is used for everything rare. ``PaymentHash`` must always agree with it
(a property test says so): it only remembers the part of the message that never changes in a channel's life.
"""

from __future__ import annotations

from collections.abc import Sequence

from .hashes import sha, tagged
from .tx import Tx, TxIn, TxOut, outpoint_bytes, sized

DEFAULT = 0x00
"""Everything: all inputs, all outputs."""
ALL = 0x01
NONE = 0x02
SINGLE = 0x03
ANYONECANPAY = 0x80
PAYMENT = SINGLE | ANYONECANPAY
"""What a tenant signs: this one input and the one output beside it; the provider adds the rest."""

_KINDS = frozenset({DEFAULT, ALL, NONE, SINGLE, ALL | ANYONECANPAY, NONE | ANYONECANPAY, PAYMENT})
_LEAF_TAIL = b"\0\xff\xff\xff\xff"
"""key_version 0 and "no OP_CODESEPARATOR" (BIP342)."""


def taproot_digest(tx: Tx, index: int, spent: Sequence[TxOut], kind: int, leaf: bytes = b"") -> bytes:
    """The digest for input *index*; *spent*: the outputs that the inputs spend, in order; *leaf*: the tapleaf
    hash for a script-path spend. No annex. Raises ValueError for a kind BIP341 does not know, and for SINGLE
    without a matching output."""
    if kind not in _KINDS or (kind & 3 == SINGLE and index >= len(tx.outputs)):
        raise ValueError(f"no BIP341 digest of kind {kind:#x} for input {index}")
    state = tagged("TapSighash")
    state.update(bytes([0, kind]) + tx.version.to_bytes(4, "little") + tx.locktime.to_bytes(4, "little"))
    if not kind & ANYONECANPAY:
        state.update(_all_inputs(tx.inputs, spent))
    if kind & 3 in (DEFAULT, ALL):
        state.update(sha(b"".join(out.encode() for out in tx.outputs)))
    state.update(b"\2" if leaf else b"\0")
    one, coin = tx.inputs[index], spent[index]
    state.update(_this_input(one, coin) if kind & ANYONECANPAY else index.to_bytes(4, "little"))
    if kind & 3 == SINGLE:
        state.update(sha(tx.outputs[index].encode()))
    if leaf:
        state.update(leaf + _LEAF_TAIL)
    return state.digest()


def _all_inputs(inputs: Sequence[TxIn], spent: Sequence[TxOut]) -> bytes:
    parts = (
        b"".join(i.outpoint for i in inputs),
        b"".join(coin.value.to_bytes(8, "little") for coin in spent),
        b"".join(sized(coin.script) for coin in spent),
        b"".join(i.sequence.to_bytes(4, "little") for i in inputs),
    )
    return b"".join(map(sha, parts))


def _this_input(one: TxIn, coin: TxOut) -> bytes:
    outpoint = outpoint_bytes((one.txid, one.vout))
    return outpoint + coin.encode() + one.sequence.to_bytes(4, "little")


class PaymentHash:
    """The digest of kind PAYMENT for one input and leaf: 1.3 us instead of 7, since only output 0's amount
    varies."""

    def __init__(self, version: int, one: TxIn, coin: TxOut, leaf: bytes, script: bytes) -> None:
        """*coin*: what *one* spends; *script*: the scriptPubKey of output 0."""
        state = tagged("TapSighash")
        state.update(bytes([0, PAYMENT]) + version.to_bytes(4, "little") + bytes(4) + b"\2")
        state.update(_this_input(one, coin))
        self._start = state
        self._script = sized(script)
        self._end = leaf + _LEAF_TAIL

    def digest(self, value: int) -> bytes:
        """For output 0 paying *value* sat."""
        state = self._start.copy()
        state.update(sha(value.to_bytes(8, "little") + self._script) + self._end)
        return state.digest()
