"""Nodes whose wallet is a light client: what they cannot see must cost nobody. On its fake, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from daemon.nodes import (
    BUSY,
    POLICY,
    Peer,
    World,
    close_and_bury,
    rent_paid,
    until,
)
from dockage.daemon import chainwatch
from dockage.domain.channel import ChannelState
from dockage.domain.errors import UsageError
from dockage.domain.units import SECOND, Sat
from dockage.protocol.bitcoin.tx import parse

COINS = 100_000
SETUP = 330
LIGHT_POLICY = msgspec.structs.replace(POLICY, setup_sat=Sat(SETUP))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def begun(world: World, *, provider_is_light: bool = True, tenant_is_light: bool = True) -> list[Peer]:
    policy = LIGHT_POLICY if provider_is_light else POLICY
    provider = await world.provider(policy=policy, light=provider_is_light)
    tenant = await world.tenant(coins=(COINS,), light=tenant_is_light)
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 600)
    return [provider, tenant]


@pytest.mark.parametrize(
    ("provider_is_light", "tenant_is_light"), [(True, True), (True, False), (False, True)]
)
async def test_a_lease_is_paid_and_settled_to_the_satoshi(
    world: World, provider_is_light: bool, tenant_is_light: bool
) -> None:
    provider, tenant = await begun(
        world, provider_is_light=provider_is_light, tenant_is_light=tenant_is_light
    )
    setup = SETUP if provider_is_light else 0
    await tenant.node.renting.release(next(iter(tenant.node.tenant.state.leases)))
    await close_and_bury(world, tenant, provider)
    paying, earning = tenant.paying, provider.earning
    assert paying.state is earning.state is ChannelState.CLOSED
    assert paying.paid == earning.paid
    assert await provider.worth() == setup + earning.paid - earning.spending[-1].fee
    assert await tenant.worth() == COINS - setup - paying.funding_fee - paying.paid
    assert tenant.node.reception.refused == provider.node.reception.refused == {}


async def test_a_funding_without_the_setup_output_is_never_seen_and_never_served(world: World) -> None:
    """A tenant that keeps the 330 sat keeps the provider blind: its loss."""
    provider = await world.provider(policy=LIGHT_POLICY, light=True)
    tenant = await world.tenant(coins=(COINS,))
    fund = tenant.wallet.fund
    tenant.wallet.fund = lambda outputs, feerate: fund(outputs[:1], feerate)
    renting = world.spawn(refused(tenant))
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    await asyncio.sleep(60)
    assert tenant.paying.state is ChannelState.OPEN
    assert (provider.earning.state, provider.earning.seen) == (ChannelState.FUNDED, False)
    assert not provider.host.log
    assert isinstance(await renting, UsageError)


async def refused(tenant: Peer) -> object:
    try:
        return await tenant.rent()
    except UsageError as error:
        return error


@pytest.fixture
def short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chainwatch, "MISSING_MAX", 60 * SECOND)
    monkeypatch.setattr(chainwatch, "UNSEEN_MAX", 600 * SECOND)


@pytest.mark.usefixtures("short_days")
async def test_a_funding_in_the_mempool_earns_no_credit_and_is_waited_for_a_day(world: World) -> None:
    credit = msgspec.structs.replace(LIGHT_POLICY, credit_sat=Sat(100))
    provider = await world.provider(policy=credit, light=True)
    tenant = await world.tenant(coins=(COINS,))
    renting = world.spawn(refused(tenant))
    await until(lambda: world.chain.mempool)
    await asyncio.sleep(500)
    assert (provider.earning.state, provider.earning.seen) == (ChannelState.FUNDED, False)
    await world.mine(1)
    assert provider.earning.state is ChannelState.OPEN
    renting.cancel()


@pytest.mark.usefixtures("short_days")
async def test_a_double_spend_that_a_light_provider_cannot_see_is_given_up_after_a_day(world: World) -> None:
    provider = await world.provider(policy=LIGHT_POLICY, light=True)
    tenant = await world.tenant(coins=(COINS,))
    renting = world.spawn(refused(tenant))
    await until(lambda: world.chain.mempool)
    (txid,) = world.chain.mempool
    world.chain.evict(txid)
    tenant.wallet._locked.clear()
    spent = await tenant.wallet.send(await tenant.wallet.receive(), Sat(50_000), 9000)
    await world.mine(1)
    assert await world.chain.depth(spent.txid) == 1
    await asyncio.sleep(620)
    assert provider.earning.state is ChannelState.ABANDONED
    assert provider.earning.reason.code == "channel.funding-lost"
    assert not provider.host.log
    renting.cancel()


async def test_a_reorganisation_takes_a_funding_that_only_blocks_had_shown(world: World) -> None:
    provider, _ = await begun(world)
    world.chain.reorganise(len(world.chain.blocks) - 1 - provider.earning.opened_height - 6 + 3)
    await until(lambda: provider.earning.state is ChannelState.FUNDED and not provider.earning.seen)
    await world.mine()
    assert provider.earning.state is ChannelState.OPEN


async def test_the_tenant_takes_everything_back_and_a_light_provider_that_overslept_understands(
    world: World,
) -> None:
    provider, tenant = await begun(world)
    await tenant.node.renting.release(next(iter(tenant.node.tenant.state.leases)))
    paid, expiry = provider.earning.paid, provider.earning.terms.expiry_height
    await provider.stop()
    await world.mine(expiry - len(world.chain.blocks) + 1)
    await until(lambda: tenant.paying.state is ChannelState.REFUNDING and world.chain.mempool)
    await world.mine(6)
    assert tenant.paying.state is ChannelState.CLOSED
    refund = tenant.paying.spending[-1]
    assert await tenant.worth() == COINS - SETUP - tenant.paying.funding_fee - refund.fee
    provider.start()
    await asyncio.sleep(30)
    assert not provider.earning.is_over
    assert provider.earning.paid == paid
    await world.mine(150)
    assert (provider.earning.state, provider.earning.reason.code) == (
        ChannelState.ABANDONED,
        "channel.taken-back",
    )


async def test_a_light_provider_closes_a_day_before_the_expiry_by_itself(world: World) -> None:
    provider, tenant = await begun(world)
    expiry = provider.earning.terms.expiry_height
    await world.mine(expiry - 144 - len(world.chain.blocks) + 1)
    await until(lambda: provider.earning.spending and world.chain.mempool)
    close = parse(provider.earning.spending[-1].raw)
    assert any(provider.wallet.owns(out.script) for out in close.outputs)
    await world.mine(6)
    assert provider.earning.state is tenant.paying.state is ChannelState.CLOSED
