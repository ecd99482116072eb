"""``ports.chain.Chain`` from a light client: the height of the best chain, and whatever concerns our own wallet.

What it cannot see it says so: a transaction of others that waits, or one that neither pays us nor spends our
coins, is unknown. What bitcoind would refuse in its mempool is refused here, as far as we can know.
"""

from __future__ import annotations

import asyncio
from collections import deque

import bdkpython as bdk

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.ports.chain import ChainTx, Coin, Outpoint
from dockage.protocol.bitcoin.settlement import RELAY_FEERATE
from dockage.protocol.bitcoin.tx import parse
from dockage.wire.chainview import View, refuse_hopeless

from .node import LightNode

FEERATE_MAX = 500_000
FEERATE_UNKNOWN = 10_000
"""sat per 1000 vB, while no block could be had to look at."""
SAMPLES = 6
"""Blocks whose average rate is remembered: an hour's."""
SAMPLE_SEC = 20.0


class LightChain:
    """Implements ``ports.chain.Chain``."""

    sees_mempool = False

    def __init__(self, node: LightNode, feerate_max: int = FEERATE_MAX) -> None:
        """*feerate_max*: sat per 1000 vB that ``feerate`` never passes."""
        self._node = node
        self._feerate_max = max(RELAY_FEERATE, feerate_max)
        self._samples: deque[int] = deque(maxlen=SAMPLES)
        self._sampled = -1

    def __repr__(self) -> str:
        return f"<LightChain {self._node!r}>"

    async def network(self) -> str:
        return self._node.network

    async def height(self) -> int:
        return self._live().tip

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        return self._live().coin(Outpoint(*outpoint))

    async def depth(self, txid: str) -> int | None:
        return self._live().depth(txid)

    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        return self._live().spender(Outpoint(*outpoint))

    def _live(self) -> View:
        """Only of a client that has caught up: an old view would be a lie about what is unspent."""
        _ = self._node.client
        return self._node.view

    # -- sending ---------------------------------------------------------------------------------------
    async def broadcast(self, raw: bytes) -> str:
        """Returns once it is on its way to our peers; whether they take it only the next blocks tell."""
        try:
            tx = parse(raw)
        except PeerError as error:
            raise UsageError("chain.refused", error.message) from error
        view = self._live()
        depth = view.depth(tx.txid)
        if depth is None:
            refuse_hopeless(view, tx)
            self._node.remember(raw)
        if not depth:
            self._node.announce(tx.txid, raw)
        return tx.txid

    async def feerate(self, target_blocks: int) -> int:
        """From the averages of the newest blocks: the highest for the next block or two, else the middle one.
        Averages lie above what just got in, so this errs towards confirming."""
        client = self._node.client
        await self._sample(client)
        floor = max(RELAY_FEERATE, await _peers_minimum(client))
        rates = sorted(self._samples)
        if not rates:
            wanted = FEERATE_UNKNOWN
        else:
            wanted = rates[-1] if target_blocks <= 2 else rates[len(rates) // 2]
        return max(floor, min(wanted, self._feerate_max))

    async def _sample(self, client: bdk.CbfClient) -> None:
        """A block is a download: one for each new tip that somebody asks at, and no more."""
        tip = self._node.wallet.latest_checkpoint()
        if tip.height == self._sampled:
            return
        self._sampled = tip.height
        try:
            async with asyncio.timeout(SAMPLE_SEC):
                rate = await client.average_fee_rate(tip.hash)
        except (TimeoutError, bdk.CbfError):
            return
        self._samples.append(4 * rate.to_sat_per_kwu())


async def _peers_minimum(client: bdk.CbfClient) -> int:
    """sat per 1000 vB below which a peer would not even look (BIP133)."""
    try:
        async with asyncio.timeout(SAMPLE_SEC):
            rate = await client.min_broadcast_feerate()
    except (TimeoutError, bdk.CbfError) as error:
        raise Unavailable("chain.unreachable", "no bitcoin peer answers now") from error
    return int(4 * rate.to_sat_per_kwu())
