"""What a new channel of ours would be: fresh id, key and script, and a size that is worth the chain's fees.

The one rule is the fee guard: no channel is opened whose opening and closing would take more of it than our user
allows; the refusal says which size would pass.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from dockage.domain.channel import NOTHING
from dockage.domain.errors import UsageError
from dockage.domain.identity import ChannelId, NodeKey
from dockage.domain.units import Msat, Sat, whole_sat
from dockage.node.events import ChannelPlan
from dockage.protocol.bitcoin.settlement import Overhead, overhead

from .rail import FUND_TARGET, Rail


class Terms(NamedTuple):
    """What our user allows a channel to be (config, section [channel])."""

    hours: int = 24
    """A new channel holds the worst case of so many hours."""
    overhead_percent: int = 10
    """The most that the chain's fees may be of a channel."""
    expiry_blocks: int = 2016
    """Two weeks: how long our coins are locked if the provider vanishes."""
    largest: Sat = Sat(10_000_000)


class Planner:
    def __init__(self, rail: Rail, me: NodeKey, terms: Terms) -> None:
        self._rail, self._me, self._terms = rail, me, terms

    async def plan(self, capacity: Sat, setup: Sat) -> ChannelPlan:
        channel = ChannelId(secrets.token_bytes(16))
        return ChannelPlan(
            channel,
            self._rail.our_key("tenant", channel, self._me),
            await self._rail.wallet.script(),
            capacity,
            await self._rail.chain.height() + self._terms.expiry_blocks,
            setup,
        )

    async def successor(self, capacity: Sat, setup: Sat) -> ChannelPlan:
        """As large as the channel before it, or as the fee guard wants it now; *setup*: what the provider may want of
        the funding for itself. Raises UsageError("channel.small" |
        "wallet.insufficient") before anybody is asked anything."""
        fees = await self.fees(setup)
        wanted = await self.guarded(Sat(max(capacity, min(self.smallest(fees), self._terms.largest))), setup)
        balance = await self._rail.wallet.balance()
        have = balance.confirmed + balance.pending
        if have < wanted + fees.open:
            raise UsageError(
                "wallet.insufficient",
                f"a successor channel of {wanted} sat and its fee are wanted; the wallet has {have} sat",
            )
        return await self.plan(wanted, setup)

    async def first(self, msat_hour: Msat, asked: Sat | None, setup: Sat = NOTHING) -> ChannelPlan:
        """The size our user *asked* for, or so many hours of the worst case. Raises UsageError("channel.small")."""
        if asked is None:
            worst = whole_sat(Msat(msat_hour * self._terms.hours))
            asked = Sat(min(self._terms.largest, max(worst, self.smallest(await self.fees(setup)))))
        return await self.plan(await self.guarded(asked, setup), setup)

    async def fees(self, setup: Sat = NOTHING) -> Overhead:
        return overhead(await self._rail.chain.feerate(FUND_TARGET), setup)

    def smallest(self, fees: Overhead) -> Sat:
        return fees.smallest_capacity(self._terms.overhead_percent)

    async def guarded(self, capacity: Sat, setup: Sat = NOTHING) -> Sat:
        fees = await self.fees(setup)
        smallest = self.smallest(fees)
        if capacity < smallest:
            raise UsageError(
                "channel.small",
                f"opening and closing a channel costs {fees.total} sat now, more than "
                f"{self._terms.overhead_percent} % of {capacity} sat: take at least {smallest} sat "
                "(dockage.channel-sat), raise the limit, or choose a free offer",
            )
        return capacity
