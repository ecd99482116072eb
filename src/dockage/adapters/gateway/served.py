"""All that a gateway serves now, by lease, host name and public port. Changed by ``publish``, read by the relays."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dockage.domain.deployment import Document
from dockage.domain.identity import LeaseId
from dockage.domain.routing import Claim, Rules, check, claims, is_dropped, itself
from dockage.domain.units import Instant
from dockage.ports.machine import Clock

from .live import Count, Live, Way


class Served:
    """All deployments of this gateway."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules, self._clock = rules, clock
        self._live: dict[LeaseId, Live] = {}
        self._counts: dict[LeaseId, Count] = {}
        self._held: dict[Claim, tuple[LeaseId, Document]] = {}
        self._hosts: dict[str, Way] = {}
        self._ports: dict[tuple[str, int], Way] = {}

    @property
    def ports(self) -> Mapping[tuple[str, int], Way]:
        """By (mode, public port)."""
        return self._ports

    def documents(self) -> dict[LeaseId, Document]:
        self.expire()
        return {lease: live.document for lease, live in self._live.items()}

    def all(self) -> Collection[Live]:
        return tuple(self._live.values())

    def at(self, lease: LeaseId) -> Live | None:
        return self._live.get(lease)

    def find(self, host: str) -> Way | None:
        """*host* is normalised."""
        way = self._hosts.get(host)
        if way is not None and way.live.document.expires <= self._clock.now():
            self.expire()
            return None
        return way

    def check(self, lease: LeaseId, document: Document) -> None:
        """Raises what ``publish`` would."""
        self.expire()
        check(self._held, lease, document, self._rules)

    def publish(self, lease: LeaseId, document: Document) -> None:
        """Raises UsageError("document.*" | "site.*"). A deployment is at one lease of a gateway."""
        self.check(lease, document)
        before, _ = self._held.get(itself(document), (lease, document))
        old = [x for x in (self._take(each) for each in dict.fromkeys((before, lease))) if x is not None]
        same = next((x for x in old if itself(x.document) == itself(document)), None)
        if same is not None:
            same.update(lease, document, self.count(lease))
        for other in old:
            if other is not same:
                other.end()
        self._put(same or Live(lease, document, self.count(lease)))

    def count(self, lease: LeaseId) -> Count:
        return self._counts.setdefault(lease, Count())

    def forget(self, lease: LeaseId) -> None:
        self.withdraw(lease)
        self._counts.pop(lease, None)

    def withdraw(self, lease: LeaseId) -> None:
        live = self._take(lease)
        if live is not None:
            live.end()

    def expire(self) -> None:
        now: Instant = self._clock.now()
        for lease in [lease for lease, live in self._live.items() if live.document.expires <= now]:
            self.withdraw(lease)

    def drop(self, names: Collection[str]) -> Collection[LeaseId]:
        self._rules = self._rules._replace(dropped=frozenset(names))
        hit = [lease for lease, live in self._live.items() if is_dropped(live.document, names)]
        for lease in hit:
            self.withdraw(lease)
        return hit

    # -- the indexes: a change costs what changes, however much else is served ---------------------------
    def _put(self, live: Live) -> None:
        self._live[live.lease] = live
        for claim in claims(live.document):
            self._held[claim] = (live.lease, live.document)
        for way in live.ways.values():
            self._hosts.update(dict.fromkeys(way.site.hosts, way))
            if way.site.public_port:
                self._ports[way.site.mode, way.site.public_port] = way

    def _take(self, lease: LeaseId) -> Live | None:
        live = self._live.pop(lease, None)
        if live is not None:
            for claim in claims(live.document):
                del self._held[claim]
            for site in live.document.sites:
                for host in site.hosts:
                    del self._hosts[host]
                self._ports.pop((site.mode, site.public_port), None)
        return live
