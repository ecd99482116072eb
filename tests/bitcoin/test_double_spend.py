# ruff: noqa: F403, F405
"""A tenant rents on unconfirmed funding and replaces it by RBF, on a real node: it gets the credit and nothing on top.

The provider's mind, its driver, chain watch and rail are the real ones; only the container is played.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bitcoin.node import Node, RegtestWorld
from dockage.adapters.secp import ChannelKeys, Secp
from dockage.daemon import rows
from dockage.daemon.chainwatch import ChainWatch
from dockage.daemon.driver import Driver
from dockage.daemon.rail import Rail
from dockage.domain.channel import Terms
from dockage.domain.lease import LeaseState
from dockage.domain.units import HOUR, SECOND, Duration
from dockage.node import provider as selling
from dockage.node.provider import Provider
from dockage.ports.chain import Wallet
from dockage.protocol.bitcoin.channel import Commitment
from dockage.protocol.bitcoin.script import funding
from dockage.protocol.bitcoin.tx import parse
from dockage.testing.clock import ManualClock
from dockage.testing.journal import MemoryJournal
from node.parts import *

CURVE = Secp()
CREDIT = 50
LENDING = msgspec.structs.replace(POLICY, credit_sat=Sat(CREDIT))


class Seller:
    """A provider on the real chain; what it sends is thrown away, what it wants of its machine is done at once."""

    def __init__(self, world: RegtestWorld, wallet: Wallet) -> None:
        self.clock = ManualClock(at(0))
        self.rail = Rail(CURVE, ChannelKeys(secrets.token_bytes(32), CURVE), world.chain, wallet)
        self.driver: Driver[Provider] = Driver(
            Provider(LENDING), selling.step, rows.changed, MemoryJournal(), lambda _: None, self.clock
        )
        self.watch = ChainWatch(self.rail, [self.driver], self.clock)

    async def hear(self, message: say.AnyMessage) -> None:
        """As the edge does: the signature of a payment is checked against our own template."""
        key = b""
        if isinstance(message, say.ProposeChannel):
            key = self.rail.our_key("provider", message.channel, TENANT)
        if isinstance(message, say.Payment):
            self.rail.check_payment(self.channel, message.paid, message.signature)
        await self.driver.tell(told.Received(TENANT, message, our_key=key))

    async def look(self) -> None:
        await self.watch.poll()
        await self.driver.tell(told.Ticked())

    @property
    def channel(self) -> Any:
        return self.driver.state.channels[CHANNEL]

    @property
    def lease(self) -> Any:
        return self.driver.state.leases[LEASE]


@pytest.fixture
async def world(bitcoind: Node) -> AsyncIterator[RegtestWorld]:
    world = RegtestWorld(bitcoind)
    yield world
    await world.close()


async def test_a_funding_replaced_by_rbf_costs_the_provider_at_most_its_credit(world: RegtestWorld) -> None:
    seller, thief = Seller(world, await world.wallet()), await world.wallet(Sat(200_000))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(seller.driver.run())
        await steal(world, seller, thief)
        running.cancel()


async def steal(world: RegtestWorld, seller: Seller, thief: Wallet) -> None:
    await seller.look()
    keys = ChannelKeys(secrets.token_bytes(32), CURVE)
    terms = Terms(
        keys.public("tenant", CHANNEL),
        seller.rail.our_key("provider", CHANNEL, TENANT),
        await world.chain.height() + 1000,
        Sat(50_000),
        await thief.script(),
    )
    await seller.hear(
        say.ProposeChannel(
            CHANNEL, terms.tenant_key, terms.expiry_height, terms.capacity, terms.tenant_script
        )
    )
    script = funding(terms, CURVE).script
    tx = await thief.fund([(script, terms.capacity)], 1000)
    await thief.forget(tx)
    replacement = await thief.fund([(await thief.script(), Sat(60_000))], 5000)

    await world.chain.broadcast(tx.raw)
    vout = parse(tx.raw).find(script, terms.capacity) or 0
    await seller.hear(say.AnnounceFunding(CHANNEL, tx.txid, vout))
    await seller.look()
    assert (seller.channel.seen, seller.channel.confirmations) == (True, 0)
    await seller.hear(say.OpenLease(quote(), SIG64))
    await seller.driver.tell(told.HostPrepared(LEASE))
    assert seller.lease.state is LeaseState.RUNNING, "it begins at once, before any confirmation"

    commitment, signer = Commitment(terms, (tx.txid, vout), CURVE), keys.signer("tenant", CHANNEL)
    seconds = 0
    while (
        seller.lease.state is LeaseState.RUNNING
    ):  # it signs for all that it uses, on coins that it will take back
        await seller.driver.tell(reads(seconds, seconds))
        if due := seller.lease.due // 1000:
            await seller.hear(say.Payment(CHANNEL, Sat(due), commitment.pay(Sat(due), signer)))
        seconds += 1
        seller.clock.pass_(Duration(SECOND))
    assert CREDIT - 2 <= seconds <= CREDIT + 2

    await world.chain.broadcast(replacement.raw)
    assert await world.chain.depth(tx.txid) is None, "the node took the replacement"
    await world.mine(1)
    await seller.look()
    assert not seller.channel.seen
    account = seller.driver.state.accounts[TENANT]
    assert (account.paid, account.credited) == (0, 0)
    assert (CREDIT - 2) * 1000 <= account.at_risk <= CREDIT * 1000
    seller.clock.pass_(Duration(61 * SECOND))
    await seller.look()
    assert seller.lease.state is LeaseState.ENDING
    seller.clock.pass_(HOUR)
    await seller.look()
    assert seller.channel.state is ChannelState.ABANDONED
    assert selling.income(seller.driver.state) == 0
    asked = selling.step(seller.driver.state, says(say.AskQuote(LEASE2, LIMITS)), seller.clock.now())
    assert asked[1][-1] == Like(want.Send, message=Like(Quote, credit_sat=0)), "and never again"
