"""A light client in memory: the same chain as ``FakeChain``, seen through one wallet only.

It passes the contract of the real one (``adapters/bdk``), so that stories about what a light client cannot see run
in virtual time. Its rule: nothing but blocks and its own broadcasts may tell it anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dockage.domain.errors import PeerError, UsageError
from dockage.ports.chain import ChainTx, Coin, Outpoint
from dockage.protocol.bitcoin.tx import Tx, parse
from dockage.wire.chainview import Known, View, refuse_hopeless

from .chain import NETWORK, FakeChain, FakeWallet


class FakeLightChain:
    """Implements ``ports.chain.Chain`` for the owner of *wallet*."""

    sees_mempool = False

    def __init__(self, chain: FakeChain, wallet: FakeWallet) -> None:
        self._chain, self._wallet = chain, wallet
        self._sent: dict[str, Tx] = {}
        wallet.broadcast = self.broadcast

    def __repr__(self) -> str:
        return f"<FakeLightChain of {self._wallet!r}>"

    def view(self) -> View:
        known = dict(self._in_blocks())
        spent = {one.outpoint for found in known.values() for one in found.tx.inputs}
        for txid, tx in self._sent.items():
            if txid not in known and not spent & {one.outpoint for one in tx.inputs}:
                known[txid] = Known(tx, tx.encode(), None)
        return View(len(self._chain.blocks) - 1, known.items())

    def _in_blocks(self) -> Iterator[tuple[str, Known]]:
        """What pays the wallet or spends its coins."""
        ours: set[bytes] = set()
        for height, block in enumerate(self._chain.blocks):
            for tx in block:
                paid = {n for n, out in enumerate(tx.outputs) if self._wallet.owns(out.script)}
                if paid or ours & {one.outpoint for one in tx.inputs}:
                    txid = tx.txid
                    ours |= {bytes.fromhex(txid)[::-1] + n.to_bytes(4, "little") for n in paid}
                    yield txid, Known(tx, tx.encode(), height)

    # -- ports.chain.Chain -----------------------------------------------------------------------------------
    async def network(self) -> str:
        return NETWORK

    async def height(self) -> int:
        return self.view().tip

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        return self.view().coin(Outpoint(*outpoint))

    async def depth(self, txid: str) -> int | None:
        return self.view().depth(txid)

    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        return self.view().spender(outpoint)

    async def broadcast(self, raw: bytes) -> str:
        try:
            tx = parse(raw)
        except PeerError as error:
            raise UsageError("chain.refused", error.message) from error
        view = self.view()
        if view.depth(tx.txid) is None:
            refuse_hopeless(view, tx)
            for rival in view.conflicts(tx):
                self._sent.pop(rival, None)
            self._sent[tx.txid] = tx
        with contextlib.suppress(UsageError):  # peers do not say why they refuse
            await self._chain.broadcast(raw)
        return tx.txid

    async def feerate(self, target_blocks: int) -> int:
        return await self._chain.feerate(target_blocks)


class FakeLightWallet(FakeWallet):
    """Of what waits it sees only its own."""

    def _coins(self) -> list[tuple[Outpoint, int, bool]]:
        return [coin for coin in super()._coins() if coin[2]]


class FakeLightWorld:
    """Implements ``ChainWorld``; its ``chain`` is that of the first wallet."""

    def __init__(self) -> None:
        self.fake = FakeChain()
        self._wallets = [FakeLightWallet(self.fake, "wallet 0")]
        self.chain = FakeLightChain(self.fake, self._wallets[0])
        self._given = 0

    async def wallet(self, *coins: int) -> FakeWallet:
        if self._given == len(self._wallets):
            self._wallets.append(FakeLightWallet(self.fake, f"wallet {self._given}"))
        wallet = self._wallets[self._given]
        self._given += 1
        for value in coins:
            wallet.earn(value)
        return wallet

    async def mine(self, blocks: int) -> None:
        self.fake.mine(blocks)

    async def reorganise(self, depth: int) -> None:
        self.fake.reorganise(depth)


__all__ = ["FakeLightChain", "FakeLightWallet", "FakeLightWorld"]
