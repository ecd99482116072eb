"""What the chain shows reaches the minds: funding that comes, deepens, is wrong, vanishes; closes; expiries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import BUSY, CONFIG, Peer, World, assert_settled, rent_paid, until
from dockage.adapters.secp.btclib import Secp
from dockage.daemon import chainwatch
from dockage.daemon.chainwatch import ChainWatch
from dockage.daemon.config import Bitcoin, ChannelLimits, Config
from dockage.daemon.config import Node as NodeConfig
from dockage.domain.channel import Channel, ChannelState, Terms
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.pricing import Tariff
from dockage.domain.resources import Resources
from dockage.domain.units import SECOND, Sat
from dockage.node import events as told
from dockage.node.policy import ProviderPolicy
from dockage.node.provider import Provider
from dockage.node.table import Table
from dockage.node.tenant import Tenant
from dockage.ports.chain import ChainTx, Outpoint
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.tx import TxOut, parse
from dockage.testing.loop import LoopClock

OPENING, FUNDED, OPEN = ChannelState.OPENING, ChannelState.FUNDED, ChannelState.OPEN
CLOSED, ABANDONED, REFUNDING = ChannelState.CLOSED, ChannelState.ABANDONED, ChannelState.REFUNDING
ME = NodeKey(b"m" * 32)
PROVIDER_POLICY = ProviderPolicy(Tariff(), Resources())
POLLS = 2 * CONFIG.bitcoin.poll_sec + 0.5


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def announced(world: World, **how: Any) -> tuple[Peer, Peer, asyncio.Task[Any]]:
    """A channel whose funding waits in the mempool, and the tenant that waits for it."""
    provider, tenant = await world.provider(), await world.tenant(**how)
    renting = world.spawn(rent(tenant))
    await until(lambda: provider.node.provider.state.channels and provider.earning.state is FUNDED)  # type: ignore[union-attr]
    return provider, tenant, renting


async def rent(tenant: Peer) -> Any:
    try:
        return await tenant.rent()
    except Exception as error:  # what a user is shown
        return error


async def begun(world: World) -> tuple[Peer, Peer, Any]:
    provider, tenant = await world.provider(), await world.tenant()
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 560)
    return provider, tenant, lease


# -- funding -------------------------------------------------------------------------------------------
async def test_a_funding_is_waited_for_until_it_is_deep_enough(world: World) -> None:
    provider, tenant, renting = await announced(world)
    await asyncio.sleep(3 * POLLS)
    assert provider.earning.state is tenant.paying.state is FUNDED
    assert not renting.done()
    await world.mine()
    assert provider.earning.state is tenant.paying.state is OPEN
    assert tenant.rented(await renting).state is LeaseState.RUNNING


async def test_a_larger_channel_waits_for_more_confirmations(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant(coins=(200_000,))
    renting = world.spawn(tenant.rent(channel_sat="60000"))
    await until(lambda: world.chain.mempool)
    for confirmations in (1, 2):
        await world.mine()
        assert (provider.earning.state, provider.earning.confirmations) == (FUNDED, confirmations)
    await world.mine()
    assert provider.earning.state is OPEN
    assert tenant.rented(await renting).state is LeaseState.RUNNING


def fund_otherwise(peer: Peer, *, value: int = 0, script: bytes = b"") -> None:
    """From now on the wallet's transactions pay something else; the lie is the tenant's own."""
    inner = peer.wallet.fund

    async def fund(outputs: Any, feerate: int) -> ChainTx:
        ((to, amount),) = outputs
        return await inner([(script or to, Sat(amount + value))], feerate)

    peer.wallet.fund = fund  # type: ignore[method-assign]
    rail: Any = peer.node.rail

    async def funded(opening: Any) -> told.FundingBuilt:
        ((channel, terms),) = opening.items()
        tx = await fund([(rail_script(peer, terms), terms.capacity)], 1000)
        return told.FundingBuilt(channel, tx.txid, 0, tx.raw, tx.fee)

    rail.fund = funded
    rail.check_funding = lambda *_: None


def rail_script(peer: Peer, terms: Any) -> bytes:
    return funding(terms, Secp()).script


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ({"value": -1000}, "channel.value"),
        ({"value": 5}, "channel.value"),
        ({"script": b"\x51\x20" + bytes(32)}, "channel.script"),
    ],
)
async def test_a_funding_of_another_value_or_script_opens_nothing(world: World, lie: Any, code: str) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    fund_otherwise(tenant, **lie)
    renting = world.spawn(rent(tenant))
    await until(lambda: world.chain.mempool)
    await world.mine()
    await until(lambda: provider.earning.state is ABANDONED)
    assert provider.earning.reason.code == code
    renting.cancel()


async def double_spend(world: World, tenant: Peer) -> None:
    """The funding's coins go elsewhere, at a fee that no miner refuses."""
    theirs = parse(tenant.paying.funding_raw)
    cost = sum(out.value for out in theirs.outputs) - 20_000
    tx = theirs._replace(outputs=(TxOut(cost, tenant.wallet._fresh()),))
    await world.chain.broadcast(tx.encode())
    assert tenant.paying.txid not in world.chain.mempool


