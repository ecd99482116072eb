"""What a wallet's transactions say about outputs, depths and spenders: the light client's whole view of the chain.

Counterparts: ``adapters/bdk`` and its fake, ``testing/light.py``. It holds the transactions that pay us or spend our
coins, each of them whole; so a channel whose funding also pays us (the setup output) can be verified here.
Everything else is invisible, and is answered with None.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import ChainTx, Coin, Outpoint
from dockage.protocol.bitcoin.settlement import RELAY_FEERATE
from dockage.protocol.bitcoin.tx import Tx, fee_for

LOCKTIME_IS_TIME = 500_000_000
NOWHERE = "00" * 32
"""What a coinbase spends."""


class Known(NamedTuple):
    tx: Tx
    raw: bytes
    height: int | None
    """Of its block; None while it waits."""


class View:
    """Immutable. *known*: every transaction that is in the best chain or still may get there."""

    def __init__(self, tip: int, known: Iterable[tuple[str, Known]]) -> None:
        self.tip = tip
        self.txs = dict(known)
        self._spenders = {
            Outpoint(one.txid, one.vout): txid for txid, item in self.txs.items() for one in item.tx.inputs
        }

    def depth(self, txid: str) -> int | None:
        found = self.txs.get(txid)
        return None if found is None else self._confirmations(found)

    def coin(self, outpoint: Outpoint) -> Coin | None:
        found = self.txs.get(outpoint.txid)
        if found is None or self.spender_id(outpoint) or outpoint.vout >= len(found.tx.outputs):
            return None
        out = found.tx.outputs[outpoint.vout]
        coinbase = found.tx.inputs[0].txid == NOWHERE
        return Coin(Sat(out.value), out.script, self._confirmations(found), coinbase)

    def spender(self, outpoint: Outpoint) -> ChainTx | None:
        """Only one that is in a block."""
        txid = self.spender_id(outpoint)
        found = self.txs.get(txid)
        if found is None or found.height is None:
            return None
        return ChainTx(txid, found.raw, Sat(self.fee(found.tx) or 0))

    def spender_id(self, outpoint: Outpoint) -> str:
        """Also of one that waits; "" if the output is unspent as far as we see."""
        return self._spenders.get(Outpoint(*outpoint), "")

    def conflicts(self, tx: Tx) -> set[str]:
        """Other transactions that spend what *tx* spends."""
        rivals = {self.spender_id(Outpoint(one.txid, one.vout)) for one in tx.inputs}
        return rivals - {"", tx.txid}

    def fee(self, tx: Tx) -> int | None:
        """None if we do not know all that it spends."""
        total = 0
        for one in tx.inputs:
            source = self.txs.get(one.txid)
            if source is None or one.vout >= len(source.tx.outputs):
                return None
            total += source.tx.outputs[one.vout].value
        return total - sum(out.value for out in tx.outputs)

    def _confirmations(self, known: Known) -> int:
        return 0 if known.height is None else self.tip - known.height + 1


def refuse_hopeless(view: View, tx: Tx) -> None:
    """What no node would take, as far as we can know: our peers never say why they drop something. Raises
    UsageError("chain.refused")."""
    fee = view.fee(tx)
    if 0 < tx.locktime < LOCKTIME_IS_TIME and tx.locktime > view.tip:
        raise _refused(tx, f"it is not final before block {tx.locktime}")
    if fee is not None and fee < fee_for(tx.vsize, RELAY_FEERATE):
        raise _refused(tx, "its fee is below the relay minimum")
    for rival in view.conflicts(tx):
        if view.depth(rival):
            raise _refused(tx, f"{rival[:16]} has spent the same coin and is in a block")
        before = view.fee(view.txs[rival].tx)
        if fee is None or before is None or fee < before + fee_for(tx.vsize, RELAY_FEERATE):
            raise _refused(tx, f"its fee does not replace that of {rival[:16]}")


def _refused(tx: Tx, why: str) -> UsageError:
    return UsageError("chain.refused", f"transaction {tx.txid[:16]} cannot be sent: {why}")
