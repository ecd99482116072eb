"""Channels that wait for coins: what is opened at one time goes out in one transaction.

Counterpart: ``Rail.fund``. The one rule: a transaction that pays into a channel which was given up meanwhile is not
used at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.errors import DockageError
from dockage.domain.identity import ChannelId
from dockage.domain.lease import LeaseState
from dockage.node import events as told
from dockage.node.tenant import Tenant
from dockage.ports.chain import ChainTx

from .driver import Driver
from .perform import reason_of
from .rail import Rail

GATHER_MIN_SEC = 0.1
"""For which a funding waits for others of the same moment, that our user has only begun to ask for."""
GATHER_SEC = 1.0
"""For which a funding waits for channels that are being agreed on at the same time."""
FUND_TOGETHER = 50
"""Channels in one funding transaction."""


class Funding:
    def __init__(self, driver: Callable[[], Driver[Tenant]]) -> None:
        self._driver = driver
        self._waiting: dict[ChannelId, None] = {}
        """The oldest first."""

    def add(self, channel: ChannelId) -> None:
        self._waiting[channel] = None

    async def run(self, rail: Rail) -> None:
        """What is opened at one time goes out in one transaction."""
        await self._gather()
        while self._waiting:
            wanted = list(self._waiting)[:FUND_TOGETHER]
            for id_ in wanted:
                del self._waiting[id_]
            await self._fund(rail, wanted)

    async def _gather(self) -> None:
        """Not longer than it takes other providers to quote and to accept: usually there are none."""
        await asyncio.sleep(GATHER_MIN_SEC)
        try:
            async with asyncio.timeout(GATHER_SEC):
                while self._others_are_coming():
                    await self._driver().moved()
        except TimeoutError:
            pass

    def _others_are_coming(self) -> bool:
        state = self._driver().state
        quoting = (x for x in state.leases.values() if x.state is LeaseState.QUOTING)
        opening = (c for c in state.channels.values() if c.state is ChannelState.OPENING)
        return any(x.candidates and x.candidates[0].plan for x in quoting) or any(
            c.id not in self._waiting for c in opening
        )

    def _channel(self, id_: ChannelId) -> Channel:
        return self._driver().state.channels[id_]

    def _is_fundable(self, id_: ChannelId) -> bool:
        channel = self._channel(id_)
        return channel.state is ChannelState.OPENING and bool(channel.terms.provider_key)

    async def _fund(self, rail: Rail, ids: Sequence[ChannelId]) -> None:
        opening = {id_: self._channel(id_).terms for id_ in ids if self._is_fundable(id_)}
        if not opening:
            return
        try:
            for terms in opening.values():
                rail.check_proposal(terms)
            built = await rail.fund(opening)
        except DockageError as error:
            await self._not_funded(rail, list(opening), error)
            return
        await self._driver().tell(built)
        if any(self._channel(id_).txid != built.txid for id_ in opening):
            # One was given up meanwhile: the transaction was not used, its coins are free again.
            await rail.wallet.forget(ChainTx(built.txid, built.raw, built.fee))
            self._waiting |= dict.fromkeys(id_ for id_ in opening if self._is_fundable(id_))

    async def _not_funded(self, rail: Rail, ids: Sequence[ChannelId], why: DockageError) -> None:
        """What cannot be had together may be had one by one."""
        if len(ids) == 1:
            await self._driver().tell(told.FundingFailed(ids[0], reason_of(why)))
            return
        for id_ in ids:
            await self._fund(rail, [id_])