async def test_a_double_spent_funding_is_given_up_after_an_hour_and_never_served(world: World) -> None:
    provider, tenant, renting = await announced(world)
    await double_spend(world, tenant)
    await world.mine(3)
    assert provider.earning.state is FUNDED  # it may still be on its way to us
    await asyncio.sleep(3700)
    assert provider.earning.state is tenant.paying.state is ABANDONED
    assert provider.earning.reason.code == tenant.paying.reason.code == "channel.funding-lost"
    assert not provider.host.log
    assert isinstance(await renting, UsageError)


class OneFunding:
    """A chain that knows no funding, and a mind with one channel on it; both notes the events it is told."""

    sees_mempool = True

    def __init__(self, role: type, opened: Channel) -> None:
        self.state = role(PROVIDER_POLICY if role is Provider else ME, channels=Table([opened]))
        self.told: list[Any] = []

    async def post(self, event: Any) -> None:
        self.told += [event] if isinstance(event, told.FundingGone) else []


class EmptyChain:
    sees_mempool = True

    async def height(self) -> int:
        return 100

    async def nothing(self, *_: Any) -> None:
        return None

    coin = spender = depth = nothing


async def test_a_missing_funding_is_timed_for_each_role_although_a_peer_gave_both_channels_one_id() -> None:
    """Else the channel on which we are paid would be given up as early as the one that we pay on."""
    opened = Channel(
        ChannelId(bytes(16)),
        ME,
        Terms(b"T" * 33, b"P" * 33, 5000, Sat(9000), b"script"),
        state=FUNDED,
        txid="ab" * 32,
    )
    paying, earning = OneFunding(Tenant, opened), OneFunding(Provider, opened)
    minds: Any = [paying]
    rail: Any = SimpleNamespace(silence=None, chain=EmptyChain())
    watch = ChainWatch(rail, minds, LoopClock())
    await watch.poll()
    await asyncio.sleep(1800)
    minds.append(earning)
    await watch.poll()
    await asyncio.sleep(1801)
    await watch.poll()
    assert [len(mind.told) for mind in minds] == [1, 0]
    await asyncio.sleep(1800)
    await watch.poll()
    assert len(earning.told) == 1


async def test_an_output_that_was_spent_before_it_was_announced_is_given_up_like_an_invented_one() -> None:
    """Its transaction is known for ever. Else anybody could take every place for new channels, for half a year."""
    terms = Terms(b"T" * 33, b"P" * 33, 5000, Sat(9000), b"script")
    announced = Channel(ChannelId(bytes(16)), ME, terms, state=FUNDED, txid="ab" * 32)
    mind = OneFunding(Provider, announced)
    chain = EmptyChain()
    chain.depth = deep  # type: ignore[method-assign]
    minds, rail = [mind], SimpleNamespace(silence=None, chain=chain)
    watch = ChainWatch(rail, minds, LoopClock())  # type: ignore[arg-type]
    await watch.poll()
    await asyncio.sleep(3601)
    await watch.poll()
    assert [event.reason.code for event in mind.told] == ["channel.funding-lost"]
    seen = OneFunding(Provider, replace(announced, seen=True))
    minds[:] = [seen]
    for _ in range(3):
        await watch.poll()
        await asyncio.sleep(3601)
    assert seen.told == []


async def deep(_: str) -> int:
    return 700


async def test_a_channel_that_can_not_be_looked_at_keeps_no_other_from_it() -> None:
    terms = Terms(b"T" * 33, b"P" * 33, 5000, Sat(9000), b"script")
    first, second = (
        Channel(ChannelId(bytes([n]) * 16), ME, terms, state=FUNDED, txid=f"{n:02x}" * 32) for n in (1, 2)
    )
    mind = OneFunding(Provider, first)
    mind.state = replace(mind.state, channels=Table([first, second]))
    chain, looked = EmptyChain(), list[str]()

    async def coin(outpoint: Outpoint) -> None:
        looked.append(outpoint.txid)
        if outpoint.txid == first.txid:
            raise Unavailable("chain.pruned", "a block of long ago is gone")

    chain.coin = coin  # type: ignore[method-assign, assignment]
    watch = ChainWatch(SimpleNamespace(silence=None, chain=chain), [mind], LoopClock())  # type: ignore[arg-type, list-item]
    for _ in range(2):
        with pytest.raises(Unavailable):
            await watch.poll()
    assert looked == [first.txid, second.txid] * 2


