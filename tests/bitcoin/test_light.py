"""The light client against a real node: what goes wrong between them, and a wallet whose files are lost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bitcoin.light import Light, LightWorld, new_wallet, until
from bitcoin.node import Node, running
from dockage.adapters.bdk import LightNode, Seed, SeedFile, read_birthday
from dockage.adapters.system.clock import SystemClock
from dockage.domain.channel import BURIED
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.units import Sat
from dockage.protocol.bitcoin.address import decode
from dockage.protocol.bitcoin.tx import Tx, TxIn, TxOut

ABANDON = "abandon " * 11 + "about"
SCRIPT = b"\x51\x20" + bytes([7]) * 32


@pytest.fixture
async def world(bitcoind: Node, tmp_path: Path) -> AsyncIterator[LightWorld]:
    async with LightWorld(bitcoind, tmp_path) as world:
        yield world


@contextlib.asynccontextmanager
async def apart(file: Path, *peers: str) -> AsyncIterator[Light]:
    """A client that need not catch up."""
    light = Light(file, *peers)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(light.node.run())
        try:
            yield light
        finally:
            task.cancel()


async def trouble(light: Light, word: str) -> Unavailable:
    """Waits until it complains with *word* in its sentence."""
    caught = Unavailable("", "")

    def complains() -> bool:
        nonlocal caught
        try:
            assert light.node.client
        except Unavailable as error:
            caught = error
        return word in caught.message

    await until(complains)
    return caught


# -- peers -----------------------------------------------------------------------------------------------
async def test_a_peer_that_nobody_answers_at(tmp_path: Path) -> None:
    async with apart(new_wallet(tmp_path), "127.0.0.1:1") as light:
        error = await trouble(light, "nobody answers at bitcoin.peers")
        assert error.code == "chain.unreachable"
        with pytest.raises(Unavailable):
            await light.chain.broadcast(Tx(2, (TxIn("ab" * 32, 0),), (TxOut(1000, SCRIPT),)).encode())
        assert await light.wallet.balance() == (0, 0)  # its own files it knows all the same
        assert (await light.wallet.receive()).startswith("bcrt1p")


async def test_a_peer_on_another_network(bitcoind: Node, tmp_path: Path) -> None:
    async with apart(new_wallet(tmp_path, "signet"), bitcoind.peer) as light:
        assert (await trouble(light, "hung up")).code == "chain.unreachable"


async def test_a_peer_that_serves_no_filters(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(tmp_path_factory, filters=False, blocks=2) as node:
        async with apart(new_wallet(tmp_path), node.peer) as light:
            assert "-peerblockfilters" in (await trouble(light, "serve")).message


async def test_a_lost_connection_is_made_again_and_nothing_is_missed(world: LightWorld) -> None:
    light, wallet = world.lights[0], await world.wallet(Sat(50_000))
    for peer in world.node.rpc("getpeerinfo"):
        world.node.rpc("disconnectnode", peer["addr"])
    await until(lambda: not light.node.synced.is_set())
    world.node.give(await wallet.receive(), 7_000)
    await light.follow(world.node)
    assert (await wallet.balance()).confirmed == 57_000


# -- birthdays, restarts ---------------------------------------------------------------------------------
async def test_the_words_bring_the_coins_back_unless_the_birthday_is_too_late(
    world: LightWorld, tmp_path: Path
) -> None:
    first = world.lights[0]
    wallet = await world.wallet(Sat(40_000))
    born = f"{await world.chain.height()}:{world.node.rpc('getbestblockhash')}"
    await world.mine(1)
    tx = await wallet.fund([(SCRIPT, Sat(10_000))], 2000)
    await world.chain.broadcast(tx.raw)
    await world.mine(1)
    late = f"{await world.chain.height()}:{world.node.rpc('getbestblockhash')}"
    await world.mine(1)
    for folder, birthday, found in (
        ("late", late, 0),
        ("right", born, 30_000 - tx.fee),
        ("all", "0", 30_000 - tx.fee),
    ):
        path = tmp_path / folder / "seed.json"
        SeedFile(first.node.file.words, "regtest", birthday).save(path)
        again = await world.light(path)
        assert (await again.wallet.balance()).confirmed == found, folder
    script = decode(await again.wallet.receive(), "regtest")
    assert all(script != out.script for known in first.node.view.txs.values() for out in known.tx.outputs)


async def test_a_birthday_that_is_not_on_the_chain(bitcoind: Node, tmp_path: Path) -> None:
    wrong = f"{bitcoind.rpc('getblockcount') - 2}:{'00' * 31}11"
    async with apart(new_wallet(tmp_path, birthday=wrong), bitcoind.peer) as light:
        assert (await trouble(light, "birthday")).code == "chain.unreachable"


async def test_a_new_wallets_birthday_moves_up_to_the_first_tip_it_sees(
    world: LightWorld, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "seed.json"
    SeedFile(Seed.new("regtest").words, "regtest", "0", is_new=True).save(path)
    light = await world.light(path)
    born = read_birthday(SeedFile.load(path).birthday)
    assert born.height == light.node.view.tip - BURIED
    assert born.hash == world.node.rpc("getblockhash", born.height)
    assert not SeedFile.load(path).is_new


async def test_a_restart_goes_on_where_it_was_and_gives_no_address_twice(
    bitcoind: Node, tmp_path: Path
) -> None:
    path = new_wallet(tmp_path / "wallet")
    async with LightWorld(bitcoind, tmp_path / "a") as world:
        light = await world.light(path)
        given = await light.wallet.receive()
        bitcoind.give(given, 20_000)
        await light.follow(bitcoind)
        tx = await light.wallet.fund([(SCRIPT, Sat(5_000))], 2000)
        await light.chain.broadcast(tx.raw)
    async with LightWorld(bitcoind, tmp_path / "b") as world:
        again = await world.light(path)
        assert await again.wallet.receive() != given
        assert await again.chain.depth(tx.txid) == 0  # it is announced again when somebody asks for it
        await again.chain.broadcast(tx.raw)
        await world.mine(1)
        assert await again.chain.depth(tx.txid) == 1


# -- files -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("abandon about", "2 words"),
        ("abandon " * 12, "do not belong together"),
        ("abandon " * 11 + "dockage", "word 12"),
    ],
)
def test_words_that_are_no_wallets(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Seed(words, "regtest")
    assert caught.value.code == "wallet.words"


def test_the_keys_are_those_of_the_standards() -> None:
    """BIP86's first test vector, and the channels' seed of spec 05."""
    seed = Seed("  ABANDON " + "abandon\n" * 10 + "about ", "main")
    assert seed.words == ABANDON
    assert "tr(" in str(seed.descriptors()[0])
    assert "[73c5da0a/86'/0'/0']" in str(seed.descriptors()[0])
    assert seed.channels().hex() == "5676240e195b348a72ad08bdd6e4adaa7b954c00960c528544af4d9c2d537627"
    on_tests = "1768d07535817409475068e9552db62551b51a91675064dc6ddcd17385414ef4"
    assert Seed(ABANDON, "regtest").channels().hex() == on_tests
    assert "abandon" not in repr(seed)


@pytest.mark.parametrize("text", ["", "1", "abc", "7:zz", f"-1:{'00' * 32}", f"{10**9}:{'00' * 32}"])
def test_a_birthday_is_a_block(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_birthday(text)
    assert caught.value.code == "wallet.birthday"


def test_what_a_wallet_cannot_start_from(tmp_path: Path) -> None:
    def code(path: Path, *peers: str) -> str:
        with pytest.raises(UsageError) as caught:
            LightNode(path, peers, SystemClock())
        return caught.value.code

    assert code(tmp_path / "seed.json", "127.0.0.1:1") == "wallet.missing"
    path = new_wallet(tmp_path)
    assert code(path) == "wallet.no-peers"
    assert code(path, "bitcoin.example:8333") == "config.invalid"
    Light(path, "127.0.0.1:1")
    SeedFile(Seed.new("regtest").words, "regtest", "0").save(path)
    assert code(path, "127.0.0.1:1") == "wallet.other-seed"
    path.chmod(0o644)
    assert code(path, "127.0.0.1:1") == "wallet.exposed"
    path.chmod(0o600)
    path.write_text("{}")
    assert code(path, "127.0.0.1:1") == "wallet.damaged"
    shutil.rmtree(tmp_path)
