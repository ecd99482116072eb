"""The chain contract on the fake and on a real node, and what only one of them can show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bitcoin.light import LightWorld
from bitcoin.node import Node, RegtestWorld
from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.tx import Tx, TxIn, TxOut, parse
from dockage.testing.chain import FakeChain, FakeWallet, FakeWorld
from dockage.testing.chain_contract import SCRIPT, ChainContract
from dockage.testing.light import FakeLightWorld


class TestFakeChain(ChainContract):
    @pytest.fixture
    def world(self) -> FakeWorld:
        return FakeWorld()


class TestFakeLight(ChainContract):
    @pytest.fixture
    def world(self) -> FakeLightWorld:
        return FakeLightWorld()


class TestBitcoind(ChainContract):
    @pytest.fixture
    async def world(self, bitcoind: Node) -> AsyncIterator[RegtestWorld]:
        world = RegtestWorld(bitcoind)
        yield world
        await world.close()


class TestLight(ChainContract):
    @pytest.fixture
    async def world(self, bitcoind: Node, tmp_path: Path) -> AsyncIterator[LightWorld]:
        async with LightWorld(bitcoind, tmp_path) as world:
            yield world


# -- the fake alone --------------------------------------------------------------------------------------
def spend(chain: FakeChain, value: int, left: int, locktime: int = 0, script: bytes = SCRIPT) -> Tx:
    outpoint = chain.give(SCRIPT, Sat(value))
    return Tx(2, (TxIn(*outpoint),), (TxOut(left, script),), locktime, ((bytes(64),),))


async def test_a_lock_time_holds_until_the_tip_is_there() -> None:
    chain = FakeChain()
    tx = spend(chain, 10_000, 9_000, locktime=5)
    chain.mine(3)
    with pytest.raises(UsageError, match="non-final"):
        await chain.broadcast(tx.encode())
    chain.mine()
    assert await chain.height() == 5
    assert await chain.broadcast(tx.encode()) == tx.txid


@pytest.mark.parametrize(
    ("left", "script", "reason"),
    [
        (329, SCRIPT, "dust"),
        (330, SCRIPT, ""),
        (293, b"\0\x14" + bytes(20), "dust"),
        (294, b"\0\x14" + bytes(20), ""),
        (9_950, SCRIPT, "min relay fee"),
        (10_001, SCRIPT, "min relay fee"),
    ],
)
async def test_policy_of_the_fake(left: int, script: bytes, reason: str) -> None:
    chain = FakeChain()
    raw = spend(chain, 10_000, left, script=script).encode()
    if not reason:
        await chain.broadcast(raw)
    else:
        with pytest.raises(UsageError, match=reason):
            await chain.broadcast(raw)


async def test_what_hangs_on_an_evicted_transaction_goes_too() -> None:
    chain = FakeChain()
    wallet = FakeWallet(chain, "w", [Sat(100_000)])
    first = await wallet.fund([(SCRIPT, Sat(1_000))], 1000)
    await chain.broadcast(first.raw)
    second = await wallet.fund([(SCRIPT, Sat(1_000))], 1000)
    await chain.broadcast(second.raw)
    chain.evict(first.txid)
    assert await chain.depth(second.txid) is None
    assert (await wallet.balance()).confirmed == 100_000


async def test_a_fake_run_repeats_exactly() -> None:
    raws = []
    for _ in range(2):
        chain = FakeChain()
        wallet = FakeWallet(chain, "w", [Sat(5_000), Sat(5_000), Sat(5_000)])
        raws.append((await wallet.fund([(SCRIPT, Sat(9_000))], 1000)).raw)
    assert raws[0] == raws[1]
    assert len(parse(raws[0]).inputs) == 2
