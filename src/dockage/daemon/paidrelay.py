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
from dockage.domain.usage import Usage
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
GIB_EACH_WAY = Usage(net_in_bytes=GIB, net_out_bytes=GIB)


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
        found = [msgspec.msgpack.decode(x.value, type=mind.Spending) for x in rows if x.kind == KIND]
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
        """Raises UsageError and Unavailable with the reason why there is none."""
        offers = {x.provider: x for x in await self._offers()}
        candidates = await self._candidates(list(offers.values()))
        lease = LeaseId(secrets.token_bytes(16))
        got = await self._renting.rent(lease, NAME, INGRESS, candidates, silently, service=RELAY)
        self._provider = got.provider
        url = self._where.relay_at(got.provider, offers[got.provider].relay_port)
        if not url:
            await self._end(lease, NOWHERE, failed=True)
            raise UsageError(NOWHERE.code, NOWHERE.text)
        return lease, normal(url)

    async def _offers(self) -> list[Offer]:
        """The cheapest by the byte first: that is all that a relay's lease costs."""
        now = self._clock.now()
        self._avoid = {key: until for key, until in self._avoid.items() if until > now}
        found = await self._renting.fitting(INGRESS, Wishes(), silently, service=RELAY)
        able = [x for x in found if x.provider not in self._avoid and x.provider != self._link.node]
        if not able:
            raise UsageError(
                "relay.none-fits", f"each of the {len(found)} relays on the market failed us a moment ago"
            )
        return sorted(able, key=lambda x: (price(GIB_EACH_WAY, x.tariff), x.provider))[:CANDIDATES_MAX]

    async def _candidates(self, offers: list[Offer]) -> tuple[Candidate, ...]:
        """Those whose channel is worth its fees; raises the first objection if that is none."""
        found, objections = list[Candidate](), list[UsageError]()
        for offer in offers:
            try:
                found.append(self._worth(await self._renting.candidate(offer, INGRESS, Wishes())))
            except UsageError as error:
                objections.append(error)
        if not found:
            raise objections[0]
        return tuple(found)

    def _worth(self, candidate: Candidate) -> Candidate:
        """A channel holds at least so much that the chain's fees are a small part of it. Where the budget would never
        use that in the channel's life, the fees would be most of what the relay costs."""
        budget = self.state.budget_sat * self._days
        if candidate.plan is not None and candidate.plan.capacity > budget:
            raise UsageError(
                "relay.channel-cost",
                f"a channel to a relay must hold {candidate.plan.capacity} sat now to be worth the chain's fees; "
                f"node.relay_budget_sat would use {budget} sat in the {self._days} days that it lasts. Raise it, or "
                "wait for lower fees",
            )
        return candidate

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
