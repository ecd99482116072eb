"""Rents a relay where no free one answers, counts what comes through it, and does what ``node/paidrelay.py`` decides.

Counterpart: ``wire/tolls.py`` at the relay. It is an ordinary lease: quote, channel, a statement each second; what is
counted here stands in the place of a tunnel's bytes when a statement is checked.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import msgspec
import structlog

from dockage.domain.errors import DockageError, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED
from dockage.domain.offer import RELAY, Offer
from dockage.domain.pricing import price
from dockage.domain.reason import Reason
from dockage.domain.resources import INGRESS
from dockage.domain.units import GIB, MINUTE, Duration, Instant, Sat, after
from dockage.domain.usage import Usage, full_use
from dockage.node import events as told
from dockage.node import paidrelay as mind
from dockage.node.events import Candidate
from dockage.node.rented import RentedLease
from dockage.node.whereabouts import Leased, normal
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.peers import NatLink

from .ondisk import on_disk
from .perform import reason_of
from .renting import CANDIDATES_MAX, Renting, silently
from .rows import kept
from .whereabouts import Whereabouts
from .wishes import Wishes

log = structlog.get_logger("dockage.relay")

KIND = "relay-spending"
NAME = "relay"
"""What the lease is for, where leases are listed."""
LOOK_SEC = 0.25
"""A statement is compared with what was counted by then: a relay's bytes are to be counted often."""
SAVE_SEC = 1.0
AVOID = Duration(10 * MINUTE)
BLOCKS_A_DAY = 144
USUAL = Usage(net_in_bytes=GIB, net_out_bytes=GIB) + full_use(INGRESS, mind.DAY)
"""What relays are compared by."""


