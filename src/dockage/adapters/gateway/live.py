"""What a gateway serves now: each document with the state of its replicas. Changed by ``publish``, read by the relays.

A new document of a deployment keeps what is known of the replicas that stay, so nothing that runs is cut.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Protocol

from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.identity import LeaseId
from dockage.domain.routing import Claim, Rules, check, claims, is_dropped, itself, pick
from dockage.domain.units import Instant
from dockage.ports.machine import Clock
from dockage.ports.peers import Stream
from dockage.protocol.documents import ReplicaSign, Signs, SiteSign

IN_FLIGHT_MAX = 480
"""Requests and connections at one replica: its provider opens 512 streams of a lease."""

CUT_AT = 2
"""Misses in a row."""


class Waiting(Protocol):
    def abort(self) -> None:
        """It looks again."""

    @property
    def is_waiting(self) -> bool: ...


class Count:
    """Payload bytes of a lease since this process began, as its provider counts them, too."""

    __slots__ = ("into", "out")

    def __init__(self) -> None:
        self.into = self.out = 0


class Backend:
    """One replica; of one whose services have several containers the *nth* of each."""

    def __init__(self, replica: Replica, nth: int = 0) -> None:
        self.nth = nth
        self.take(replica)
        self.in_flight = 0
        self.misses = 0
        self.answered_at = self.missed_at = self.down_since = 0.0
        """When it last said something, when a miss was last counted, and the first of those in a row: on the loop's
        clock."""
        self.is_reached = True
        """Whether at the newest miss its provider could be spoken with at all."""
        self.checked_at = 0.0
        self.waiting: set[Stream] = set()
        """Streams on which it was asked what may be asked elsewhere, too, and has said nothing yet."""
        self.idle: dict[tuple[str, int], list[tuple[float, Stream]]] = {}
        """Kept connections by container and port, each with its time, the newest at the end."""
        self.gone = False
        """No longer in the document: it ends what it began."""

    @property
    def down(self) -> bool:
        return self.misses > 0

    def take(self, replica: Replica) -> None:
        """Looked through here, once, and not by each request."""
        self.replica = replica
        found = {name: replica.container(name, self.nth) for name, _ in replica.services}
        self._containers = {name: container for name, container in found.items() if container}
        self._room = IN_FLIGHT_MAX // max(1, replica.width)

    def container(self, site: Site) -> str | None:
        return self._containers.get(site.service)

    @property
    def is_full(self) -> bool:
        return self.in_flight >= self._room

    def drop_idle(self) -> None:
        for streams in self.idle.values():
            for _, stream in streams:
                stream.abort()
        self.idle.clear()

    def leave(self) -> None:
        self.gone = True
        self.drop_idle()
        if self.down:
            self.release()

    def release(self) -> None:
        """Who waits for its first byte is to ask another one."""
        waiting, self.waiting = self.waiting, set()
        for stream in waiting:
            stream.abort()


class Live:
    """One deployment."""

    def __init__(self, lease: LeaseId, document: Document, count: Count) -> None:
        self.lease, self.document, self.count = lease, document, count
        self.backends = {key: Backend(replica, key[1]) for key, replica in _spots(document)}
        self.busy: dict[tuple[object, ...], int] = {}
        self.total: dict[tuple[object, ...], int] = {}
        """Requests by site."""
        self.paused = False
        self.asked_at = -math.inf
        """When the last request came, on the loop's clock."""
        self.line: dict[Waiting, None] = {}
        """Who waits for a replica, in order."""
        self.wanting = 0
        """How many of them because none is meant to serve."""
        self.changed = asyncio.Event()
        """Set, and made anew, with each document and each change of health."""

    def update(self, lease: LeaseId, document: Document, count: Count) -> None:
        self.lease, self.document, self.count = lease, document, count
        old, self.backends = self.backends, {}
        for key, replica in _spots(document):
            backend = old.pop(key, None) or Backend(replica, key[1])
            if backend.replica.services != replica.services or backend.replica.provider != replica.provider:
                backend.drop_idle()
            backend.take(replica)
            self.backends[key] = backend
        for gone in old.values():
            gone.leave()
        self._better()

    def end(self) -> None:
        for backend in self.backends.values():
            backend.leave()
            backend.release()
        self.backends = {}
        self._better()

    def move(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def choose(self, site: Site, tried: Collection[Backend], rand: Random) -> Backend | None:
        """None: nobody is left, or nobody serves this site."""
        return pick([x for x in self.serving(site) if x not in tried and not x.is_full], rand)

    def serving(self, site: Site) -> list[Backend]:
        """Those that are meant to, be they up or not."""
        return [
            each
            for each in self.backends.values()
            if each.replica.state == "serving" and each.container(site)
        ]

    # -- the line --------------------------------------------------------------------------------------
    @contextmanager
    def wants(self, site: Site) -> Iterator[None]:
        """Somebody waits; if that is for a replica that is to serve at all, the tenant is told."""
        wants = not self.serving(site)
        self.wanting += wants
        if wants and self.wanting == 1:
            self.move()
        try:
            yield
        finally:
            self.wanting -= wants

    def call_next(self) -> None:
        place = next((x for x in self.line if x.is_waiting), None)
        if place is not None:
            place.abort()

    def call_all(self) -> None:
        for place in self.line:
            place.abort()

    # -- health ----------------------------------------------------------------------------------------
    def answered(self, backend: Backend, now: float) -> None:
        backend.answered_at = now
        if backend.misses:
            backend.misses = 0
            self._better()

    def missed(self, backend: Backend, asked_at: float, now: float, *, is_reached: bool = True) -> None:
        """Asked at *asked_at*, it did not answer: out of rotation at once. It is no news if it said something since, to
        whomever, or if another one missed it since: a thousand requests that break together are one miss.
        *is_reached*: its provider took the question."""
        backend.drop_idle()
        if asked_at < max(backend.answered_at, backend.missed_at):
            return
        backend.is_reached = is_reached
        backend.down_since = backend.down_since if backend.misses else now
        backend.missed_at = now
        backend.misses += 1
        self._release()
        self.move()

    def _better(self) -> None:
        self._release()
        self.move()
        self.call_all()

    def _release(self) -> None:
        """Who waits for one that is down asks elsewhere at the second miss, for after one it may only be slow; and only
        while another one is up: without it, to wait is better than nothing."""
        up = sum(each.replica.state == "serving" and not each.down for each in self.backends.values())
        for each in self.backends.values():
            if each.misses >= CUT_AT and up:
                each.release()

    def signs(self) -> Signs:
        sites = [_key(site) for site in self.document.sites]
        return Signs(
            self.document.epoch,
            tuple(SiteSign(self.busy.get(key, 0), self.total.get(key, 0)) for key in sites),
            tuple(self._sign(replica.lease) for replica in self.document.replicas),
            self.wanting > 0,
        )

    def _sign(self, lease: LeaseId) -> ReplicaSign:
        """It is as well as the best of its containers: one that died is its engine's to start again."""
        of = [x for x in self.backends.values() if x.replica.lease == lease]
        misses = min((x.misses for x in of), default=0)
        is_reached = not misses or any(x.is_reached for x in of)
        return ReplicaSign(lease, misses, sum(x.in_flight for x in of), is_reached)

    def entered(self, site: Site, backend: Backend, now: float) -> None:
        key = _key(site)
        self.asked_at = now
        backend.in_flight += 1
        self.busy[key] = self.busy.get(key, 0) + 1
        self.total[key] = self.total.get(key, 0) + 1

    def left(self, site: Site, backend: Backend) -> None:
        backend.in_flight -= 1
        self.busy[_key(site)] -= 1
        if self.line:
            self.call_next()


def _spots(document: Document) -> list[tuple[tuple[LeaseId, int], Replica]]:
    return [((x.lease, nth), x) for x in document.replicas for nth in range(max(1, x.width))]


def _key(site: Site) -> tuple[object, ...]:
    return site.hosts, site.mode, site.public_port


class Served:
    """All deployments of this gateway."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules, self._clock = rules, clock
        self._live: dict[LeaseId, Live] = {}
        self._counts: dict[LeaseId, Count] = {}
        self._held: dict[Claim, tuple[LeaseId, Document]] = {}
        self._hosts: dict[str, tuple[Live, Site]] = {}
        self._ports: dict[tuple[str, int], tuple[Live, Site]] = {}

    @property
    def ports(self) -> Mapping[tuple[str, int], tuple[Live, Site]]:
        """By (mode, public port)."""
        return self._ports

    def documents(self) -> dict[LeaseId, Document]:
        self.expire()
        return {lease: live.document for lease, live in self._live.items()}

    def all(self) -> Collection[Live]:
        return tuple(self._live.values())

    def at(self, lease: LeaseId) -> Live | None:
        return self._live.get(lease)

    def find(self, host: str) -> tuple[Live, Site] | None:
        """*host* is normalised."""
        found = self._hosts.get(host)
        if found is not None and found[0].document.expires <= self._clock.now():
            self.expire()
            return None
        return found

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
        for site in live.document.sites:
            self._hosts.update(dict.fromkeys(site.hosts, (live, site)))
            if site.public_port:
                self._ports[site.mode, site.public_port] = (live, site)

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
