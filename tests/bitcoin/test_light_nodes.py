"""Whole nodes on a real chain: a tenant without any bitcoin node of its own, a provider without one, and a tenant that
has lost everything but its words. The machine and the market are fakes; coins, keys, blocks and peers are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bitcoin.light import Light, LightWorld, until
from bitcoin.node import Node, RegtestWorld
from daemon.nodes import BUSY, POLICY, Peer, World
from devtools.localmarket import NodeProcess
from devtools.shell import wait_until
from dockage.adapters.secp import ChannelKeys, Secp
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.adapters.system.clock import SystemClock
from dockage.daemon import light as purse
from dockage.daemon.config import Bitcoin, ChannelLimits, Config
from dockage.daemon.config import Node as NodeConfig
from dockage.daemon.rail import Rail
from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.pricing import Tariff
from dockage.domain.units import Sat
from dockage.node import events as told
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.tx import parse
from dockage.protocol.channel_note import encode_note

COINS, CAPACITY, SETUP = 100_000, 40_000, 330
QUICK = Config(
    node=NodeConfig(stamp_bits=0),
    bitcoin=Bitcoin(network="regtest", poll_sec=0.1),
    channel=ChannelLimits(hours=1, largest_sat=CAPACITY),
)
DEAR = msgspec.structs.replace(POLICY, tariff=Tariff(cpu_hour=3_600_000_000))
"""A thousand satoshis a second: two ticks are worth a close."""


@pytest.fixture
async def lights(bitcoind: Node, tmp_path: Path) -> AsyncIterator[LightWorld]:
    async with LightWorld(bitcoind, tmp_path) as world:
        yield world


@pytest.fixture
async def full(bitcoind: Node) -> AsyncIterator[RegtestWorld]:
    world = RegtestWorld(bitcoind)
    yield world
    await world.close()


@pytest.fixture
async def world(lights: LightWorld, full: RegtestWorld) -> AsyncIterator[World]:
    """Over before its chains are."""
    async with World(SystemClock()) as world:
        yield world


async def mined_until(node: Node, done: Callable[[], Any], seconds: float = 30) -> None:
    """A block whenever something waits for one, as miners do."""
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.05)
            if node.rpc("getmempoolinfo")["size"]:
                node.mine()


def is_sent(node: Node, channel: Channel) -> bool:
    """Whether its newest close or refund waits for a block."""
    return bool(channel.spending) and channel.spending[-1].txid in node.rpc("getrawmempool")


async def bury(node: Node, light: Light) -> None:
    for _ in range(6):
        node.mine()
        await light.follow(node)


async def rented(world: World, node: Node, provider: Peer, tenant: Peer) -> None:
    renting = world.spawn(tenant.rent())
    await mined_until(node, renting.done)
    provider.host.start(renting.result(), "busy", BUSY)
    await until(lambda: provider.earning.paid >= 2_000)
    await tenant.node.renting.release(renting.result())


async def worth(wallet: Any) -> int:
    balance = await wallet.balance()
    return balance.confirmed + balance.pending


async def test_a_tenant_without_a_node_rents_pays_and_gets_its_change_back(
    world: World, lights: LightWorld, full: RegtestWorld
) -> None:
    light, node = lights.lights[0], lights.node
    await lights.wallet(Sat(COINS))
    purse_ = await full.wallet()
    provider = await world.provider(policy=DEAR, config=QUICK, purse=(full.chain, purse_))
    tenant = await world.tenant(config=QUICK, purse=(light.chain, light.wallet))
    await rented(world, node, provider, tenant)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: is_sent(node, provider.earning))
    await bury(node, light)
    await until(lambda: tenant.paying.state is provider.earning.state is ChannelState.CLOSED)
    paying, earning = tenant.paying, provider.earning
    assert (
        paying.paid == earning.paid == provider.sold(next(iter(tenant.node.tenant.state.leases))).due // 1000
    )
    assert await worth(light.wallet) == COINS - paying.funding_fee - paying.paid
    assert await worth(purse_) == earning.paid - earning.spending[-1].fee
    assert tenant.node.reception.refused == provider.node.reception.refused == {}


async def test_a_provider_without_a_node_sees_its_channel_and_closes_it(
    world: World, lights: LightWorld, full: RegtestWorld
) -> None:
    light, node = lights.lights[0], lights.node
    payer = await full.wallet(Sat(COINS))
    policy = msgspec.structs.replace(DEAR, setup_sat=Sat(SETUP))
    provider = await world.provider(policy=policy, config=QUICK, purse=(light.chain, light.wallet))
    tenant = await world.tenant(config=QUICK, purse=(full.chain, payer))
    await rented(world, node, provider, tenant)
    assert await worth(light.wallet) == SETUP
    await provider.node.provider.tell(told.CloseRequested(provider.earning.id))  # type: ignore[union-attr]
    await until(lambda: is_sent(node, provider.earning))
    await bury(node, light)
    await until(lambda: tenant.paying.state is provider.earning.state is ChannelState.CLOSED)
    paying, earning = tenant.paying, provider.earning
    assert paying.paid == earning.paid
    assert await worth(light.wallet) == SETUP + earning.paid - earning.spending[-1].fee
    assert await worth(payer) == COINS - SETUP - paying.funding_fee - paying.paid


# -- all is lost but the words ---------------------------------------------------------------------------
PROVIDER, ID = NodeKey(bytes([5]) * 32), ChannelId(bytes(range(16)))


def rail_of(light: Light) -> Rail:
    curve = Secp()
    return Rail(curve, ChannelKeys(light.node.seed.channels(), curve), light.chain, light.wallet)


async def opened(lights: LightWorld, light: Light, blocks: int) -> Channel:
    """A channel that expires in so many blocks, to a provider that will not be heard of again."""
    rail, curve = rail_of(light), Secp()
    terms = Terms(
        rail.our_key("tenant", ID, PROVIDER),
        curve.pubkey(bytes([9]) * 32),
        await light.chain.height() + blocks,
        Sat(CAPACITY),
        await light.wallet.script(),
    )
    tx = await light.wallet.fund([(funding(terms, curve).script, terms.capacity)], 1000)
    await light.chain.broadcast(tx.raw)
    await lights.mine(1)
    vout = parse(tx.raw).find(funding(terms, curve).script, CAPACITY)
    assert vout is not None
    opened_height = await light.chain.height() - 1
    return Channel(
        *(ID, PROVIDER, terms, ChannelState.OPEN, tx.txid, vout),
        funding_fee=tx.fee,
        opened_height=opened_height,
    )


async def test_words_and_note_bring_the_refund_back(world: World, lights: LightWorld, tmp_path: Path) -> None:
    light, node = lights.lights[0], lights.node
    await lights.wallet(Sat(COINS))
    channel = await opened(lights, light, 4)
    words, note = light.node.seed.words, encode_note(channel)
    await lights.lose(light)

    home = tmp_path / "home"
    saved = purse.restore(home, "regtest", words, "0", [note])
    assert saved.notes == (note,)
    again = await lights.light(purse.seed_path(home))
    # A node of another key: the identity was lost, too.
    tenant = world.peer(
        77,
        config=QUICK,
        purse=(again.chain, again.wallet),
        journal=lambda: SqliteJournal(home / "state.db"),
    )
    tenant.channel_seed = again.node.seed.channels()
    tenant.start()
    await until(lambda: tenant.paying.state is ChannelState.CLOSING)
    for _ in range(4):
        node.mine()
        await again.follow(node)
    await until(lambda: is_sent(node, tenant.paying))
    await bury(node, again)
    await until(lambda: tenant.paying.state is ChannelState.CLOSED)
    refund = tenant.paying.spending[-1]
    assert await worth(again.wallet) == COINS - channel.funding_fee - refund.fee


async def test_what_cannot_be_restored_changes_nothing(lights: LightWorld, tmp_path: Path) -> None:
    light = lights.lights[0]
    rail = rail_of(light)
    terms = Terms(
        rail.our_key("tenant", ID, PROVIDER),
        Secp().pubkey(bytes([9]) * 32),
        900,
        Sat(CAPACITY),
        b"\x51\x20" + bytes(32),
    )
    note = encode_note(Channel(ID, PROVIDER, terms, ChannelState.OPEN, "ab" * 32, 1))
    home = tmp_path / "home"

    def code(*notes: str, words: str = light.node.seed.words) -> str:
        with pytest.raises(UsageError) as caught:
            purse.restore(home, "regtest", words, "0", notes)
        return caught.value.code

    assert (
        code(note[:-5])
        == code(note + "A")
        == code("dockage-channel:1:")
        == code(note.replace("A", "B"))
        == "wallet.channel-note"
    )
    assert code(note, words="abandon " * 11 + "about") == "wallet.other-keys"
    assert not (home / "wallet").exists()
    purse.restore(home, "regtest", light.node.seed.words, "0", [note])
    assert code(note, words="abandon " * 11 + "about") == "wallet.exists"
    assert purse.backup(home).notes == (note,)


# -- the daemon itself -----------------------------------------------------------------------------------
def test_a_daemon_with_a_light_wallet_receives_and_sends(bitcoind: Node, home: Path) -> None:
    config = (
        f'[node]\nbind = "127.0.0.1:0"\n[tenant]\nenabled = false\n[bitcoin]\nnetwork = "regtest"\n'
        f'wallet = "light"\npeers = ["{bitcoind.peer}"]\npoll_sec = 0.2\n'
    )
    process = NodeProcess(home / "node", config)
    purse.make(process.home, "regtest")
    try:
        process.start()
        bitcoind.give(process.ask("POST", "/v1/wallet/receive")["address"], COINS)
        assert wait_until(lambda: process.ask("GET", "/v1/wallet")["confirmed_sat"] == COINS, 20)
        sending = {
            "address": bitcoind.wallet("miner").rpc("getnewaddress", "", "bech32m"),
            "amount_sat": 60_000,
        }
        cost = process.ask("POST", "/v1/wallet/send", {**sending, "preview": True})
        sent = process.ask("POST", "/v1/wallet/send", sending)
        assert (cost["txid"], cost["fee_sat"]) == ("", sent["fee_sat"])
        assert wait_until(lambda: sent["txid"] in bitcoind.rpc("getrawmempool"), 10)
        bitcoind.mine()
        left = COINS - 60_000 - sent["fee_sat"]
        status = process.ask("GET", "/v1/wallet")
        assert (status["wallet"], status["confirmed_sat"], status["pending_sat"]) == ("light", left, 0)
        assert not (process.home / "wallet" / "seed.json").stat().st_mode & 0o077
    finally:
        process.stop()
