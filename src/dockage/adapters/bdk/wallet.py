"""``ports.Wallet`` over BDK: which coins to spend and what change to make is the library's choice.

An address is on disk before it is handed out, so no restart hands it out again. Coins of a funding that is signed
and not yet sent are kept apart in memory, as bitcoind does.
"""

from __future__ import annotations

from collections.abc import Sequence

import bdkpython as bdk

from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import Balance, Chain, ChainTx, Outpoint
from dockage.protocol.bitcoin import address as addresses
from dockage.protocol.bitcoin.tx import parse

from .node import LightNode

VERSION = 2
"""Of a funding; see adapters/bitcoind/wallet.py."""
RECEIVING, CHANGE = bdk.KeychainKind.EXTERNAL, bdk.KeychainKind.INTERNAL


class LightWallet:
    """Implements ``ports.Wallet``."""

    def __init__(self, node: LightNode, chain: Chain) -> None:
        self._node, self._chain = node, chain
        self._locked: set[Outpoint] = set()

    def __repr__(self) -> str:
        return f"<LightWallet {self._node.seed.fingerprint}>"

    async def receive(self) -> str:
        return str(self._reveal().address)

    async def script(self) -> bytes:
        return _script(self._reveal())

    async def unused(self) -> bytes:
        info = self._node.wallet.next_unused_address(RECEIVING)
        self._node.save()
        return _script(info)

    def _reveal(self) -> bdk.AddressInfo:
        info = self._node.wallet.reveal_next_address(RECEIVING)
        self._node.save()
        return info

    async def balance(self) -> Balance:
        found = self._node.wallet.balance()
        ours = found.confirmed.to_sat() + found.trusted_pending.to_sat()
        return Balance(Sat(ours), Sat(found.untrusted_pending.to_sat() + found.immature.to_sat()))

    async def fund(self, outputs: Sequence[tuple[bytes, Sat]], feerate: int) -> ChainTx:
        builder = bdk.TxBuilder().version(VERSION).fee_rate(bdk.FeeRate.from_sat_per_kwu(-(-feerate // 4)))
        builder = builder.unspendable([_bdk(x) for x in self._kept_apart()])
        for script, value in outputs:
            builder = builder.add_recipient(bdk.Script(script), bdk.Amount.from_sat(value))
        try:
            psbt = builder.finish(self._node.wallet)
        except (bdk.CreateTxError.CoinSelection, bdk.CreateTxError.InsufficientFunds) as error:
            raise self._insufficient(outputs) from error
        except bdk.CreateTxError as error:
            raise UsageError("wallet.refused", f"the light wallet cannot do that: {error}") from error
        if not self._node.wallet.sign(psbt):
            raise UsageError("wallet.unsigned", "the light wallet does not hold all its own keys")
        self._node.save()  # the change address is taken
        raw = bytes(psbt.extract_tx().serialize())
        tx = parse(raw)
        self._locked |= {Outpoint(one.txid, one.vout) for one in tx.inputs}
        return ChainTx(tx.txid, raw, Sat(psbt.fee()))

    async def forget(self, tx: ChainTx) -> None:
        parsed = parse(tx.raw)
        self._locked -= {Outpoint(one.txid, one.vout) for one in parsed.inputs}
        for out in parsed.outputs:  # its change address is free for the next one
            place = self._node.wallet.derivation_of_spk(bdk.Script(out.script))
            if place is not None and place.keychain == CHANGE:
                self._node.wallet.unmark_used(CHANGE, place.index)

    async def send(self, address: str, amount: Sat, feerate: int) -> ChainTx:
        script = addresses.decode(address, self._node.network)
        tx = await self.fund([(script, amount)], feerate)
        try:
            await self._chain.broadcast(tx.raw)
        except Exception:
            await self.forget(tx)
            raise
        return tx

    def _kept_apart(self) -> set[Outpoint]:
        """Locked ones, and what waits and is not change of ours: a close of ours may still be replaced."""
        unspent = self._node.wallet.list_unspent()
        waiting = {
            Outpoint(str(x.outpoint.txid), x.outpoint.vout)
            for x in unspent
            if x.keychain == RECEIVING and not x.chain_position.is_confirmed()
        }
        return self._locked | waiting

    def _insufficient(self, outputs: Sequence[tuple[bytes, Sat]]) -> UsageError:
        wanted, apart = sum(value for _, value in outputs), self._kept_apart()
        free = sum(
            x.txout.value.to_sat()
            for x in self._node.wallet.list_unspent()
            if Outpoint(str(x.outpoint.txid), x.outpoint.vout) not in apart
        )
        return UsageError(
            "wallet.insufficient",
            f"{wanted} sat and the fee are wanted; the light wallet has {free} sat free to spend: "
            f"{max(0, wanted - free)} sat and the fee are missing",
        )


def _script(info: bdk.AddressInfo) -> bytes:
    return bytes(info.address.script_pubkey().to_bytes())


def _bdk(outpoint: Outpoint) -> bdk.OutPoint:
    return bdk.OutPoint(txid=bdk.Txid.from_string(outpoint.txid), vout=outpoint.vout)
