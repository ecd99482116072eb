"""The bitcoin chain and the wallet on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dockage.domain.units import Sat


class Outpoint(NamedTuple):
    txid: str
    """Hex in the usual (reversed) display order."""
    vout: int


class Coin(NamedTuple):
    """An unspent output as the node sees it now."""

    value: Sat
    script: bytes
    confirmations: int
    coinbase: bool


class ChainTx(NamedTuple):
    txid: str
    raw: bytes
    fee: Sat


class Chain(Protocol):
    """A view of the bitcoin chain. Raises Unavailable("chain.unreachable") when the node does not answer."""

    @property
    def sees_mempool(self) -> bool:
        """False for a light client: of what waits, and of what neither pays nor spends from our wallet, it knows
        only what was broadcast through it. ``None`` then means "unknown", not "not there"."""

    async def network(self) -> str:
        """ "regtest", "signet", "testnet4" or "main"."""

    async def height(self) -> int: ...

    async def coin(self, outpoint: Outpoint) -> Coin | None:
        """None if unknown or spent (the mempool counts as spent)."""

    async def depth(self, txid: str) -> int | None:
        """Confirmations, 0 in the mempool, None if the node does not know it (or it was replaced)."""

    async def spender(self, outpoint: Outpoint, from_height: int) -> ChainTx | None:
        """The confirmed transaction that spent *outpoint*, looked for from block *from_height* on (fee 0 =
        not known)."""

    async def broadcast(self, raw: bytes) -> str:
        """The txid; idempotent for a known one. Raises UsageError("chain.refused") with the reason. A light client
        learns of no reason: what it sends may still be refused, and then never confirms."""

    async def feerate(self, target_blocks: int) -> int:
        """sat per 1000 vB, never below the relay minimum, capped."""


class Balance(NamedTuple):
    confirmed: Sat
    pending: Sat


class Wallet(Protocol):
    """The user's own coins. Never holds anybody else's."""

    async def receive(self) -> str:
        """A fresh bech32m address."""

    async def script(self) -> bytes:
        """The scriptPubKey of a fresh address."""

    async def unused(self) -> bytes:
        """The scriptPubKey of an address that nobody has paid yet, where it matters little who else knows it: what
        strangers ask for must not use addresses up."""

    async def balance(self) -> Balance: ...

    async def fund(self, outputs: Sequence[tuple[bytes, Sat]], feerate: int) -> ChainTx:
        """A signed transaction that pays *outputs* (scriptPubKey, sat); its coins are locked, it is NOT yet
        broadcast. Raises UsageError("wallet.insufficient") naming what is missing."""

    async def forget(self, tx: ChainTx) -> None:
        """Unlock the coins of a transaction that will not be broadcast."""

    async def send(self, address: str, amount: Sat, feerate: int) -> ChainTx:
        """Pay a plain address and broadcast."""
