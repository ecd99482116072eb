"""A deployment at a gateway: its newest document, its ways in, and the state of its replicas.

A new document keeps what is known of the replicas and the ways in that stay, so nothing that runs is cut. What only a
document changes is worked out once for each, and not by each request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Protocol

from dockage.domain.deployment import Document, Replica, Site
from dockage.domain.identity import LeaseId
from dockage.domain.routing import pick
from dockage.protocol.documents import ReplicaSign, Signs, SiteSign

if TYPE_CHECKING:
    from .upstream import Upstream

IN_FLIGHT_MAX = 480
"""Requests and connections at one replica: its provider opens 512 streams of a lease."""

CUT_AT = 2
"""Misses in a row."""

Place = tuple[str, int]
"""A container and its port."""


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
        self.waiting: set[Upstream] = set()
        """On these it was asked what may be asked elsewhere, too, and has said nothing yet."""
        self.idle: dict[Place, list[Upstream]] = {}
        """Kept connections, the newest at the end."""
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
        self.room = IN_FLIGHT_MAX // max(1, replica.width)

    def place(self, site: Site) -> Place | None:
        container = self._containers.get(site.service)
        return None if container is None else (container, site.port)

    def drop_idle(self) -> None:
        for kept in self.idle.values():
            for upstream in kept:
                upstream.abort()
        self.idle.clear()

    def leave(self) -> None:
        self.gone = True
        self.drop_idle()
        if self.down:
            self.release()

    def release(self) -> None:
        """Who waits for its first byte is to ask another one."""
        waiting, self.waiting = self.waiting, set()
        for upstream in waiting:
            upstream.abort()


class Way:
    """One way into a deployment, and how much it is used."""

    def __init__(self, live: Live, site: Site) -> None:
        self.live, self.site = live, site
        self.busy = self.total = 0
        """Requests: under way, and ever."""
        self._of: object = None
        self._serving: list[Backend] = []

    @property
    def serving(self) -> list[Backend]:
        """Those that are meant to, be they up or not."""
        if self._of is not self.live.backends:
            self._of = self.live.backends
            self._serving = [
                x for x in self.live.backends.values() if x.replica.state == "serving" and x.place(self.site)
            ]
        return self._serving

    def choose(self, tried: Collection[Backend], rand: Random) -> Backend | None:
        """None: nobody is left, or nobody serves here."""
        return pick([x for x in self.serving if x not in tried and x.in_flight < x.room], rand)

    def entered(self, backend: Backend, now: float) -> None:
        self.live.asked_at = now
        backend.in_flight += 1
        self.busy += 1
        self.total += 1

    def left(self, backend: Backend) -> None:
        backend.in_flight -= 1
        self.busy -= 1
        if self.live.line:
            self.live.call_next()

    @contextmanager
    def wants(self) -> Iterator[None]:
        """Somebody waits; if that is for a replica that is to serve at all, the tenant is told."""
        wants, live = not self.serving, self.live
        live.wanting += wants
        if wants and live.wanting == 1:
            live.move()
        try:
            yield
        finally:
            live.wanting -= wants


class Live:
    """One deployment."""

    def __init__(self, lease: LeaseId, document: Document, count: Count) -> None:
        self.lease, self.document, self.count = lease, document, count
        self.backends = {key: Backend(replica, key[1]) for key, replica in _spots(document)}
        """Another dict with each document."""
        self.ways: dict[tuple[object, ...], Way] = {}
        """Of each site, in the document's order."""
        self._lead()
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
        self._lead()
        for gone in old.values():
            gone.leave()
        self._better()

    def _lead(self) -> None:
        old, self.ways = self.ways, {}
        for number, site in enumerate(self.document.sites):
            # The same for the same way in the next document; one that lost its names is told apart by its place.
            place = 0 if site.hosts or site.public_port else number
            key = site.hosts, site.mode, site.public_port, place
            way = self.ways[key] = old.get(key) or Way(self, site)
            way.site = site

    def end(self) -> None:
        for backend in self.backends.values():
            backend.leave()
            backend.release()
        self.backends = {}
        self._better()

    def move(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    # -- the line --------------------------------------------------------------------------------------
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
        return Signs(
            self.document.epoch,
            tuple(SiteSign(way.busy, way.total) for way in self.ways.values()),
            tuple(self._sign(replica.lease) for replica in self.document.replicas),
            self.wanting > 0,
        )

    def _sign(self, lease: LeaseId) -> ReplicaSign:
        """It is as well as the best of its containers: one that died is its engine's to start again."""
        of = [x for x in self.backends.values() if x.replica.lease == lease]
        misses = min((x.misses for x in of), default=0)
        is_reached = not misses or any(x.is_reached for x in of)
        return ReplicaSign(lease, misses, sum(x.in_flight for x in of), is_reached)


def _spots(document: Document) -> list[tuple[tuple[LeaseId, int], Replica]]:
    return [((x.lease, nth), x) for x in document.replicas for nth in range(max(1, x.width))]
