"""``ports.chain.Chain`` over bitcoind, pruned or not, with no index needed.

A node without an index forgets which block holds a transaction, so ``depth`` asks those who may still know, the
cheapest first, and ``spender`` looks through blocks: the newest first, as bytes, and never twice.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, NamedTuple

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.ports.chain import ChainTx, Coin, Outpoint
from dockage.protocol.bitcoin.tx import outpoint_bytes, parse

from .rpc import COIN, Rpc, RpcError, sat

FEERATE_MIN = 1000
"""sat per 1000 vB: the relay minimum of most nodes, whatever ours allows."""
FEERATE_MAX = 500_000
FEERATE_UNKNOWN = 10_000
"""While the node has too little data for an estimate, outside regtest."""
KNOWN_MAX = 4096
"""Transactions and scans remembered."""
OUTPUTS_TRIED = 8
NETWORKS = ("regtest", "signet", "testnet4", "test", "main")

ALREADY_IN_UTXO_SET = -27
MISC = -1


class _Scan(NamedTuple):
    """Blocks ``from_height`` to ``height`` (whose hash is ``tip``) do not spend the output."""

    from_height: int
    height: int
    tip: str


class BitcoindChain:
    """Implements ``ports.chain.Chain``."""

    sees_mempool = True

    def __init__(self, rpc: Rpc, wallet: str | None = None, feerate_max: int = FEERATE_MAX) -> None:
        """*wallet*: the loaded wallet that is asked about transactions of ours; *feerate_max*: sat per 1000 vB
        that ``feerate`` never passes, whatever the estimate."""
        self._rpc = rpc
        self._wallet = wallet
        self._feerate_max = max(FEERATE_MIN, feerate_max)
        self._blocks: OrderedDict[str, str] = OrderedDict()  # txid -> hash of the block it was seen in
        self._scans: OrderedDict[Outpoint, _Scan] = OrderedDict()

    def __repr__(self) -> str:
        return f"<BitcoindChain {self._rpc.address.url}>"

    async def network(self) -> str:
        """Raises UsageError("chain.network") for a network that we do not know."""
        name = str((await self._rpc.call("getblockchaininfo"))["chain"])
        if name not in NETWORKS:
            raise UsageError("chain.network", f"bitcoind runs on {name}; start it on {', '.join(NETWORKS)}")
        return name

    async def height(self) -> int:
        return int(await self._rpc.call("getblockcount"))

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        out = await self._rpc.call("gettxout", outpoint.txid, outpoint.vout, True)
        if out is None:
            return None
        script = bytes.fromhex(out["scriptPubKey"]["hex"])
        return Coin(sat(out["value"]), script, out["confirmations"], out["coinbase"])

    # -- where is a transaction ------------------------------------------------------------------------
    async def depth(self, txid: str) -> int | None:
        """Without an index and a wallet that knows it, a transaction all of whose first outputs are spent is
        found only if ``spender`` saw it."""
        for ask in (
            self._depth_by_block,
            self._depth_in_mempool,
            self._depth_by_wallet,
            self._depth_by_index,
        ):
            if (depth := await ask(txid)) is not None:
                return depth
        return await self._depth_by_outputs(txid)

    async def _depth_by_block(self, txid: str) -> int | None:
        block = self._blocks.get(txid)
        if block is None:
            return None
        depth = await self._block_depth(block)
        if depth is None:
            self._blocks.pop(txid, None)  # the block was reorganised away
        return depth

    async def _block_depth(self, block: str) -> int | None:
        """Confirmations of a block, None if it is not in the best chain."""
        try:
            confirmations = int((await self._rpc.call("getblockheader", block))["confirmations"])
        except RpcError:
            return None
        return confirmations if confirmations > 0 else None

    async def _depth_in_mempool(self, txid: str) -> int | None:
        try:
            await self._rpc.call("getmempoolentry", txid)
        except RpcError:
            return None
        return 0

    async def _depth_by_wallet(self, txid: str) -> int | None:
        if self._wallet is None:
            return None
        try:
            found = await self._rpc.call("gettransaction", txid, wallet=self._wallet)
        except RpcError:
            return None
        # 0: known to the wallet, but neither confirmed nor (asked before) in the mempool. Negative: replaced.
        return self._seen_in(txid, found) if found["confirmations"] > 0 else None

    async def _depth_by_index(self, txid: str) -> int | None:
        try:
            found = await self._rpc.call("getrawtransaction", txid, True)
        except RpcError:
            return None
        return self._seen_in(txid, found) if found.get("confirmations", 0) > 0 else None

    def _seen_in(self, txid: str, found: dict[str, Any]) -> int:
        self._remember(txid, found["blockhash"])
        return int(found["confirmations"])

    async def _depth_by_outputs(self, txid: str) -> int | None:
        for vout in range(OUTPUTS_TRIED):
            if (out := await self._rpc.call("gettxout", txid, vout, False)) is not None:
                return int(out["confirmations"])
        return None

    def _remember(self, txid: str, block: str) -> None:
        self._blocks[txid] = block
        self._blocks.move_to_end(txid)
        if len(self._blocks) > KNOWN_MAX:
            self._blocks.popitem(last=False)

    # -- who spent an output ---------------------------------------------------------------------------
    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        """Raises Unavailable("chain.pruned") if the node no longer has a block that must be looked into."""
        outpoint = Outpoint(*outpoint)
        if await self._rpc.call("gettxout", outpoint.txid, outpoint.vout, False) is not None:
            return None  # unspent in the chain: nothing to look for, which is nearly always the answer
        tip = await self._rpc.call("getbestblockhash")
        top = int((await self._rpc.call("getblockheader", tip))["height"])
        bottom = await self._unscanned(outpoint, from_height)
        block = tip
        for height in range(top, bottom - 1, -1):
            if (found := await self._search(block, outpoint)) is not None:
                return found
            if height > bottom:
                block = (await self._rpc.call("getblockheader", block))["previousblockhash"]
        self._scans[outpoint] = _Scan(from_height, top, tip)
        if len(self._scans) > KNOWN_MAX:
            self._scans.popitem(last=False)
        return None

    async def _unscanned(self, outpoint: Outpoint, from_height: int) -> int:
        """The lowest height not yet known to be free of the spend."""
        scan = self._scans.pop(outpoint, None)
        if scan is None or scan.from_height > from_height or await self._block_depth(scan.tip) is None:
            return max(0, from_height)
        return scan.height + 1

    async def _search(self, block: str, outpoint: Outpoint) -> ChainTx | None:
        """Looks for the outpoint's 36 bytes in the raw block; only a hit is decoded."""
        try:
            raw = await self._rpc.call("getblock", block, 0)
            if outpoint_bytes(outpoint).hex() not in raw:
                return None
            decoded = await self._rpc.call("getblock", block, 2)
        except RpcError as error:
            if error.code != MISC:
                raise _unexpected(error) from error
            raise Unavailable(
                "chain.pruned",
                f"bitcoind has pruned block {block}: raise prune= in bitcoin.conf and reindex, or "
                "use another node for a while",
            ) from error
        for tx in decoded["tx"]:
            if any(one.get("txid") == outpoint.txid and one["vout"] == outpoint.vout for one in tx["vin"]):
                self._remember(tx["txid"], block)
                return ChainTx(tx["txid"], bytes.fromhex(tx["hex"]), sat(tx.get("fee", 0)))
        return None

    # -- sending ---------------------------------------------------------------------------------------
    async def broadcast(self, raw: bytes) -> str:
        try:
            txid = parse(raw).txid
        except PeerError as error:
            raise UsageError("chain.refused", error.message) from error
        try:
            return str(await self._rpc.call("sendrawtransaction", raw.hex()))
        except RpcError as error:
            if error.code == ALREADY_IN_UTXO_SET or await self.depth(txid) is not None:
                return txid
            raise UsageError(
                "chain.refused", f"bitcoind refuses transaction {txid[:16]}: {error.message}"
            ) from error

    async def feerate(self, target_blocks: int) -> int:
        estimate, pool = await asyncio.gather(
            self._rpc.call("estimatesmartfee", max(1, min(1008, target_blocks))),
            self._rpc.call("getmempoolinfo"),
        )
        if "feerate" in estimate:
            rate = int(estimate["feerate"] * COIN)
        else:
            rate = FEERATE_MIN if await self.network() == "regtest" else FEERATE_UNKNOWN
        floor = max(FEERATE_MIN, int(pool["mempoolminfee"] * COIN), int(pool["minrelaytxfee"] * COIN))
        return max(floor, min(rate, self._feerate_max))


def _unexpected(error: RpcError) -> Unavailable:
    return Unavailable("chain.unreachable", f"bitcoind cannot answer: {error}")
