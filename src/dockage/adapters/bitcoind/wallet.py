"""``ports.Wallet``: one named wallet of a bitcoind, made if it is missing.

Nothing is broadcast by ``fund``: the caller journals the transaction first and then hands it to
``Chain.broadcast``. Its coins are locked in the node's memory until they are spent, given back, or we start again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import Balance, ChainTx
from dockage.protocol.bitcoin import address as addresses
from dockage.protocol.bitcoin.tx import Tx, TxOut, parse

from .rpc import Rpc, RpcError, sat

VERSION = 2
"""Of a funding. Not 3: a version 3 transaction may not spend the unconfirmed change of a funding before it, so a
second channel could not be opened before the next block."""

WALLET_NOT_FOUND = -18
ALREADY_LOADED = -35
INSUFFICIENT = -6
UNLOCK_NEEDED = -13


class BitcoindWallet:
    """Implements ``ports.Wallet``. Needs no ``start``: the wallet is loaded or made at the first call."""

    def __init__(self, rpc: Rpc, name: str = "dockage") -> None:
        self._rpc = rpc
        self.name = name
        self._network = ""
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<BitcoindWallet {self.name} at {self._rpc.address.url}>"

    async def receive(self) -> str:
        # Always with the type: Knots gives a legacy address otherwise, whatever its manual says.
        return str(await self._call("getnewaddress", "", "bech32m"))

    async def script(self) -> bytes:
        address = await self.receive()
        return addresses.decode(address, self._network)

    async def unused(self) -> bytes:
        return await self.script()  # bitcoind looks 1,000 addresses ahead

    async def balance(self) -> Balance:
        mine = (await self._call("getbalances"))["mine"]
        return Balance(sat(mine["trusted"]), Sat(sat(mine["untrusted_pending"]) + sat(mine["immature"])))

    async def fund(self, outputs: Sequence[tuple[bytes, Sat]], feerate: int) -> ChainTx:
        draft = Tx(VERSION, (), tuple(TxOut(value, script) for script, value in outputs)).encode().hex()
        options = {"fee_rate": _per_vbyte(feerate), "lockUnspents": True, "change_type": "bech32m"}
        try:
            # False: no input yet, so the bytes must not be guessed to be a segwit serialisation.
            funded = await self._call("fundrawtransaction", draft, options, False)
        except RpcError as error:
            raise await self._refused(error, outputs) from error
        fee = sat(funded["fee"])
        try:
            signed = await self._call("signrawtransactionwithwallet", funded["hex"])
            raw = bytes.fromhex(signed["hex"])
            if not signed["complete"]:
                raise UsageError(
                    "wallet.unsigned", f"the wallet {self.name!r} does not hold all its own keys"
                )
        except (RpcError, UsageError) as error:
            unsigned = bytes.fromhex(funded["hex"])
            await self.forget(ChainTx("", unsigned, fee))
            raise (await self._refused(error, outputs) if isinstance(error, RpcError) else error) from error
        return ChainTx(parse(raw).txid, raw, fee)

    async def forget(self, tx: ChainTx) -> None:
        for one in parse(tx.raw).inputs:
            try:
                await self._call("lockunspent", True, [{"txid": one.txid, "vout": one.vout}])
            except RpcError:
                continue  # not locked (any more): that is what was wanted

    async def send(self, address: str, amount: Sat, feerate: int) -> ChainTx:
        await self._open()
        tx = await self.fund([(addresses.decode(address, self._network), amount)], feerate)
        try:
            await self._call("sendrawtransaction", tx.raw.hex())
        except RpcError as error:
            await self.forget(tx)
            raise UsageError("chain.refused", f"bitcoind refuses the payment: {error.message}") from error
        return tx

    async def _refused(self, error: RpcError, outputs: Sequence[tuple[bytes, Sat]]) -> UsageError:
        if error.code == UNLOCK_NEEDED:
            return UsageError(
                "wallet.locked",
                f"the wallet {self.name!r} is locked: bitcoin-cli -rpcwallet={self.name} walletpassphrase ...",
            )
        if error.code == INSUFFICIENT or "nsufficient" in error.message:
            wanted, free = sum(value for _, value in outputs), await self._free()
            return UsageError(
                "wallet.insufficient",
                f"{wanted} sat and the fee are wanted; the wallet {self.name!r} has {free} sat free to spend: "
                f"{max(0, wanted - free)} sat and the fee are missing",
            )
        return UsageError("wallet.refused", f"the wallet {self.name!r} cannot do that: {error.message}")

    async def _free(self) -> int:
        """sat that are neither locked nor waiting for somebody else's transaction to confirm."""
        coins = await self._call("listunspent", 0, 9_999_999, [], False)
        return sum(sat(coin["amount"]) for coin in coins if coin["spendable"])

    # -- the wallet itself -----------------------------------------------------------------------------
    async def _call(self, method: str, *params: Any) -> Any:
        await self._open()
        try:
            return await self._rpc.call(method, *params, wallet=self.name)
        except RpcError as error:
            if error.code != WALLET_NOT_FOUND:
                raise
        self._network = ""  # the node was restarted without it
        await self._open()
        return await self._rpc.call(method, *params, wallet=self.name)

    async def _open(self) -> None:
        async with self._opening:
            if self._network:
                return
            network = (await self._rpc.call("getblockchaininfo"))["chain"]
            if network not in addresses.PREFIXES:
                raise UsageError("chain.network", f"bitcoind runs on {network}, which we have no use for")
            if self.name not in await self._rpc.call("listwallets"):
                await self._load_or_create()
            # Locks of an earlier run: what was journalled is broadcast again at start, the rest is free.
            await self._rpc.call("lockunspent", True, wallet=self.name)
            self._network = network

    async def _load_or_create(self) -> None:
        try:
            await self._rpc.call("loadwallet", self.name, True)
        except RpcError as error:
            if error.code == ALREADY_LOADED:
                return
            if error.code != WALLET_NOT_FOUND:
                raise UsageError(
                    "wallet.unusable", f"bitcoind cannot load the wallet {self.name!r}: {error.message}"
                ) from error
            await self._rpc.call("createwallet", self.name, False, False, "", False, True, True)


def _per_vbyte(feerate: int) -> str:
    """sat per 1000 vB as bitcoind's sat/vB, exactly: it takes three decimals."""
    return f"{feerate // 1000}.{feerate % 1000:03}"
