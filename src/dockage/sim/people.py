"""What the users of the world do: rent for a while, rent again when a lease broke, grow, leave, close.

Counterpart: the tenant's controller and its user. The one rule: they see only what ``dockage ps`` would show.
"""

from __future__ import annotations

from functools import partial

import msgspec

from dockage.domain.identity import LeaseId
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.offer import Offer, Risk, Wish, hourly_ceiling, nobody
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import MINUTE, Duration, Instant, Sat
from dockage.node import events as told
from dockage.node.evidence import known

from .market import Market
from .node import Node

DONE = Reason("lease.no-longer-needed", "the user needs it no longer")


class User:
    """Wants one deployment to run from *begin* to *stop*, and then its money back."""

    def __init__(
        self, node: Node, market: Market, limits: Resources, begin: Duration, stop: Duration, capacity: Sat
    ) -> None:
        self.node, self.market, self.limits, self.capacity = node, market, limits, capacity
        self.begin, self.stop = begin, stop
        self.lease: LeaseId | None = None
        self.first_ran: Instant | None = None
        self.ran_checks = self.checks = 0
        self._over = False

    def start(self) -> None:
        self.node.world.later(self.begin, self._look)
        self.node.world.later(self.stop, self._leave)

    def _look(self) -> None:
        """Every half minute: is it there? If it is over and was not meant to be, rent again."""
        if self._over:
            return
        self.node.world.later(MINUTE // 2, self._look)
        mind = self.node.tenant
        if mind is None or not self.node.alive:
            return
        lease = mind.leases.get(self.lease) if self.lease else None
        if lease is None or lease.state is LeaseState.ENDED:
            self._rent()
            return
        self.checks += 1
        if lease.state in METERED:
            self.ran_checks += 1
            self.first_ran = self.first_ran or self.node.world.now
            if self.checks == 20:
                self._grow()

    def _rent(self) -> None:
        self.lease = LeaseId(self.node.world.random.randbytes(16))
        wish = Wish(self.node.name, self.limits, architecture="x86_64", network="sim")
        candidates = tuple(self._candidate(offer) for offer in self.market.search(wish, self._risk()))
        self.node.tell_tenant(told.RentRequested(self.lease, "web", self.limits, candidates))

    def _risk(self) -> Risk:
        mind = self.node.tenant
        return known(mind, self.node.world.now).risk if mind else nobody

    def _candidate(self, offer: Offer) -> told.Candidate:
        plan = None if offer.tariff.is_free else self.node.plan(self.capacity)
        return told.Candidate(offer.provider, hourly_ceiling(offer, self.limits), plan, offer.tariff)

    def _grow(self) -> None:
        more = msgspec.structs.replace(self.limits, memory_bytes=self.limits.memory_bytes * 3 // 2)
        if self.lease is not None:
            self.node.tell_tenant(told.GrowRequested(self.lease, more))

    def _leave(self) -> None:
        """Insists until it is so: the node may be down at first."""
        self._over = True
        mind = self.node.tenant
        if mind is not None and self.node.alive:
            for lease in list(mind.leases.values()):
                if not lease.is_over:
                    self.node.tell_tenant(told.EndRequested(lease.id, DONE))
            if all(x.is_over for x in self.node.tenant.leases.values()) if self.node.tenant else False:
                self._close()
                return
        self.node.world.later(MINUTE, self._leave)

    def _close(self) -> None:
        mind = self.node.tenant
        if mind is None:
            return
        for channel in list(mind.channels.values()):
            if not channel.is_over:
                self.node.world.later(0, partial(self.node.tell_tenant, told.CloseRequested(channel.id)))
