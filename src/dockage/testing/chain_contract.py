"""What every ``Chain`` and ``Wallet`` must do: the same tests for the fake and for a bitcoind on regtest.

Subclass, and give a fixture ``world`` (``testing.chain.ChainWorld``).
"""

from __future__ import annotations

import pytest

from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.ports.chain import Coin, Outpoint, Wallet
from dockage.protocol.bitcoin.address import decode
from dockage.protocol.bitcoin.tx import parse

from .chain import ChainWorld

SCRIPT = b"\x51\x20" + bytes([7]) * 32
OTHER = b"\x51\x20" + bytes([8]) * 32
RATE = 2000


class ChainContract:
    async def test_blocks_raise_the_height(self, world: ChainWorld) -> None:
        before = await world.chain.height()
        await world.mine(3)
        assert await world.chain.height() == before + 3
        assert await world.chain.network() == "regtest"

    async def test_a_fee_rate_is_whole_and_relayed(self, world: ChainWorld) -> None:
        rate = await world.chain.feerate(6)
        assert type(rate) is int
        assert rate >= 1000

    async def test_a_funding_is_signed_but_not_broadcast(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        tx = await wallet.fund([(SCRIPT, Sat(50_000)), (OTHER, Sat(20_000))], RATE)
        parsed = parse(tx.raw)
        assert parsed.txid == tx.txid
        assert all(parsed.witnesses)
        assert None not in (parsed.find(SCRIPT, 50_000), parsed.find(OTHER, 20_000))
        assert 100_000 - sum(out.value for out in parsed.outputs) == tx.fee
        assert RATE * parsed.vsize <= tx.fee * 1000 <= RATE * parsed.vsize * 1.1
        assert await world.chain.depth(tx.txid) is None
        assert (await wallet.balance()).confirmed == 100_000

    async def test_a_funding_from_nothing_to_six_deep(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        tx = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        outpoint = Outpoint(tx.txid, parse(tx.raw).find(SCRIPT, 50_000) or 0)
        assert await world.chain.coin(outpoint) is None
        assert await world.chain.broadcast(tx.raw) == tx.txid
        for depth in (0, 1, 6):
            await world.mine(max(0, depth - (await world.chain.depth(tx.txid) or 0)))
            assert await world.chain.depth(tx.txid) == depth
            assert await world.chain.coin(outpoint) == Coin(Sat(50_000), SCRIPT, depth, False)
        assert (await wallet.balance()).confirmed == 50_000 - tx.fee

    async def test_a_second_broadcast_changes_nothing(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        tx = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        for depth in (0, 1, 2):
            for _ in range(2):
                assert await world.chain.broadcast(tx.raw) == tx.txid
                assert await world.chain.depth(tx.txid) == depth
            await world.mine(1)

    async def test_unconfirmed_change_funds_the_next(self, world: ChainWorld) -> None:
        """A second channel right after the first: no waiting for a block."""
        wallet = await world.wallet(Sat(100_000))
        first = await wallet.fund([(SCRIPT, Sat(20_000))], RATE)
        await world.chain.broadcast(first.raw)
        second = await wallet.fund([(OTHER, Sat(20_000))], RATE)
        assert parse(second.raw).inputs[0].txid == first.txid
        await world.chain.broadcast(second.raw)
        await world.mine(1)
        assert await world.chain.depth(first.txid) == await world.chain.depth(second.txid) == 1

    async def test_locked_coins_fund_nothing_else_until_forgotten(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        tx = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        with pytest.raises(UsageError) as caught:
            await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        assert caught.value.code == "wallet.insufficient"
        assert "50000 sat and the fee are missing" in caught.value.message
        await wallet.forget(tx)
        await wallet.forget(tx)
        again = await wallet.fund([(OTHER, Sat(50_000))], RATE)
        await world.chain.broadcast(again.raw)
        with pytest.raises(UsageError) as caught:
            await world.chain.broadcast(tx.raw)
        assert caught.value.code == "chain.refused"

    async def test_too_little_money_says_how_much_is_missing(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(10_000))
        with pytest.raises(UsageError, match="2500 sat and the fee are missing") as caught:
            await wallet.fund([(SCRIPT, Sat(12_500))], RATE)
        assert caught.value.code == "wallet.insufficient"

    async def test_the_spender_of_a_coin_is_found_once_confirmed(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        start = await world.chain.height()
        coin, value = await _only_coin(world, wallet)
        assert await world.chain.coin(coin) == value
        tx = await wallet.fund([(SCRIPT, Sat(99_000))], RATE)
        await world.chain.broadcast(tx.raw)
        assert await world.chain.coin(coin) is None
        assert await world.chain.spender(coin, start) is None
        await world.mine(3)
        spender = await world.chain.spender(coin, start)
        assert spender is not None
        assert (spender.txid, spender.raw) == (tx.txid, tx.raw)
        assert spender.fee in (0, tx.fee)
        assert await world.chain.depth(tx.txid) == 3
        assert await world.chain.spender(coin, await world.chain.height()) in (None, spender)

    async def test_a_coin_that_never_was_has_no_spender(self, world: ChainWorld) -> None:
        nowhere = Outpoint("12" * 32, 0)
        start = await world.chain.height()
        for _ in range(2):
            assert await world.chain.spender(nowhere, start) is None
            assert await world.chain.coin(nowhere) is None
            assert await world.chain.depth(nowhere.txid) is None
            await world.mine(1)

    async def test_more_fee_replaces_and_less_does_not(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        slow = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        await wallet.forget(slow)
        fast = await wallet.fund([(SCRIPT, Sat(50_000))], 3 * RATE)
        await world.chain.broadcast(slow.raw)
        await world.chain.broadcast(fast.raw)
        assert await world.chain.depth(slow.txid) is None
        assert await world.chain.depth(fast.txid) == 0
        with pytest.raises(UsageError) as caught:
            await world.chain.broadcast(slow.raw)
        assert caught.value.code == "chain.refused"
        await world.mine(1)
        assert await world.chain.depth(slow.txid) is None
        assert (await wallet.balance()).confirmed == 50_000 - fast.fee

    async def test_a_reorganisation_takes_confirmations_back(self, world: ChainWorld) -> None:
        wallet = await world.wallet(Sat(100_000))
        start = await world.chain.height()
        coin, _ = await _only_coin(world, wallet)
        tx = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
        outpoint = Outpoint(tx.txid, parse(tx.raw).find(SCRIPT, 50_000) or 0)
        await world.chain.broadcast(tx.raw)
        await world.mine(1)
        assert await world.chain.spender(coin, start) is not None
        await world.reorganise(1)
        assert await world.chain.depth(tx.txid) == 0
        assert await world.chain.coin(outpoint) == Coin(Sat(50_000), SCRIPT, 0, False)
        assert await world.chain.spender(coin, start) is None
        await world.mine(1)
        assert await world.chain.depth(tx.txid) == 1
        spender = await world.chain.spender(coin, start)
        assert spender is not None
        assert spender.txid == tx.txid

    @pytest.mark.parametrize("raw", [b"", b"\0", bytes(60), b"\2\0\0\0" + b"\xff" * 80])
    async def test_noise_is_refused(self, world: ChainWorld, raw: bytes) -> None:
        with pytest.raises(UsageError) as caught:
            await world.chain.broadcast(raw)
        assert caught.value.code == "chain.refused"

    async def test_addresses_are_fresh_and_taproot(self, world: ChainWorld) -> None:
        wallet = await world.wallet()
        scripts = {decode(await wallet.receive(), "regtest"), await wallet.script(), await wallet.script()}
        assert len(scripts) == 3
        assert {(script[:2], len(script)) for script in scripts} == {(b"\x51\x20", 34)}
        assert await wallet.balance() == (0, 0)

    async def test_money_sent_arrives_to_the_satoshi(self, world: ChainWorld) -> None:
        payer, payee = await world.wallet(Sat(100_000)), await world.wallet()
        tx = await payer.send(await payee.receive(), Sat(12_345), RATE)
        assert await world.chain.depth(tx.txid) == 0
        assert await payee.balance() == (0, 12_345 if world.chain.sees_mempool else 0)
        await world.mine(1)
        assert await payee.balance() == (12_345, 0)
        assert await payer.balance() == (100_000 - 12_345 - tx.fee, 0)

    @pytest.mark.parametrize(
        ("address", "code"),
        [
            ("nonsense", "address.invalid"),
            ("bc1p2wsldez5mud2yam29q22wgfh9439spgduvct83k3pm50fcxa5dps59h4z5", "address.network"),
        ],
    )
    async def test_a_wrong_address_moves_no_money(self, world: ChainWorld, address: str, code: str) -> None:
        wallet = await world.wallet(Sat(100_000))
        with pytest.raises(UsageError) as caught:
            await wallet.send(address, Sat(1000), RATE)
        assert caught.value.code == code
        await wallet.fund([(SCRIPT, Sat(90_000))], RATE)


async def _only_coin(world: ChainWorld, wallet: Wallet) -> tuple[Outpoint, Coin]:
    """The one coin of a wallet made with one: named by the transaction that would spend it."""
    tx = await wallet.fund([(SCRIPT, Sat(50_000))], RATE)
    await wallet.forget(tx)
    one = parse(tx.raw).inputs[0]
    coin = await world.chain.coin(Outpoint(one.txid, one.vout))
    assert coin is not None
    return Outpoint(one.txid, one.vout), coin
