"""What the tenant's mind wants, performed: payments signed and sent, channels funded and refunded, leases looked into.

Counterpart: ``perform_provider.py``; how channels get their coins is in ``funding.py``.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import assert_never

import structlog

from dockage.domain.channel import Channel
from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey, short
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Duration, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node.tenant import Tenant
from dockage.ports.hosting import Prober
from dockage.ports.machine import Evidence
from dockage.protocol import proof as proofs
from dockage.protocol.messages import DeclineClose, Payment, ProposeClose

from .driver import Driver
from .funding import Funding
from .peers import Postman
from .perform import Performer, reason_of
from .planning import Planner
from .rail import Rail
from .tasks import Jobs
from .together import Together

log = structlog.get_logger("dockage.perform")

LOOK_TIMEOUT = 45.0
"""For one look into a lease: a probe on a tenth of a core takes a few seconds."""


class TenantPerformer(Performer):
    def __init__(
        self,
        postman: Postman,
        rail: Rail | None,
        jobs: Jobs,
        me: NodeKey,
        evidence: Evidence,
        planner: Planner | None,
        rand: Random,
    ) -> None:
        super().__init__(postman, rail, jobs)
        self._me, self._evidence, self._planner, self._rand = me, evidence, planner, rand
        self._funding = Funding(lambda: self.driver)
        self.prober: Prober | None = None
        self._waiting: set[LeaseId] = set()
        """Leases whose moment has not come yet."""
        self.driver: Driver[Tenant]

    def perform(self, effect: want.AnyEffect) -> None:
        match effect:
            case want.Send(to=to, message=message):
                self._postman.send(to, message)
            case want.Pay(to=to, channel=channel, paid=paid):
                self._pay(to, channel, paid)
            case want.PlanChannel(to=to, capacity=capacity, setup_sat=setup):
                self._once("plan", to, lambda _: self._plan(to, capacity, setup))
            case want.Fund(channel=channel):
                self._funding.add(channel)
                self._once("fund", ChannelId(b""), self._funding.run)
            case want.CoSign(to=to, proposal=proposal):
                self._once("co-sign", proposal.channel, lambda rail: self._co_sign(rail, to, proposal))
            case want.Refund(channel=channel):
                self._once("refund", channel, lambda rail: self._refund(rail, channel))
            case want.Broadcast(channel=channel, raw=raw):
                self._broadcast(channel, raw)
            case want.Accuse():
                self._accuse(effect)
            case want.Moment(lease=lease, within=within):
                self._in_a_while(lease, within)
            case want.Look():
                self._look(effect)
            case (
                want.Prepare()
                | want.Pause()
                | want.Thaw()
                | want.Finish()
                | want.Settle()
                | want.ProposeClose()
            ):
                raise AssertionError(f"a tenant does not want {effect!r}")
            case _:
                assert_never(effect)

    def _channel(self, id_: ChannelId) -> Channel:
        return self.driver.state.channels[id_]

    def _pay(self, to: NodeKey, channel: ChannelId, paid: Sat) -> None:
        if self._rail is not None:
            signature = self._rail.pay(self._channel(channel), paid, self._me)
            self._postman.send(to, Payment(channel, paid, signature))

    def _in_a_while(self, lease: LeaseId, within: Duration) -> None:
        """One moment at a time for each lease, however often it is asked for."""
        if lease in self._waiting:
            return
        self._waiting.add(lease)

        async def wait() -> None:
            try:
                await asyncio.sleep(self._rand.uniform(0, within / SECOND))
            finally:
                self._waiting.discard(lease)
            await self.driver.post(told.MomentCame(lease))

        if not self._jobs.start(wait, f"moment {short(lease)}"):
            self._waiting.discard(lease)

    def _look(self, wanted: want.Look) -> None:
        prober, lease = self.prober, wanted.lease
        if prober is None:
            return

        async def look() -> None:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT):
                    seen = await prober.look(
                        lease, wanted.since, wanted.until, wanted.touch_bytes, wanted.processes
                    )
            except DockageError as error:
                log.info("lease.not-seen", lease=short(lease), code=error.code, why=error.message)
                await self.driver.post(told.LookFailed(lease, reason_of(error)))
            except TimeoutError:
                slow = Reason("probe.slow", "the lease's engine does not answer in time")
                await self.driver.post(told.LookFailed(lease, slow))
            else:
                await self.driver.post(told.Looked(lease, seen))

        self._jobs.start(look, f"look into {short(lease)}")

    def _accuse(self, of: want.Accuse) -> None:
        proof = proofs.make(of.provider, (of.first, of.first_signature), (of.second, of.second_signature))
        name = f"{of.provider.hex()[:16]}-{of.second.lease.hex()[:16]}-{of.second.seq}.json"

        async def keep() -> None:
            where = await asyncio.to_thread(self._evidence.keep, name, proofs.encode(proof))
            log.warning("provider.contradicts-itself", provider=short(of.provider), proof=where)

        self._jobs.start(keep, f"keep {name}")

    async def _plan(self, to: NodeKey, capacity: Sat, setup: Sat) -> None:
        assert self._planner is not None, "there is a rail"
        try:
            plan = await self._planner.successor(capacity, setup)
        except DockageError as error:
            await self.driver.post(told.PlanFailed(to, reason_of(error)))
        else:
            await self.driver.post(told.ChannelPlanned(to, plan))

    async def _co_sign(self, rail: Rail, to: NodeKey, proposal: ProposeClose) -> None:
        channel = self._channel(proposal.channel)
        try:
            answer, txid = await Together(rail).co_sign(channel, proposal, self._me)
        except DockageError as error:
            self._postman.send(to, DeclineClose(channel.id, proposal.nonce, reason_of(error)))
        else:
            await self.driver.tell(told.CoSigned(channel.id, txid))
            self._postman.send(to, answer)

    async def _refund(self, rail: Rail, channel: ChannelId) -> None:
        try:
            tx = await rail.refund(self._channel(channel), self._me)
        except UsageError as error:
            await self.driver.post(told.SpendFailed(channel, reason_of(error)))
        else:
            await self.driver.post(told.SpendBuilt(channel, tx))
