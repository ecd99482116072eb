"""From effects to ports: one small method for each thing a mind can want. Each may be performed twice.

What the world answers comes back as an event. The host's work on one lease keeps its order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any, assert_never
from weakref import WeakValueDictionary

import structlog

from dockage.domain.channel import Channel, ChannelState
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import ChannelId, LeaseId, NodeKey, short
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.domain.resources import Resources
from dockage.domain.units import SECOND, Duration, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.ports import ChainTx, ContainerHost, Evidence, Prober
from dockage.protocol import proof as proofs
from dockage.protocol.messages import AgreeClose, DeclineClose, Payment, ProposeClose

from .driver import Driver
from .peers import Postman
from .planning import Planner
from .rail import Rail
from .tasks import Jobs
from .together import Together

log = structlog.get_logger("dockage.perform")

HOST_TIMEOUT = 120.0
"""For one piece of work on the engine: a teardown kills containers with their own stop time behind them."""

LOOK_TIMEOUT = 45.0
"""For one look into a lease: a probe on a tenth of a core takes a few seconds."""
CLEAR_AGAIN = 5.0
"""Between two tries to remove a lease from the machine."""

GATHER_MIN_SEC = 0.1
"""For which a funding waits for others of the same moment, that our user has only begun to ask for."""
GATHER_SEC = 1.0
"""For which a funding waits for channels that are being agreed on at the same time."""
FUND_TOGETHER = 50
"""Channels in one funding transaction."""

NOT_WORTH_ADDING = Reason(
    "channel.uneconomic",
    "less was paid than closing this channel, too, would cost: wait for a lower fee rate",
)


def reason_of(error: DockageError) -> Reason:
    return Reason(error.code[:64], error.message[:TEXT_MAX])


class Performer:
    """The effects that both roles share."""

    def __init__(self, postman: Postman, rail: Rail | None, jobs: Jobs) -> None:
        self._postman, self._rail, self._jobs = postman, rail, jobs
        self._busy: set[tuple[str, bytes]] = set()

    def _once(self, kind: str, channel: bytes, work: Callable[[Rail], Coroutine[Any, Any, None]]) -> None:
        """The minds ask again at every poll; a piece of work that is under way is not begun twice."""
        if self._rail is None or (kind, channel) in self._busy:
            return
        self._busy.add((kind, channel))
        rail = self._rail

        async def run() -> None:
            try:
                await work(rail)
            finally:
                self._busy.discard((kind, channel))

        if not self._jobs.start(run, f"{kind} {short(channel)}"):
            self._busy.discard((kind, channel))

    def _broadcast(self, channel: ChannelId, raw: bytes) -> None:
        async def work(rail: Rail) -> None:
            await rail.chain.broadcast(raw)

        self._once("broadcast", channel, work)


class ProviderPerformer(Performer):
    def __init__(self, postman: Postman, rail: Rail | None, jobs: Jobs, host: ContainerHost) -> None:
        super().__init__(postman, rail, jobs)
        self._host = host
        self._locks: WeakValueDictionary[LeaseId, asyncio.Lock] = WeakValueDictionary()
        self._ready: set[LeaseId] = set()
        """Prepared since the daemon started."""
        self._finishing: set[LeaseId] = set()
        self.together = Together(rail) if rail is not None else None
        self.driver: Driver[Provider]

    def perform(self, effect: want.AnyEffect) -> None:
        match effect:
            case want.Send(to=to, message=message):
                self._postman.send(to, message)
            case want.Prepare(lease=lease, limits=limits):
                self._on_host(lease, lambda: self._prepare(lease, limits), "prepare")
            case want.Pause(lease=lease):
                self._on_host(lease, lambda: self._freeze_or_thaw(lease), "pause")
            case want.Thaw(lease=lease):
                self._on_host(lease, lambda: self._freeze_or_thaw(lease), "thaw")
            case want.Finish(lease=lease):
                self._begin_finish(lease)
            case want.ProposeClose(channel=channel, give_back=give_back):
                self._once("propose", channel, lambda _: self._propose(channel, give_back=give_back))
            case want.Settle(channels=channels):
                self._once("settle", channels[0], lambda rail: self._settle(rail, channels))
            case want.Broadcast(channel=channel, raw=raw):
                self._broadcast(channel, raw)
            case (
                want.Pay()
                | want.PlanChannel()
                | want.Fund()
                | want.CoSign()
                | want.Refund()
                | want.Accuse()
                | want.Moment()
                | want.Look()
            ):
                raise AssertionError(f"a provider does not want {effect!r}")
            case _:
                assert_never(effect)

    def _on_host(self, lease: LeaseId, work: Callable[[], Awaitable[None]], name: str) -> bool:
        """Jobs start in the order of their effects and a lock is fair, so one lease's work keeps its order."""
        lock = self._locks.setdefault(lease, asyncio.Lock())

        async def run() -> None:
            async with lock:
                await work()

        return self._jobs.start(run, f"{name} {short(lease)}")

    async def _prepare(self, lease: LeaseId, limits: Resources) -> None:
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                await self._host.prepare(lease, limits)
        except DockageError as error:
            await self.driver.post(told.HostFailed(lease, reason_of(error)))
        except TimeoutError:
            await self.driver.post(
                told.HostFailed(lease, Reason("engine.slow", "the provider's engine does not answer"))
            )
        else:
            await self.driver.tell(told.HostPrepared(lease))
            if lease not in self._ready:  # after a restart the machine may be one step behind the mind
                self._ready.add(lease)
                await self._freeze_or_thaw(lease)

    async def _freeze_or_thaw(self, lease: LeaseId) -> None:
        """Until the machine is as the mind wants it *now*: containers must not run unpaid, nor stay frozen paid,
        because the engine did not answer once."""
        while (mine := self.driver.state.leases.get(lease)) is not None and mine.state in METERED:
            try:
                async with asyncio.timeout(HOST_TIMEOUT):
                    if mine.state is LeaseState.PAUSED:
                        return await self._host.pause(lease)
                    return await self._host.thaw(lease)
            except (Unavailable, TimeoutError) as error:
                log.warning(
                    "lease.neither-frozen-nor-thawed", lease=short(lease), why=str(error) or "timeout"
                )
            await asyncio.sleep(CLEAR_AGAIN)

    def _begin_finish(self, lease: LeaseId) -> None:
        """The mind asks again every while; an engine that is down for a day must not heap up a day's work."""
        if lease in self._finishing:
            return
        self._finishing.add(lease)
        if not self._on_host(lease, lambda: self._finish(lease), "finish"):
            self._finishing.discard(lease)

    async def _finish(self, lease: LeaseId) -> None:
        try:
            await self._read_last(lease)
            await self._clear(lease)
            self._ready.discard(lease)
            await self.driver.tell(told.HostCleared(lease))
        finally:
            self._finishing.discard(lease)

    async def _read_last(self, lease: LeaseId) -> None:
        """Freeze first, so that the final reading is final. A host that can't be read ends the lease unpaid."""
        try:
            async with asyncio.timeout(HOST_TIMEOUT):
                await self._host.pause(lease)
                reading = await self._host.read(lease)
        except (DockageError, TimeoutError) as error:
            log.warning("lease.no-final-reading", lease=short(lease), why=str(error) or "timeout")
        else:
            await self.driver.tell(told.MeterRead(lease, reading, final=True))

    async def _clear(self, lease: LeaseId) -> None:
        """Until nothing is left: an engine that is down now comes back, and what it held must go then."""
        while True:
            try:
                async with asyncio.timeout(HOST_TIMEOUT):
                    return await self._host.teardown(lease)
            except (Unavailable, TimeoutError) as error:
                log.warning("lease.not-cleared", lease=short(lease), why=str(error) or "timeout")
                await asyncio.sleep(CLEAR_AGAIN)

    async def _propose(self, id_: ChannelId, *, give_back: bool) -> None:
        assert self.together is not None
        channel = self.driver.state.channels[id_]
        try:
            proposal = await self.together.propose(channel, give_back=give_back)
        except UsageError as error:
            await self.driver.post(told.SpendFailed(id_, reason_of(error)))
        else:
            self._postman.send(channel.peer, proposal)

    async def _settle(self, rail: Rail, ids: tuple[ChannelId, ...]) -> None:
        """Nobody's half is waited for any more."""
        assert self.together is not None
        for id_ in ids:
            self.together.forget(id_)
        channels = [self.driver.state.channels[id_] for id_ in ids]
        try:
            tx, closed = await rail.settle([c for c in channels if not c.settled_txid])
        except UsageError as error:
            await self._not_settled(ids, reason_of(error))
        else:
            first, *also = [id_ for id_ in ids if id_ in closed]
            await self.driver.post(told.SpendBuilt(first, tx, tuple(also)))
            await self._not_settled([id_ for id_ in ids if id_ not in closed], NOT_WORTH_ADDING)

    async def _not_settled(self, ids: Sequence[ChannelId], why: Reason) -> None:
        for id_ in ids:
            await self.driver.post(told.SpendFailed(id_, why))


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
        self.prober: Prober | None = None
        self._waiting: set[LeaseId] = set()
        """Leases whose moment has not come yet."""
        self._to_fund: dict[ChannelId, None] = {}
        """Channels that wait for coins, the oldest first."""
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
                self._to_fund[channel] = None
                self._once("fund", ChannelId(b""), self._fund_all)
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

    async def _fund_all(self, rail: Rail) -> None:
        """What is opened at one time goes out in one transaction."""
        await self._gather()
        while self._to_fund:
            wanted = list(self._to_fund)[:FUND_TOGETHER]
            for id_ in wanted:
                del self._to_fund[id_]
            await self._fund(rail, wanted)

    async def _gather(self) -> None:
        """Not longer than it takes other providers to quote and to accept: usually there are none."""
        await asyncio.sleep(GATHER_MIN_SEC)
        try:
            async with asyncio.timeout(GATHER_SEC):
                while self._others_are_coming():
                    await self.driver.moved()
        except TimeoutError:
            pass

    def _others_are_coming(self) -> bool:
        state = self.driver.state
        quoting = (x for x in state.leases.values() if x.state is LeaseState.QUOTING)
        opening = (c for c in state.channels.values() if c.state is ChannelState.OPENING)
        return any(x.candidates and x.candidates[0].plan for x in quoting) or any(
            c.id not in self._to_fund for c in opening
        )

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
        await self.driver.tell(built)
        if any(self._channel(id_).txid != built.txid for id_ in opening):
            # One was given up meanwhile: the transaction was not used, its coins are free again.
            await rail.wallet.forget(ChainTx(built.txid, built.raw, built.fee))
            self._to_fund |= dict.fromkeys(id_ for id_ in opening if self._is_fundable(id_))

    async def _not_funded(self, rail: Rail, ids: Sequence[ChannelId], why: DockageError) -> None:
        """What cannot be had together may be had one by one."""
        if len(ids) == 1:
            await self.driver.tell(told.FundingFailed(ids[0], reason_of(why)))
            return
        for id_ in ids:
            await self._fund(rail, [id_])

    async def _co_sign(self, rail: Rail, to: NodeKey, proposal: ProposeClose) -> None:
        channel = self._channel(proposal.channel)
        try:
            answer: AgreeClose | DeclineClose = await Together(rail).co_sign(channel, proposal, self._me)
        except DockageError as error:
            answer = DeclineClose(channel.id, proposal.nonce, reason_of(error))
        self._postman.send(to, answer)

    async def _refund(self, rail: Rail, channel: ChannelId) -> None:
        try:
            tx = await rail.refund(self._channel(channel), self._me)
        except UsageError as error:
            await self.driver.post(told.SpendFailed(channel, reason_of(error)))
        else:
            await self.driver.post(told.SpendBuilt(channel, tx))