async def test_a_reorganisation_un_opens_a_channel_and_it_opens_again(world: World) -> None:
    provider, tenant, _ = await begun(world)
    world.chain.reorganise(len(world.chain.blocks) - 1 - provider.earning.opened_height - 6 + 3)
    await until(lambda: provider.earning.state is FUNDED and tenant.paying.state is FUNDED)
    await world.mine()
    assert provider.earning.state is tenant.paying.state is OPEN


async def test_a_funding_that_a_reorganisation_lost_is_worth_our_credit_only_and_at_once(
    world: World,
) -> None:
    provider, tenant, lease = await begun(world)
    tenant_wallet_quiet(tenant)
    world.chain.reorganise(5)
    world.chain.evict(provider.earning.txid)
    await double_spend_confirmed(world, tenant)
    await until(lambda: provider.earning.state is FUNDED, POLLS)
    assert provider.earning.confirmations == 0
    await until(lambda: provider.sold(lease).state is LeaseState.PAUSED, 15)


async def test_a_funding_that_was_given_up_and_comes_after_all_is_worth_what_was_signed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chainwatch, "MISSING_MAX", 60 * SECOND)
    provider, tenant, _ = await begun(world)
    honest = tenant.node.rail.chain  # type: ignore[union-attr]
    tenant_wallet_quiet(tenant)
    world.chain.reorganise(5)
    world.chain.evict(provider.earning.txid)
    await until(lambda: provider.earning.state is tenant.paying.state is ABANDONED)
    paid = provider.earning.paid
    assert paid >= 560
    tenant.node.rail.chain = honest  # type: ignore[union-attr]
    await world.chain.broadcast(tenant.paying.funding_raw)
    await world.mine()
    assert provider.earning.state is tenant.paying.state is OPEN
    assert provider.earning.paid == paid
    await provider.node.provider.tell(told.CloseRequested(provider.earning.id))  # type: ignore[union-attr]
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    await assert_settled(tenant, provider, 100_000)


def tenant_wallet_quiet(tenant: Peer) -> None:
    """It does not broadcast its funding again: it is the thief."""
    rail: Any = tenant.node.rail

    class Mute:
        def __getattr__(self, name: str) -> Any:
            return getattr(tenant.world.chain, name)

        async def broadcast(self, raw: bytes) -> str:
            return parse(raw).txid

    rail.chain = Mute()


async def double_spend_confirmed(world: World, tenant: Peer) -> None:
    await double_spend(world, tenant)
    world.chain.mine()


# -- a node that does not answer -----------------------------------------------------------------------
class Outage:
    """The chain's node is down while ``down``; each call may also be the one that fails."""

    def __init__(self, chain: Any) -> None:
        self._chain, self.down, self.failing = chain, False, ""

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._chain, name)

        async def call(*arguments: Any) -> Any:
            if self.down or name == self.failing:
                raise Unavailable("chain.unreachable", "the node is down")
            return await inner(*arguments)

        return call


def outage_of(peer: Peer) -> Outage:
    rail: Any = peer.node.rail
    rail.chain = outage = Outage(rail.chain)
    return outage


async def test_an_unreachable_chain_changes_nothing_and_heals(world: World) -> None:
    provider, tenant, renting = await announced(world)
    outage = outage_of(provider)
    outage.down = True
    await world.mine(3)
    assert provider.earning.state is FUNDED
    assert tenant.paying.state is OPEN
    outage.down = False
    await asyncio.sleep(POLLS)
    assert provider.earning.state is OPEN
    assert tenant.rented(await renting).state is LeaseState.RUNNING


async def test_a_lease_goes_on_without_the_chain(world: World) -> None:
    provider, tenant, lease = await begun(world)
    for peer in (provider, tenant):
        outage_of(peer).down = True
    before = provider.earning.paid
    await until(lambda: provider.earning.paid > before + 300)
    assert provider.sold(lease).state is LeaseState.RUNNING


async def test_a_block_that_was_only_looked_at_in_part_is_looked_at_again(world: World) -> None:
    provider, _, _ = await begun(world)
    outage = outage_of(provider)
    outage.failing = "coin"
    depth = provider.earning.confirmations
    await world.mine()
    assert provider.earning.confirmations == depth
    outage.failing = ""
    await asyncio.sleep(POLLS)  # no new block in this time
    assert provider.earning.confirmations == depth + 1


async def test_a_close_that_could_not_be_sent_is_sent_when_the_chain_is_back(world: World) -> None:
    provider, tenant, lease = await begun(world)
    outage = outage_of(provider)
    await tenant.node.renting.release(lease)
    outage.down = True
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await asyncio.sleep(5 * POLLS)
    assert not world.chain.mempool
    outage.down = False
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    await assert_settled(tenant, provider, 100_000)


