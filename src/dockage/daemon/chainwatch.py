"""Looks at the chain for both minds: the height, the depth of fundings, who spent a channel.

It polls: a block every ten minutes does not repay a subscription. A node that does not answer changes
nothing, leases go on; what is due is asked for again at the first poll that succeeds.
"""

from __future__ import annotations

import structlog

from dockage.domain.channel import SETTLE_BEFORE_EXPIRY, Channel, ChannelState
from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import ChannelId, short
from dockage.domain.reason import Reason
from dockage.domain.units import HOUR, SECOND, Duration, Instant, since
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.ports.chain import Outpoint
from dockage.ports.machine import Clock

from .driver import Driver
from .perform import reason_of
from .rail import Rail, Silence

log = structlog.get_logger("dockage.chain")

MISSING_MAX = HOUR
"""A funding that no node has known for so long was replaced. Until then it may still be on its way."""
UNSEEN_MAX = Duration(24 * HOUR)
"""The same, where the mempool cannot be seen: it may wait there for a low fee."""
TAKEN_BACK = Reason(
    "channel.taken-back",
    "no close of ours confirmed within a day of the expiry: the tenant has taken all back",
)


class ChainWatch:
    def __init__(self, rail: Rail, minds: list[Driver[Provider] | Driver[Tenant]], clock: Clock) -> None:
        self._rail, self._minds, self._clock = rail, minds, clock
        self._height = self._tip = -1
        self._missing: dict[tuple[bool, ChannelId], Instant] = {}
        """A peer that we pay may have given a channel to us the id of one of ours."""

    async def poll(self) -> None:
        """Raises Unavailable while the node does not answer, gone or hanging; what is shown of it says so, too."""
        try:
            height = self._tip = await self._rail.chain.height()
        except Unavailable as error:
            began = self._rail.silence.since if self._rail.silence else self._clock.now()
            self._rail.silence = Silence(began, reason_of(error))
            raise
        if self._rail.silence is not None:
            log.info("chain.back", silent_sec=since(self._rail.silence.since, self._clock.now()) // SECOND)
            self._rail.silence = None
        await self._show(height)

    async def _show(self, height: int) -> None:
        fresh = height != self._height
        failure: Unavailable | None = None
        for mind in self._minds:
            await mind.post(told.BlockSeen(height))
            for channel in list(mind.state.channels.values()):
                if _is_interesting(channel, height, fresh=fresh):
                    try:
                        await self._look_at(mind, channel)
                    except (
                        Unavailable
                    ) as error:  # of a block that was pruned, say: the others are due all the same
                        if error.code == "chain.unreachable":
                            raise
                        failure = failure or error
        if failure is not None:
            raise failure
        self._height = height  # not before: a block that was only looked at in part is looked at again

    async def _look_at(self, mind: Driver[Provider] | Driver[Tenant], channel: Channel) -> None:
        if isinstance(mind.state, Provider) and self._is_past_seeing(channel):
            return await mind.post(told.FundingGone(channel.id, TAKEN_BACK))
        outpoint = Outpoint(channel.txid, channel.vout)
        coin = await self._rail.chain.coin(outpoint)
        if coin is None:
            return await self._look_for_spender(mind, channel, outpoint) if not channel.is_over else None
        self._missing.pop(_name(mind, channel), None)
        try:
            self._rail.check_funding(channel, coin)
        except PeerError as wrong:
            return await mind.post(told.FundingGone(channel.id, Reason(wrong.code, wrong.message)))
        if coin.confirmations != channel.confirmations or _is_shaken(channel):
            await mind.post(told.FundingSeen(channel.id, coin.confirmations))

    async def _look_for_spender(
        self, mind: Driver[Provider] | Driver[Tenant], channel: Channel, outpoint: Outpoint
    ) -> None:
        chain = self._rail.chain
        spender = await chain.spender(outpoint, channel.opened_height)
        if spender is not None:
            depth = await chain.depth(spender.txid)
            return await mind.post(told.SpendSeen(channel.id, spender.txid, depth or 0))
        if channel.settled_txid:  # a reorganisation took back what had spent it
            await mind.post(told.SpendSeen(channel.id, channel.settled_txid, 0))
        known = await chain.depth(channel.txid) is not None
        if known and (channel.seen or not chain.sees_mempool):
            return  # spent in the mempool only: nothing is decided yet
        # An output that we never saw was spent before it was announced: it would take a place for as long as it likes.
        if channel.seen:  # a reorganisation took it, or its coins were spent elsewhere
            await mind.post(told.FundingMissed(channel.id))
        missing_since = self._missing.setdefault(_name(mind, channel), self._clock.now())
        if since(missing_since, self._clock.now()) > (MISSING_MAX if chain.sees_mempool else UNSEEN_MAX):
            lost = Reason(
                "channel.funding-lost", f"no node knows the funding of {short(channel.id)} any more"
            )
            await mind.post(told.FundingGone(channel.id, lost))
            self._missing.pop(_name(mind, channel), None)

    def _is_past_seeing(self, channel: Channel) -> bool:
        """A light provider sees its own close and not the tenant's refund. Where no close of ours has confirmed a
        day after the expiry, bumped every hour, the refund has."""
        if self._rail.chain.sees_mempool or channel.settled_txid or channel.is_over:
            return False
        return self._tip >= channel.terms.expiry_height + SETTLE_BEFORE_EXPIRY


def _name(mind: Driver[Provider] | Driver[Tenant], channel: Channel) -> tuple[bool, ChannelId]:
    return isinstance(mind.state, Provider), channel.id


def _is_interesting(channel: Channel, height: int, *, fresh: bool) -> bool:
    steady = channel.state in (ChannelState.OPEN, ChannelState.ABANDONED)
    return channel.is_watched_at(height) and (fresh or not steady)


def _is_shaken(channel: Channel) -> bool:
    """That its output is there, unspent, is news also at a depth that is known."""
    return channel.state in (ChannelState.FUNDED, ChannelState.ABANDONED) or bool(channel.settled_txid)
