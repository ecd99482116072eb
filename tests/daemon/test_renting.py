"""What a user sees when renting: every way in which nothing comes of it says why and what would help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from daemon.nodes import BUSY, CONFIG, FREE_POLICY, NEED, POLICY, World, funded_by_mining, rent_paid, until
from dockage.daemon.config import ChannelLimits
from dockage.daemon.driver import PACE_SEC
from dockage.daemon.market import explain
from dockage.domain.channel import ChannelState
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Wish
from dockage.domain.pricing import Tariff
from dockage.domain.query import Excerpt, Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB
from dockage.ports.peers import Directory
from dockage.protocol.records import offers_topics
from dockage.testing.host import FakeContainer, echo

DEARER = msgspec.structs.replace(POLICY, tariff=Tariff(cpu_hour=37_000_000))
HUGE = Resources(64_000, 1 << 40, 1 << 40)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def refusal(renting: Any) -> DockageError:
    with pytest.raises(DockageError) as caught:
        await renting
    return caught.value


# -- nothing fits --------------------------------------------------------------------------------------
async def test_an_empty_market_says_that_it_is_empty(world: World) -> None:
    tenant = await world.tenant()
    error = await refusal(tenant.rent())
    assert error.code == "market.nothing-fits"
    assert "no offer on the market at all" in error.message
    assert explain((), Wish(tenant.keys.node, NEED, region="mars")).startswith(
        "there is no offer in region mars"
    )


class Mute:
    """A board that does not answer the first *times*."""

    def __init__(self, board: Directory, times: int) -> None:
        self._board, self.times = board, times
        self.publish = board.publish

    async def search(self, topic: bytes) -> Sequence[bytes]:
        self._be_silent()
        return await self._board.search(topic)

    async def select(self, topic: bytes, query: Query) -> Excerpt:
        self._be_silent()
        return await self._board.select(topic, query)

    def _be_silent(self) -> None:
        if self.times:
            self.times -= 1
            raise Unavailable("market.unreachable", "no market node answers")


async def test_a_market_that_is_silent_for_a_moment_is_asked_again(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant()
    market, said = tenant.node.market, list[str]()
    market._directory = Mute(market._directory, 3 * len(offers_topics("earth")))
    lease = await tenant.node.renting.obtain("web", NEED, {"dockage.region": "earth"}, said.append)
    assert lease.provider == provider.keys.node
    assert sum("asked again" in line for line in said) == 3


async def test_a_market_that_stays_silent_is_told_as_such_in_under_a_minute(world: World) -> None:
    tenant = await world.tenant()
    tenant.node.market._directory = Mute(tenant.node.market._directory, 1_000_000)
    began = asyncio.get_running_loop().time()
    error = await refusal(tenant.rent())
    assert error.code == "market.unreachable"
    assert 30 < asyncio.get_running_loop().time() - began < 60


async def test_nothing_fits_names_the_nearest_offer_and_what_stands_in_the_way(world: World) -> None:
    provider = await world.provider()
    tenant = await world.tenant()
    error = await refusal(tenant.rent(need=HUGE))
    assert error.code == "market.nothing-fits"
    for word in (provider.keys.node.hex()[:8], "4 cores", "4096 MiB of memory", "40960 MiB of disk"):
        assert word in error.message
    error = await refusal(tenant.rent(max_price="1"))
    assert "costs up to" in error.message
    error = await refusal(tenant.rent(region="moon"))
    assert "no offer" in error.message
    error = await refusal(tenant.rent(isolation="vm"))
    assert "isolation is only container" in error.message
    assert not tenant.node.tenant.state.leases


async def test_an_unknown_or_senseless_label_is_refused_before_anybody_is_asked(world: World) -> None:
    tenant = await world.tenant()
    for labels, code in (({"colour": "red"}, "label.unknown"), ({"max_price": "-1"}, "label.number")):
        assert (await refusal(tenant.rent(**labels))).code == code


async def test_a_provider_may_be_named_by_the_beginning_of_its_key(world: World) -> None:
    cheap, dear = await world.provider(1), await world.provider(3, DEARER)
    tenant = await world.tenant()
    lease = await rent_paid(world, tenant, "dear", provider=dear.keys.node.hex()[:6].upper())
    assert tenant.rented(lease).provider == dear.keys.node
    error = await refusal(tenant.rent("none", provider="00000000"))
    assert "no offer of a provider 00000000" in error.message
    error = await refusal(tenant.rent("cheap", need=HUGE, provider=cheap.keys.node.hex()[:6]))
    assert "4 cores" in error.message  # why this one does not fit, not only that it does not


# -- money ---------------------------------------------------------------------------------------------
async def test_an_empty_wallet_says_what_is_missing(world: World) -> None:
    provider = await world.provider()
    tenant = await world.tenant(coins=(5_000,))
    error = await refusal(tenant.rent())
    assert error.code == "wallet.insufficient"
    assert "31000 sat and the fee are missing" in error.message
    assert not world.chain.mempool
    await until(lambda: provider.earning.state is ChannelState.ABANDONED)  # it need not wait for the funding


async def test_without_a_wallet_only_free_offers_fit(world: World) -> None:
    await world.provider()
    tenant = await world.tenant(
        coins=(), wallet=False, config=msgspec.structs.replace(CONFIG, bitcoin=NO_BITCOIN)
    )
    error = await refusal(tenant.rent())
    assert error.code == "market.nothing-fits"
    assert "your wallet is on no network" in error.message
    free = await world.provider(3, FREE_POLICY)
    lease = await tenant.rent()
    assert tenant.rented(lease).provider == free.keys.node


NO_BITCOIN = msgspec.structs.replace(CONFIG.bitcoin, network="")


async def test_a_channel_too_small_says_the_overhead_and_what_would_pass(world: World) -> None:
    await world.provider()
    tenant = await world.tenant()
    error = await refusal(tenant.rent(channel_sat="1000"))
    assert error.code == "channel.small"
    assert "359 sat" in error.message  # 154 + 205 vB at 1 sat
    assert "at least 3590 sat" in error.message
    lease = await rent_paid(world, tenant, channel_sat="3590")
    assert tenant.rented(lease).state is LeaseState.RUNNING
    assert tenant.paying.terms.capacity == 3590


async def test_fees_so_high_that_the_largest_channel_is_too_small_are_refused_too(world: World) -> None:
    limits = ChannelLimits(hours=1, largest_sat=40_000)
    await world.provider()
    tenant = await world.tenant(config=msgspec.structs.replace(CONFIG, channel=limits))
    world.chain.rate = 20_000
    error = await refusal(tenant.rent())
    assert error.code == "channel.small"
    assert "at least 71800 sat" in error.message


async def test_a_quote_that_is_dearer_in_any_line_than_the_offer_is_not_taken(world: World) -> None:
    bait = await world.provider(3)
    honest = await world.provider(1, DEARER)
    mind: Any = bait.node.provider
    traffic = msgspec.structs.replace(POLICY, tariff=Tariff(cpu_hour=36_000_000, net_out_gib=1 << 40))
    mind.state = mind.newest = type(mind.state)(policy=traffic, height=mind.state.height)
    tenant = await world.tenant()
    lease = await rent_paid(world, tenant)
    assert tenant.rented(lease).provider == honest.keys.node
    assert [reason.code for _, reason in tenant.rented(lease).refusals] == ["quote.dearer"]


@pytest.mark.parametrize("line", ["net_out_gib", "internet_out_gib", "replica_out_gib"])
async def test_an_offer_whose_traffic_would_take_the_channel_at_once_is_nobodys(
    world: World, line: str
) -> None:
    bait = Tariff(**{"cpu_hour": 1, line: 1 << 50})
    await world.provider(3, msgspec.structs.replace(POLICY, tariff=bait))
    honest = await world.provider(1, DEARER)
    tenant = await world.tenant()
    lease = await rent_paid(world, tenant)
    assert tenant.rented(lease).provider == honest.keys.node
    assert tenant.rented(lease).refusals == ()


# -- candidates ----------------------------------------------------------------------------------------
async def test_a_silent_provider_is_left_for_the_next(world: World) -> None:
    silent = await world.provider(3)
    honest = await world.provider(1, DEARER)
    tenant = await world.tenant()
    await silent.stop()
    lease = await rent_paid(world, tenant)
    assert tenant.rented(lease).provider == honest.keys.node
    assert tenant.rented(lease).refusals[0][1].code == "provider.no-answer"


async def test_when_every_candidate_refuses_everybodys_reason_is_told(world: World) -> None:
    full = msgspec.structs.replace(FREE_POLICY, leases_per_tenant=0)
    one, two = await world.provider(1, full), await world.provider(3, full)
    tenant = await world.tenant(coins=(), wallet=False)
    error = await refusal(tenant.rent())
    assert error.code == "provider.too-many-leases"
    assert "before that" in error.message
    assert any(peer.keys.node.hex()[:8] in error.message for peer in (one, two))


# -- giving up -----------------------------------------------------------------------------------------
async def test_ctrl_c_while_the_funding_confirms_ends_the_lease(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    renting = world.spawn(tenant.rent())
    await until(lambda: world.chain.mempool)
    renting.cancel()
    await asyncio.sleep(1)
    (lease,) = tenant.node.tenant.state.leases.values()
    await world.mine()
    assert tenant.rented(lease.id).is_over
    assert tenant.rented(lease.id).reason.code == "lease.cancelled"
    assert await provider.host.present() == frozenset()


async def test_ctrl_c_in_the_very_first_moment_leaves_nothing_running(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    for steps in range(60):
        renting = world.spawn(tenant.rent(f"try-{steps}"))
        for step in range(steps):
            await asyncio.sleep(0 if step % 4 else PACE_SEC)
        renting.cancel()
        done = await asyncio.gather(renting, return_exceptions=True)
        await asyncio.sleep(12)
        if not isinstance(done[0], BaseException):
            break  # it was quicker than our Ctrl-C
        assert all(x.is_over for x in tenant.node.tenant.state.leases.values()), steps
        assert await provider.host.present() == frozenset(), steps
    else:
        pytest.fail("no try came through")


# -- growing and sharing -------------------------------------------------------------------------------
async def test_the_services_of_a_deployment_share_one_lease_also_when_they_come_at_once(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    small = Resources(1000, 1 * GIB, 1 * GIB)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(tenant.rent("shop", small)) for _ in range(4)]
    assert len({task.result() for task in asked}) == 1
    (lease,) = tenant.node.tenant.state.leases.values()
    assert lease.limits == provider.sold(lease.id).limits == Resources(4000, 4 * GIB, 4 * GIB)


async def test_a_lease_that_cannot_grow_stays_as_it_was_and_says_why(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent("shop")
    error = await refusal(tenant.rent("shop", Resources(3500, 1 * GIB, 1 * GIB)))
    assert error.code == "lease.not-grown"
    assert "cpu_milli" in error.message
    assert tenant.rented(lease).limits == provider.sold(lease).limits == NEED
    assert await tenant.rent("shop", Resources(1000, 0, 0)) == lease


async def test_two_deployments_at_one_provider_have_two_leases_and_one_channel(world: World) -> None:
    provider, tenant = await world.provider(), await world.tenant()
    one = await rent_paid(world, tenant, "one")
    two = await tenant.rent("two")
    assert one != two
    assert len(tenant.node.tenant.state.channels) == 1
    for lease in (one, two):
        provider.host.start(lease, "busy", BUSY)
    await until(lambda: provider.earning.paid >= 200)
    assert tenant.rented(one).due > 0 < tenant.rented(two).due


# -- streams and the end -------------------------------------------------------------------------------
async def test_a_lease_that_ended_opens_no_stream_and_says_why(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    provider.host.start(lease, "c" * 64, FakeContainer(ports={80: echo}))
    await tenant.node.renting.release(lease)
    error = await refusal(tenant.node.renting.tunnel(lease, "c" * 64, 80))
    assert (type(error), error.code) == (Unavailable, "lease.ended")
    assert "took the deployment down" in error.message
    await tenant.node.renting.release(lease)  # twice is once
    await tenant.node.renting.release(LeaseId(b"never heard of it"[:16]))


async def test_releasing_at_a_provider_that_is_gone_ends_it_here_after_a_while(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    await provider.stop()
    await tenant.node.renting.release(lease)
    await asyncio.sleep(5)
    assert tenant.rented(lease).is_over


async def test_the_tunnels_bytes_are_counted_on_both_sides_and_survive_a_restart(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    provider.host.start(lease, "c" * 64, FakeContainer(ports={80: echo}))
    await asyncio.sleep(2)
    stream = await tenant.node.renting.tunnel(lease, "c" * 64, 80)
    await stream.write(bytes(50_000))
    received = 0
    while received < 50_000:
        received += len(await stream.read(1 << 16))
    await asyncio.sleep(2)
    await tenant.restart()
    used = tenant.rented(lease).last.usage
    assert (used.net_in_bytes, used.net_out_bytes) == (50_000, 50_000)
    assert tenant.node.renting.counts.of(lease) == (50_000, 50_000)
    stream.abort()


async def test_what_is_wanted_of_two_tenants_at_once_does_not_mix(world: World) -> None:
    provider = await world.provider()
    tenants = [await world.tenant(number) for number in (2, 4)]
    async with asyncio.TaskGroup() as tasks:
        renting = [tasks.create_task(tenant.rent("web")) for tenant in tenants]
        await funded_by_mining(world, *renting)
    for tenant, task in zip(tenants, renting, strict=True):
        assert provider.sold(task.result()).tenant == tenant.keys.node
        provider.host.start(task.result(), "busy", BUSY)
    await until(lambda: all(tenant.paying.paid > 100 for tenant in tenants))
    assert isinstance(await _peek(tenants[0], renting[1].result()), UsageError | Unavailable)


async def _peek(tenant: Any, lease: LeaseId) -> BaseException | None:
    try:
        await tenant.node.renting.engine(lease)
    except DockageError as error:
        return error
    return None
