"""A bitcoin chain and wallets in memory, and the contract that they and a real node both keep.

The fake knows amounts, dust, fees, lock times, replacement, confirmation and reorganisation. It does **not** run
scripts or check signatures: whether a template is valid is for regtest to say (tests/bitcoin/test_regtest.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from dockage.domain.errors import PeerError, UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import Balance, Chain, ChainTx, Coin, Outpoint, Wallet
from dockage.protocol.bitcoin import address as addresses
from dockage.protocol.bitcoin.tx import Tx, TxIn, TxOut, fee_for, parse

RELAY_FEERATE = 1000
NETWORK = "regtest"


def dust_limit(script: bytes) -> int:
    """By bitcoin's default policy: 294 sat for P2WPKH, 330 for the longer witness programs."""
    return 294 if len(script) == 22 else 330


class FakeChain:
    """Implements ``ports.chain.Chain``; ``mine``, ``reorganise``, ``evict`` and ``give`` move the world."""

    sees_mempool = True

    def __init__(self, rate: int = RELAY_FEERATE) -> None:
        self.blocks: list[list[Tx]] = [[]]
        self.mempool: dict[str, Tx] = {}
        self.rate = rate
        """What ``feerate`` answers, sat per 1000 vB."""
        self._gifts = 0

    def __repr__(self) -> str:
        return f"<FakeChain height {len(self.blocks) - 1}, {len(self.mempool)} waiting>"

    # -- the world's side ------------------------------------------------------------------------------
    def mine(self, blocks: int = 1) -> None:
        """The mempool goes into the first one."""
        for _ in range(blocks):
            self.blocks.append(list(self.mempool.values()))
            self.mempool.clear()

    def reorganise(self, depth: int) -> None:
        """The last *depth* blocks are replaced by one more, all empty; their transactions wait again."""
        undone = [tx for block in self.blocks[-depth:] for tx in block]
        del self.blocks[-depth:]
        waiting, self.mempool = self.mempool, {}
        for tx in (*undone, *waiting.values()):
            if tx.inputs[0].txid == _NOWHERE or self._fee(tx) is not None:
                self.mempool[tx.txid] = tx
        self.blocks += [[] for _ in range(depth + 1)]

    def evict(self, txid: str) -> None:
        """The node forgets a waiting transaction and what hangs on it."""
        self._remove(txid)

    def give(self, script: bytes, value: Sat) -> Outpoint:
        """A coin out of nothing, in a block of its own."""
        self._gifts += 1
        # Like a coinbase: its input spends nothing, and makes each one different.
        tx = Tx(2, (TxIn(_NOWHERE, self._gifts),), (TxOut(value, script),))
        self.blocks.append([tx])
        return Outpoint(tx.txid, 0)

    # -- what is where ---------------------------------------------------------------------------------
    def unspent(self, *, with_mempool: bool = True) -> dict[Outpoint, tuple[TxOut, int]]:
        """Every unspent output and its confirmations."""
        top = len(self.blocks)
        coins: dict[Outpoint, tuple[TxOut, int]] = {}
        layers = [(block, top - height) for height, block in enumerate(self.blocks)]
        if with_mempool:
            layers.append((list(self.mempool.values()), 0))
        for txs, confirmations in layers:
            for tx in txs:
                for one in tx.inputs:
                    coins.pop(Outpoint(one.txid, one.vout), None)
                txid = tx.txid  # two hashes
                coins.update((Outpoint(txid, n), (o, confirmations)) for n, o in enumerate(tx.outputs))
        return coins

    def _fee(self, tx: Tx, *, without: frozenset[str] = frozenset()) -> int | None:
        """None if an input is missing or spent, the waiting transactions *without* left out."""
        kept = self.mempool
        self.mempool = {txid: waiting for txid, waiting in kept.items() if txid not in without}
        coins, self.mempool = self.unspent(), kept
        spent = [coins.get(Outpoint(one.txid, one.vout)) for one in tx.inputs]
        if None in spent:
            return None
        return sum(coin[0].value for coin in spent if coin) - sum(out.value for out in tx.outputs)

    def _conflicts(self, tx: Tx) -> frozenset[str]:
        """Waiting transactions that spend the same coins, with all that hang on them."""
        spent = {one.outpoint for one in tx.inputs}
        found = {
            txid for txid, waiting in self.mempool.items() if spent & {one.outpoint for one in waiting.inputs}
        }
        grown = True
        while grown:
            more = {
                txid for txid, waiting in self.mempool.items() if {i.txid for i in waiting.inputs} & found
            }
            grown = not more <= found
            found |= more
        return frozenset(found)

    def _remove(self, txid: str) -> None:
        if (tx := self.mempool.get(txid)) is not None:
            for conflict in self._conflicts(tx):
                del self.mempool[conflict]

    # -- ports.chain.Chain -----------------------------------------------------------------------------------
    async def network(self) -> str:
        return NETWORK

    async def height(self) -> int:
        return len(self.blocks) - 1

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        found = self.unspent().get(Outpoint(*outpoint))
        return found and Coin(Sat(found[0].value), found[0].script, found[1], False)

    async def depth(self, txid: str) -> int | None:
        if txid in self.mempool:
            return 0
        for height, block in enumerate(self.blocks):
            for tx in block:
                if tx.txid == txid:
                    return len(self.blocks) - height
        return None

    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        wanted = (outpoint[0], outpoint[1])
        for block in self.blocks[max(0, from_height) :]:
            for tx in block:
                if any((one.txid, one.vout) == wanted for one in tx.inputs):
                    return ChainTx(tx.txid, tx.encode(), Sat(0))
        return None

    async def broadcast(self, raw: bytes) -> str:
        try:
            tx = parse(raw)
        except PeerError as error:
            raise UsageError("chain.refused", error.message) from error
        if await self.depth(tx.txid) is None:
            self._accept(tx)
        return tx.txid

    def _accept(self, tx: Tx) -> None:
        """The order of bitcoind's own checks, and its words."""
        if any(out.value < dust_limit(out.script) for out in tx.outputs):
            raise _refused(tx, "dust")
        if 0 < tx.locktime < 500_000_000 and tx.locktime > len(self.blocks) - 1:
            raise _refused(tx, "non-final")
        conflicts = self._conflicts(tx)
        fee = self._fee(tx, without=conflicts)
        if fee is None:
            raise _refused(tx, "bad-txns-inputs-missingorspent")
        if fee < fee_for(tx.vsize, RELAY_FEERATE):
            raise _refused(tx, "min relay fee not met")
        before = sum(self._fee_of_waiting(txid) for txid in conflicts)
        if conflicts and fee < before + fee_for(tx.vsize, RELAY_FEERATE):
            raise _refused(tx, f"insufficient fee, replacing {before} sat")
        for txid in conflicts:
            del self.mempool[txid]
        self.mempool[tx.txid] = tx

    def _fee_of_waiting(self, txid: str) -> int:
        tx = self.mempool[txid]
        return self._fee(tx, without=self._conflicts(tx)) or 0

    async def feerate(self, target_blocks: int) -> int:
        return max(RELAY_FEERATE, self.rate)