class PaidRelay:
    def __init__(
        self,
        where: Whereabouts,
        link: NatLink,
        renting: Renting,
        clock: Clock,
        journal: Journal,
        rows: Iterable[Row],
        budget: Sat,
        expiry_blocks: int,
    ) -> None:
        self._where, self._link, self._renting = where, link, renting
        self._clock, self._journal, self._days = clock, journal, expiry_blocks // BLOCKS_A_DAY
        found = kept(rows, KIND, mind.Spending)
        self.state = mind.PaidRelay(budget, found[0] if found else mind.Spending())
        self._saved, self._saved_at = self.state.spending, 0.0
        self._avoid: dict[NodeKey, Instant] = {}
        self._counted = (0, 0)
        self._provider = NodeKey(b"")

    @property
    def trouble(self) -> Reason | None:
        """Why there is no relay that others could reach us by."""
        found = self.state.trouble
        unpaid = [x for x in self._where.silences.values() if x.code == "relay.unpaid"]
        return unpaid[0] if found is mind.NO_BUDGET and unpaid else found

    @property
    def bytes(self) -> tuple[int, int]:
        """(sent, received) through it under the present lease."""
        return self._renting.counts.of(self.state.lease) if self.state.lease else (0, 0)

    @property
    def url(self) -> str:
        return self._where.state.leased

    async def run(self) -> None:
        """Until cancelled."""
        await self._tidy()
        while True:
            try:
                await self._look()
            except DockageError as error:
                log.warning("relay.failed", code=error.code, why=error.message)
            except Exception:  # a bug of ours; free relays are used as before
                log.exception("relay.crashed")
            await asyncio.sleep(LOOK_SEC)

    async def _tidy(self) -> None:
        """What an earlier run of the daemon rented: its bytes were not counted meanwhile."""
        for lease in list(self._renting.driver.state.leases.values()):
            if lease.service == RELAY and not lease.is_over:
                await self._renting.driver.tell(told.EndRequested(lease.id, mind.RESTARTED))

    async def _look(self) -> None:
        where, lease = self._where.state, self.state.lease
        mine = self._mine(lease or self.state.spending.lease)
        sent, received = self._count(lease) if lease else (0, 0)
        uses_free = bool(where.relay) and where.relay != where.leased
        due = mine.due if mine else self.state.spending.seen
        ended = _ended(mine) if lease else None
        await self._tell(mind.Looked(where.has_free, uses_free, due, sent, received, ended))
        await self._save()

    def _mine(self, lease: LeaseId) -> RentedLease | None:
        return self._renting.driver.state.leases.get(lease)

    def _count(self, lease: LeaseId) -> tuple[int, int]:
        """What came through it since the last look, to where a statement about it is compared."""
        url, before = self._where.state.leased, self._counted
        now = self._counted = self._link.relayed(url) if url else before
        for take, new, old in zip(self._renting.counts.counters(lease), now, before, strict=True):
            if new > old:
                take(new - old)
        return now

    async def _tell(self, event: mind.Event) -> None:
        self.state, effects = mind.step(self.state, event, self._clock.now())
        for effect in effects:
            match effect:
                case mind.Rent():
                    await self._rent()
                case mind.End(lease, reason, failed):
                    await self._end(lease, reason, failed=failed)

    # -- renting ---------------------------------------------------------------------------------------
    async def _rent(self) -> None:
        try:
            lease, url = await self._rented()
        except DockageError as error:
            return await self._tell(mind.NotRented(reason_of(error)))
        log.info("relay.rented", lease=short(lease), url=url)
        self._counted = self._link.relayed(url)
        await self._where.tell(Leased(url))
        await self._tell(mind.Rented(lease))

    async def _rented(self) -> tuple[LeaseId, str]:
        """One is asked after the other: what a channel to the first took counts before the next. Raises UsageError and
        Unavailable with the first reason why there is none."""
        objections = list[DockageError]()
        for offer in await self._offers():
            try:
                return await self._rented_at(offer)
            except DockageError as error:
                objections.append(error)
        raise objections[0]

    async def _rented_at(self, offer: Offer) -> tuple[LeaseId, str]:
        candidate = self._worth(await self._renting.candidate(offer, INGRESS, Wishes()))
        lease = LeaseId(secrets.token_bytes(16))
        await self._renting.rent(lease, NAME, INGRESS, (candidate,), silently, service=RELAY)
        self._provider = offer.provider
        url = self._where.relay_at(offer.provider, offer.relay_port)
        if not url:
            await self._end(lease, NOWHERE, failed=True)
            raise UsageError(NOWHERE.code, NOWHERE.text)
        return lease, normal(url)

    async def _offers(self) -> list[Offer]:
        """The cheapest by the byte first: hardly anything else costs at a relay."""
        now = self._clock.now()
        self._avoid = {key: until for key, until in self._avoid.items() if until > now}
        found = await self._renting.fitting(INGRESS, Wishes(), silently, service=RELAY)
        able = [x for x in found if x.provider not in self._avoid and x.provider != self._link.node]
        if not able:
            raise UsageError(
                "relay.none-fits", f"each of the {len(found)} relays on the market failed us a moment ago"
            )
        paid = [x for x in able if mind.is_affordable(x.tariff, self.state.budget_sat)]
        if not paid:
            raise UsageError(
                "relay.dear",
                f"each of the {len(able)} relays on the market could bill more than a quarter of the day's budget "
                "without having carried a byte: wait for cheaper ones, or raise node.relay_budget_sat",
            )
        return sorted(paid, key=lambda x: (price(USUAL, x.tariff), x.provider))[:CANDIDATES_MAX]

    def _worth(self, candidate: Candidate) -> Candidate:
        """A channel holds at least so much that the chain's fees are a small part of it. Where the budget would never
        use that in the channel's life, the fees would be most of what the relay costs; and so they would be if each
        of many relays got a channel and left us."""
        budget, held = self.state.budget_sat * self._days, self._held()
        if candidate.plan is not None and candidate.plan.capacity + held > budget:
            also = f"channels to others hold {held} sat already, and " if held else ""
            raise UsageError(
                "relay.channel-cost",
                f"{also}a channel to a relay must hold {candidate.plan.capacity} sat now to be worth the chain's fees; "
                f"node.relay_budget_sat would use {budget} sat in the {self._days} days that it lasts. Raise it, or "
                "wait for lower fees",
            )
        return candidate

    def _held(self) -> Sat:
        """In channels to relays that were funded and have not reached their expiry, used or not."""
        state = self._renting.driver.state
        relays = {x.provider for x in state.leases.values() if x.service == RELAY}
        funded = [c for x in relays for c in state.channels.of(x) if c.txid]
        return Sat(sum(c.terms.capacity for c in funded if c.terms.expiry_height > state.height))

    async def _end(self, lease: LeaseId, reason: Reason, *, failed: bool) -> None:
        """*failed*: nothing more is paid to it, and it is not asked again for a while."""
        await self._where.tell(Leased(""))
        if failed:
            self._avoid[self._provider] = after(self._clock.now(), AVOID)
        mine = self._mine(lease)
        if mine is not None and not mine.is_leaving:
            event = told.Fenced if failed else told.EndRequested
            await self._renting.driver.tell(event(lease, reason))
        log.info("relay.given-back", lease=short(lease), code=reason.code)

    async def _save(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.state.spending != self._saved and now - self._saved_at >= SAVE_SEC:
            self._saved, self._saved_at = self.state.spending, now
            await on_disk(self._journal.write, [Row(KIND, b"", msgspec.msgpack.encode(self._saved))])


NOWHERE = Reason("relay.nowhere", "the relay's node is not seen at an address of its own")
OVER = Reason("lease.ended", "the lease with the relay has ended")


def _ended(mine: RentedLease | None) -> Reason | None:
    if mine is None:
        return OVER
    return None if mine.state in METERED else mine.reason or OVER