# -- the end -------------------------------------------------------------------------------------------
async def test_a_close_is_seen_by_both_and_history_after_six_blocks(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await tenant.node.renting.release(lease)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: world.chain.mempool)
    await world.mine(1)
    assert provider.earning.settled_txid == tenant.paying.settled_txid == provider.earning.spending[-1].txid
    assert provider.earning.state is tenant.paying.state is ChannelState.CLOSING
    await world.mine(5)
    assert provider.earning.state is tenant.paying.state is CLOSED


async def test_a_close_that_a_reorganisation_took_back_is_sent_again(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await tenant.node.renting.release(lease)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: world.chain.mempool)
    await world.mine(2)
    world.chain.reorganise(2)
    world.chain.evict(provider.earning.settled_txid)
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    await assert_settled(tenant, provider, 100_000)


async def test_a_close_that_a_reorganisation_took_from_a_vanished_provider_leaves_the_refund(
    world: World,
) -> None:
    provider, tenant = await world.provider(), await world.tenant(config=SHORT)
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 560)
    await tenant.node.renting.release(lease)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: world.chain.mempool)
    await world.mine(2)
    assert tenant.paying.settled_txid
    await provider.stop()
    lost = tenant.paying.settled_txid
    world.chain.reorganise(2)
    await until(lambda: not tenant.paying.settled_txid)  # it waits again
    world.chain.evict(lost)
    await world.mine(tenant.paying.terms.expiry_height - len(world.chain.blocks) + 2)
    await until(lambda: tenant.paying.state is REFUNDING and world.chain.mempool)
    await world.mine(6)
    assert tenant.paying.state is CLOSED
    assert await tenant.worth() == 100_000 - tenant.paying.funding_fee - tenant.paying.spending[-1].fee


SHORT = Config(
    node=NodeConfig(stamp_bits=0),
    bitcoin=Bitcoin(network="regtest"),
    channel=ChannelLimits(hours=1, expiry_blocks=440, refill=False),
)


async def test_the_provider_closes_a_day_before_the_expiry(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant(config=SHORT)
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 560)
    expiry, height = provider.earning.terms.expiry_height, len(world.chain.blocks) - 1
    await world.mine(expiry - 288 - height)
    await until(lambda: provider.sold(lease).is_over, 60)
    assert provider.sold(lease).reason.code == "channel.expiring"
    assert not world.chain.mempool
    await world.mine(144)
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    await assert_settled(tenant, provider, 100_000)


async def test_after_the_expiry_the_tenant_of_a_vanished_provider_gets_everything_back(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant(config=SHORT)
    lease = await rent_paid(world, tenant)
    await provider.stop()
    await world.mine(tenant.paying.terms.expiry_height - len(world.chain.blocks))
    assert not world.chain.mempool
    await world.mine(2)
    await until(lambda: tenant.paying.state is REFUNDING)
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    assert tenant.paying.state is CLOSED
    refund = tenant.paying.spending[-1]
    assert await tenant.worth() == 100_000 - tenant.paying.funding_fee - refund.fee
    await until(lambda: tenant.rented(lease).is_over, 700)  # silence_max


async def test_a_tenant_that_never_paid_gets_everything_back_at_once(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    lease = await rent_paid(world, tenant)
    before = await tenant.worth()
    await tenant.node.renting.release(lease)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await until(lambda: world.chain.mempool)
    assert tenant.paying.reason.code == "channel.nothing-paid"
    await world.mine(6)
    assert tenant.paying.state is provider.earning.state is CLOSED
    assert await tenant.worth() == before + tenant.paying.terms.capacity - 111
    assert await provider.worth() == 0


async def test_a_tenant_that_never_paid_gets_everything_back_after_the_expiry_without_the_provider(
    world: World,
) -> None:
    provider, tenant = await world.provider(), await world.tenant(config=SHORT)
    lease = await rent_paid(world, tenant)
    await tenant.node.renting.release(lease)
    await provider.stop()
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await world.mine(441)
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    assert tenant.paying.state is CLOSED


async def test_the_fundings_coins_are_free_again_when_the_channel_was_given_up_meanwhile(
    world: World,
) -> None:
    await world.provider()
    tenant = await world.tenant()
    rail: Any = tenant.node.rail
    inner = rail.fund

    async def slow(opening: Any) -> Any:
        await asyncio.sleep(3)
        return await inner(opening)

    rail.fund = slow
    renting = world.spawn(rent(tenant))
    await until(lambda: tenant.node.tenant.state.channels and tenant.paying.terms.provider_key)
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))
    await asyncio.sleep(5)
    assert tenant.paying.state is ABANDONED
    assert not world.chain.mempool
    assert not tenant.wallet._locked
    renting.cancel()