_NOWHERE = "00" * 32


def _refused(tx: Tx, why: str) -> UsageError:
    return UsageError("chain.refused", f"the fake chain refuses transaction {tx.txid[:16]}: {why}")


class FakeWallet:
    """Implements ``ports.Wallet`` on a FakeChain. Its scripts follow from its name, so runs repeat exactly."""

    def __init__(self, chain: FakeChain, name: str, coins: Sequence[Sat] = ()) -> None:
        """*coins*: confirmed coins to begin with."""
        self._chain = chain
        self._name = name
        self._scripts: set[bytes] = set()
        self._locked: set[Outpoint] = set()
        self.broadcast = chain.broadcast
        """What ``send`` sends through."""
        for value in coins:
            self.earn(value)

    def __repr__(self) -> str:
        return f"<FakeWallet {self._name}>"

    def earn(self, value: int) -> Outpoint:
        """A confirmed coin out of nothing."""
        return self._chain.give(self._fresh(), Sat(value))

    def owns(self, script: bytes) -> bool:
        return script in self._scripts

    def _fresh(self) -> bytes:
        key = sha256(f"{self._name}/{len(self._scripts)}".encode()).digest()
        self._scripts.add(script := b"\x51\x20" + key)
        return script

    def _coins(self) -> list[tuple[Outpoint, int, bool]]:
        """(outpoint, sat, whether it may be spent: confirmed, or change of our own)."""
        return [
            (outpoint, out.value, confirmations > 0 or self._is_own(outpoint.txid))
            for outpoint, (out, confirmations) in self._chain.unspent().items()
            if out.script in self._scripts
        ]

    def _is_own(self, txid: str) -> bool:
        before = self._chain.unspent(with_mempool=False)
        inputs = [before.get(Outpoint(one.txid, one.vout)) for one in self._chain.mempool[txid].inputs]
        return all(coin is not None and coin[0].script in self._scripts for coin in inputs) or all(
            one.txid in self._chain.mempool and self._is_own(one.txid)
            for one in self._chain.mempool[txid].inputs
        )

    # -- ports.Wallet ----------------------------------------------------------------------------------
    async def receive(self) -> str:
        return addresses.encode(self._fresh(), NETWORK)

    async def script(self) -> bytes:
        return self._fresh()

    async def unused(self) -> bytes:
        return self._fresh()

    async def balance(self) -> Balance:
        coins = self._coins()
        return Balance(
            Sat(sum(value for _, value, ready in coins if ready)),
            Sat(sum(value for _, value, ready in coins if not ready)),
        )

    async def fund(self, outputs: Sequence[tuple[bytes, Sat]], feerate: int) -> ChainTx:
        wanted = sum(value for _, value in outputs)
        free = [(o, value) for o, value, ready in self._coins() if ready and o not in self._locked]
        chosen: list[tuple[Outpoint, int]] = []
        for coin in sorted(free, key=lambda coin: (-coin[1], coin[0])):
            chosen.append(coin)
            draft = self._draft(chosen, outputs, Sat(0))
            fee = fee_for(draft.vsize, feerate)
            change = sum(value for _, value in chosen) - wanted - fee
            if change >= dust_limit(draft.outputs[-1].script):
                self._locked.update(outpoint for outpoint, _ in chosen)
                tx = self._draft(chosen, outputs, Sat(change), self._fresh())
                return ChainTx(tx.txid, tx.encode(), Sat(fee))
        total = sum(value for _, value in free)
        raise UsageError(
            "wallet.insufficient",
            f"{wanted} sat and the fee are wanted; the wallet {self._name!r} has {total} sat free to spend: "
            f"{max(0, wanted - total)} sat and the fee are missing",
        )

    def _draft(
        self,
        chosen: Sequence[tuple[Outpoint, int]],
        outputs: Sequence[tuple[bytes, Sat]],
        change: Sat,
        script: bytes = b"\x51\x20" + bytes(32),
    ) -> Tx:
        """With a key-path witness of the right size: real enough for the fee."""
        inputs = tuple(TxIn(outpoint.txid, outpoint.vout) for outpoint, _ in chosen)
        outs = tuple(TxOut(value, to) for to, value in outputs)
        return Tx(2, inputs, (*outs, TxOut(change, script)), 0, ((bytes(64),),) * len(inputs))

    async def forget(self, tx: ChainTx) -> None:
        self._locked -= {Outpoint(one.txid, one.vout) for one in parse(tx.raw).inputs}

    async def send(self, address: str, amount: Sat, feerate: int) -> ChainTx:
        tx = await self.fund([(addresses.decode(address, NETWORK), amount)], feerate)
        await self.broadcast(tx.raw)
        return tx


class ChainWorld(Protocol):
    """What the contract needs besides the ports: somebody who mines, forks, and hands out coins."""

    @property
    def chain(self) -> Chain: ...

    async def wallet(self, *coins: Sat) -> Wallet:
        """A new wallet that holds exactly these confirmed coins."""

    async def mine(self, blocks: int) -> None:
        """What was broadcast goes into the first one. Returns once ``chain`` shows them."""

    async def reorganise(self, depth: int) -> None:
        """Replace the last *depth* blocks by ``depth + 1`` empty ones."""


class FakeWorld:
    """Implements ``ChainWorld`` in memory."""

    def __init__(self) -> None:
        self.fake = FakeChain()
        self._wallets = 0

    @property
    def chain(self) -> Chain:
        return self.fake

    async def wallet(self, *coins: Sat) -> Wallet:
        self._wallets += 1
        return FakeWallet(self.fake, f"wallet {self._wallets}", coins)

    async def mine(self, blocks: int) -> None:
        self.fake.mine(blocks)

    async def reorganise(self, depth: int) -> None:
        self.fake.reorganise(depth)
