"""Two whole nodes: a lease outlives its channel, by money and by time, and no container notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from daemon.nodes import BUSY, POLICY, Peer, World, rent_paid, until
from dockage.daemon.config import Bitcoin, ChannelLimits, Config
from dockage.daemon.config import Node as NodeConfig
from dockage.domain.channel import ChannelState
from dockage.domain.lease import LeaseState
from dockage.domain.units import Sat
from dockage.node import events as told

CLOSED, OPEN = ChannelState.CLOSED, ChannelState.OPEN
COINS = (100_000, 100_000)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def config(**channel: Any) -> Config:
    return Config(
        node=NodeConfig(stamp_bits=0),
        bitcoin=Bitcoin(network="regtest"),
        channel=ChannelLimits(hours=1, **channel),
    )


async def begun(world: World, policy: Any = POLICY, **channel: Any) -> tuple[Peer, Peer, Any]:
    """A lease on a channel that lasts ten minutes."""
    provider = await world.provider(policy=policy)
    tenant = await world.tenant(coins=COINS, config=config(largest_sat=4_000, **channel))
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    return provider, tenant, lease


def paused(provider: Peer) -> list[Any]:
    return [entry for entry in provider.host.log if "pause" in str(entry)]


def channels(peer: Peer) -> list[Any]:
    mind = peer.node.provider or peer.node.tenant
    return list(mind.state.channels.values())


async def assert_moved_on(world: World, provider: Peer, tenant: Peer, lease: Any) -> None:
    """The successor pays, the old one is on the chain, both sides agree, and nothing was ever frozen."""
    await until(lambda: channels(provider)[1].paid > 100)
    assert provider.sold(lease).state is tenant.rented(lease).state is LeaseState.RUNNING
    assert not paused(provider)
    await until(lambda: channels(provider)[0].spending)
    await world.mine(6)
    old, new = channels(provider)
    assert (old.state, new.state) == (CLOSED, OPEN)
    assert channels(tenant)[0].paid == old.paid
    assert len(tenant.node.tenant.state.channels) == 2


async def test_a_channel_that_runs_dry_is_followed_by_another_and_nothing_pauses(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: len(channels(tenant)) == 2 and world.chain.mempool, 600)
    assert provider.earning.state is ChannelState.FUNDED
    await world.mine()
    await until(lambda: channels(provider)[0].remaining == 0, 600)
    await assert_moved_on(world, provider, tenant, lease)
    assert channels(provider)[0].paid == channels(provider)[0].terms.spendable
    due = provider.sold(lease).due // 1000
    assert 0 <= due - sum(c.paid for c in channels(provider)) <= 20
    assert not tenant.node.reception.refused


async def test_a_channel_that_nears_its_expiry_is_followed_by_another(world: World) -> None:
    provider, tenant, lease = await begun(world, expiry_blocks=1000)
    await until(lambda: provider.earning.paid >= 560)  # worth a close
    expiry = provider.earning.terms.expiry_height
    await world.mine(expiry - 360 - (len(world.chain.blocks) - 1))
    await until(lambda: len(channels(provider)) == 2 and world.chain.mempool, 30)
    await world.mine(expiry - 144 - (len(world.chain.blocks) - 1))
    await assert_moved_on(world, provider, tenant, lease)
    assert channels(provider)[1].terms.expiry_height > expiry


async def test_on_credit_the_successor_pays_before_it_confirms(world: World) -> None:
    generous = msgspec.structs.replace(POLICY, credit_sat=Sat(2_000))
    provider, tenant, lease = await begun(world, generous)
    await until(lambda: len(channels(provider)) == 2 and channels(provider)[1].paid >= 600, 700)
    assert channels(provider)[1].state is ChannelState.FUNDED
    assert provider.sold(lease).state is LeaseState.RUNNING
    await world.mine()
    await assert_moved_on(world, provider, tenant, lease)


async def test_without_credit_containers_wait_frozen_for_the_confirmation_and_go_on(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: provider.sold(lease).state is LeaseState.PAUSED, 700)
    assert provider.sold(lease).reason.code == "channel.credit-used"
    held = provider.sold(lease).due
    await until(lambda: tenant.rented(lease).state is LeaseState.PAUSED, 5)
    assert not await _ends(provider, lease, 120)  # longer than the grace: the money is on its way
    assert provider.sold(lease).due - held <= 20_000
    await world.mine()
    await until(lambda: provider.sold(lease).state is LeaseState.RUNNING, 10)
    await until(lambda: channels(provider)[1].paid > 100)
    await until(lambda: not provider.host.is_paused(lease), 5)


async def _ends(provider: Peer, lease: Any, seconds: float) -> bool:
    try:
        await until(lambda: provider.sold(lease).is_over, seconds)
    except TimeoutError:
        return False
    return True


async def test_an_empty_wallet_ends_the_lease_with_the_reason_and_pays_what_was_used(world: World) -> None:
    provider = await world.provider()
    tenant = await world.tenant(coins=(7_000,), config=config(largest_sat=4_000))
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: tenant.rented(lease).is_over, 700)
    assert tenant.rented(lease).reason.code == "channel.exhausted"
    assert "the wallet has" in tenant.rented(lease).reason.text
    assert len(channels(tenant)) == 1
    await until(lambda: provider.earning.state is ChannelState.CLOSING)  # used up, and nobody is left on it
    await world.mine(6)
    assert provider.earning.state is CLOSED


async def test_where_the_user_wants_no_refill_the_lease_ends_with_its_channel(world: World) -> None:
    provider, tenant, lease = await begun(world, refill=False)
    await until(lambda: tenant.rented(lease).is_over, 700)
    assert tenant.rented(lease).reason.code == "channel.exhausted"
    assert len(channels(provider)) == 1


async def test_fees_that_rose_enlarge_the_successor_or_refuse_it(world: World) -> None:
    provider, tenant, lease = await begun(world)
    world.chain.rate = 5_000  # 1,795 sat for open and close: 17,950 would pass
    await until(lambda: tenant.node.tenant.state.refills, 600)
    await until(lambda: any(r.hindrance for r in tenant.node.tenant.state.refills.values()))
    (refill,) = tenant.node.tenant.state.refills.values()
    assert refill.hindrance is not None
    assert refill.hindrance.code == "channel.small"
    assert "17950" in refill.hindrance.text
    world.chain.rate = 1_100  # 395 sat: 3,950 pass
    await until(lambda: len(channels(provider)) == 2, 120)
    assert channels(provider)[1].terms.capacity == 4_000
    assert tenant.rented(lease).state is LeaseState.RUNNING


async def test_both_are_restarted_while_the_successor_is_being_opened(world: World) -> None:
    provider, tenant, lease = await begun(world)
    await until(lambda: len(channels(tenant)) == 2, 600)
    await tenant.restart()
    await provider.restart()
    await until(lambda: world.chain.mempool, 60)
    await world.mine()
    await until(lambda: channels(provider)[0].remaining == 0, 600)
    await until(lambda: channels(provider)[1].paid >= 560)
    assert provider.sold(lease).state is tenant.rented(lease).state is LeaseState.RUNNING
    await tenant.node.renting.release(lease)
    for channel in channels(tenant):
        await tenant.node.tenant.tell(told.CloseRequested(channel.id))
    await until(lambda: all(c.spending for c in channels(provider)), 60)
    await world.mine(6)
    assert {c.state for c in channels(provider)} == {c.state for c in channels(tenant)} == {CLOSED}
    assert sum(c.paid for c in channels(provider)) == provider.sold(lease).due // 1000
