"""A bitcoin chain to the satoshi: coins, a mempool, blocks, reorganisations; scripts are names.

Counterpart: ``adapters/bitcoind`` and ``daemon/chainwatch.py``. The one rule: the unspent outputs are always what
replaying all blocks gives, and everything that is not in an output has been paid as a fee.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from dockage.domain.units import Sat

Coin = tuple[str, int]
"""Transaction id and output number."""


class Output(NamedTuple):
    owner: bytes
    """A node's key, or a channel's id."""
    value: Sat


class Tx(NamedTuple):
    txid: str
    inputs: tuple[Coin, ...]
    outputs: tuple[Output, ...]
    fee: Sat
    locktime: int = 0

    @property
    def raw(self) -> bytes:
        return self.txid.encode()


def make(inputs: tuple[Coin, ...], outputs: tuple[Output, ...], fee: Sat, locktime: int = 0) -> Tx:
    txid = sha256(repr((inputs, outputs, fee, locktime)).encode()).hexdigest()
    return Tx(txid, inputs, outputs, fee, locktime)


class Chain:
    def __init__(self, height: int) -> None:
        self.base = height
        self.blocks: list[list[Tx]] = []
        self.mempool: dict[str, Tx] = {}
        self.minted = self.fees = 0
        self.refused = 0
        self._built: dict[bytes, Tx] = {}
        self._unspent: dict[Coin, Output] = {}
        self._owned: dict[bytes, dict[Coin, Sat]] = {}
        self._where: dict[str, int] = {}
        """Transaction to height."""
        self._spent_by: dict[Coin, str] = {}
        """Also by the mempool."""
        self._all: dict[Coin, Output] = {}
        """Every output that ever was in a block."""

    @property
    def height(self) -> int:
        return self.base + len(self.blocks)

    # -- what a node may ask ---------------------------------------------------------------------------
    def coin(self, coin: Coin) -> Output | None:
        """None if spent, also by the mempool; the mempool's own outputs are there."""
        if coin in self._spent_by:
            return None
        if coin in self._unspent:
            return self._unspent[coin]
        waiting = self.mempool.get(coin[0])
        return waiting.outputs[coin[1]] if waiting and coin[1] < len(waiting.outputs) else None

    def depth(self, txid: str) -> int | None:
        if txid in self._where:
            return self.height - self._where[txid] + 1
        return 0 if txid in self.mempool else None

    def spender(self, coin: Coin) -> str | None:
        """The confirmed transaction that spent *coin*."""
        spender = self._spent_by.get(coin)
        return spender if spender in self._where else None

    def coins_of(self, owner: bytes) -> dict[Coin, Sat]:
        """Confirmed and not spent, not even in the mempool."""
        return {c: v for c, v in self._owned.get(owner, {}).items() if c not in self._spent_by}

    def balance(self, owner: bytes) -> Sat:
        return Sat(sum(self._owned.get(owner, {}).values()))

    # -- making and sending ----------------------------------------------------------------------------
    def build(self, tx: Tx) -> Tx:
        self._built[tx.raw] = tx
        return tx

    def broadcast(self, raw: bytes) -> None:
        """Idempotent. A conflict with the mempool is won by the higher fee (RBF)."""
        tx = self._built[raw]
        if tx.txid in self.mempool or tx.txid in self._where:
            return
        rivals = {self._spent_by[c] for c in tx.inputs if c in self._spent_by}
        beaten = [self.mempool[r] for r in sorted(rivals) if r in self.mempool]
        if not self._is_valid(tx) or len(beaten) < len(rivals) or any(b.fee >= tx.fee for b in beaten):
            self.refused += 1
            return
        for loser in beaten:
            self._drop(loser)
        self.mempool[tx.txid] = tx
        self._spent_by.update(dict.fromkeys(tx.inputs, tx.txid))

    def _is_valid(self, tx: Tx) -> bool:
        values = [self._value(c) for c in tx.inputs]
        if any(v is None for v in values) or tx.locktime > self.height:
            return False
        if tx.fee < 0 or min(out.value for out in tx.outputs) < 330:
            return False
        return sum(v or 0 for v in values) == sum(out.value for out in tx.outputs) + tx.fee

    def _value(self, coin: Coin) -> Sat | None:
        if coin in self._unspent:
            return self._unspent[coin].value
        parent = self.mempool.get(coin[0])
        return parent.outputs[coin[1]].value if parent and coin[1] < len(parent.outputs) else None

    def _drop(self, tx: Tx) -> None:
        """Out of the mempool, with everything that spends it."""
        del self.mempool[tx.txid]
        for coin in tx.inputs:
            self._spent_by.pop(coin, None)
        children = [t for t in self.mempool.values() if any(c[0] == tx.txid for c in t.inputs)]
        for child in children:
            if child.txid in self.mempool:
                self._drop(child)

    # -- blocks ----------------------------------------------------------------------------------------
    def mint(self, owner: bytes, value: Sat, count: int = 1) -> None:
        """Coins out of nothing, in a block of their own at the beginning of time."""
        txs = [make(((f"{owner.hex()}/{n}", 0),), (Output(owner, value),), Sat(0)) for n in range(count)]
        for tx in txs:
            self._unspent[(tx.txid, 0)] = self._all[(tx.txid, 0)] = tx.outputs[0]
            self._owned.setdefault(owner, {})[(tx.txid, 0)] = value
        self.minted += value * count

    def mine(self) -> None:
        """One block with the whole mempool, parents first (that is the order of arrival)."""
        block = list(self.mempool.values())
        self.blocks.append(block)
        self.mempool.clear()
        for tx in block:
            self._apply(tx)

    def _apply(self, tx: Tx) -> None:
        txid = tx.txid
        for coin in tx.inputs:
            gone = self._unspent.pop(coin)
            del self._owned[gone.owner][coin]
        for number, output in enumerate(tx.outputs):
            self._unspent[(txid, number)] = self._all[(txid, number)] = output
            self._owned.setdefault(output.owner, {})[(txid, number)] = output.value
        self._where[txid] = self.height
        self.fees += tx.fee

    def reorganise(self, depth: int, *, losing: str = "") -> None:
        """The last *depth* blocks never were: their transactions wait again, but for *losing* and its children
        (double-spent elsewhere: its inputs are simply free again)."""
        undone = [self.blocks.pop() for _ in range(min(depth, len(self.blocks)))]
        back = [tx for block in reversed(undone) for tx in block]
        for tx in reversed(back):
            self._unapply(tx)
        later = list(self.mempool.values())
        self.mempool.clear()
        for tx in (*back, *later):
            if tx.txid != losing and self._is_valid(tx):
                self.mempool[tx.txid] = tx
            else:
                for coin in tx.inputs:
                    self._spent_by.pop(coin, None)

    def _unapply(self, tx: Tx) -> None:
        txid = tx.txid
        for number, output in enumerate(tx.outputs):
            del self._unspent[(txid, number)]
            del self._owned[output.owner][(txid, number)]
        for coin in tx.inputs:
            output = self._all[coin]
            self._unspent[coin] = output
            self._owned.setdefault(output.owner, {})[coin] = output.value
        del self._where[txid]
        self.fees -= tx.fee

    @property
    def total(self) -> int:
        return sum(output.value for output in self._unspent.values())
