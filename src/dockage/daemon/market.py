"""The node's dealings with the notice board: put our offer up, keep it fresh, read everybody's.

The board is a directory and nothing more: an offer found there invites a quote, and teaches the link how
its provider is reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

import structlog

from dockage.domain.advice import Change, changes
from dockage.domain.errors import DockageError, PeerError, Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Risk, Wish, hourly_ceiling, nobody, obstacles, rank
from dockage.domain.query import Query, Rank
from dockage.domain.units import Instant, after
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Address, Directory, PeerLink
from dockage.protocol.records import (
    LIFETIME,
    SHARDS,
    Body,
    NodeBody,
    OfferBody,
    Record,
    WithdrawnBody,
    node_topic,
    offers_topic,
    offers_topics,
    open_record,
    seal,
)

log = structlog.get_logger("dockage.market")

PUBLISH_EVERY = LIFETIME // 2 / 1e9
"""Seconds."""
LOOK_EVERY = 0.25
"""For a change of the offer."""
LEAVE_TIMEOUT = 2.0
CHANGE_EVERY = 2.0
"""A changed offer is put up again at most this often."""
SEARCH_TIMEOUT = 20.0
DIRECT_MAX = 8
"""``ip:port`` in a record."""


class Found(NamedTuple):
    offer: Offer
    address: Address
    seen: Instant
    """When the provider sealed it."""


class Chosen(NamedTuple):
    """Of one part of a region's offers those that were asked for (``query.Excerpt``)."""

    found: tuple[Found, ...]
    reach: Rank | None
    fitting: int
    known: int


Announce = Callable[[str, bytes], Coroutine[Any, Any, int]]
"""Tells the indexes of a region about a record; how many took it."""


async def _to_nobody(_region: str, _record: bytes) -> int:
    return 0


class Notice:
    """Our own offer on the board. While *offer* gives None nothing is sold, and the old one is withdrawn."""

    def __init__(
        self,
        directory: Directory,
        link: PeerLink,
        keys: Keys,
        clock: Clock,
        offer: Callable[[], Offer | None],
        work: int,
        announce: Announce = _to_nobody,
    ) -> None:
        """*announce* tells indexes at once what they would read from the board later."""
        self._announce = announce
        self._directory, self._link, self._keys, self._clock = directory, link, keys, clock
        self._offer, self._work = offer, work
        self.stored_at = 0
        """How many market nodes took the newest one."""
        self._shown: Offer | None = None

    async def keep_up(self) -> None:
        """Publish when it changed, and before it expires; a board out of reach is tried again soon."""
        where: tuple[str, frozenset[str]] | None = None
        loop = asyncio.get_running_loop()
        until = not_before = 0.0
        while True:
            offer, address, now = self._offer(), _places(self._link.address()), loop.time()
            is_due = offer != self._shown or (offer is not None and (now >= until or address != where))
            if is_due and now >= not_before:
                try:
                    await self._show(offer)
                    where, until = address, loop.time() + PUBLISH_EVERY
                except DockageError as error:
                    log.warning("market.unpublished", code=error.code, why=error.message)
                not_before = now + CHANGE_EVERY
            await asyncio.sleep(LOOK_EVERY)

    async def leave(self) -> None:
        """The node stops: whoever looks for a provider need not ask it first and wait in vain."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await self._show(None)
        except (DockageError, TimeoutError):
            log.info("market.not-withdrawn")

    async def _show(self, offer: Offer | None) -> None:
        if self._shown is not None and (offer is None or offer.region != self._shown.region):
            await self._withdraw(self._shown.region)
            self._shown = None
        if offer is not None:
            await self.publish(offer)

    async def _withdraw(self, region: str) -> None:
        now = self._clock.now()
        body = WithdrawnBody(now, after(now, LIFETIME), region)
        await self._put_offer("withdrawn", body, region)
        self.stored_at = 0
        log.info("market.withdrawn", region=region)

    async def publish(self, offer: Offer) -> None:
        """The offer, and where we are: a tenant must find us again when our address changes."""
        now = self._clock.now()
        until, address, me = after(now, LIFETIME), self._link.address(), self._keys.node
        direct = address.direct[:DIRECT_MAX]
        body = OfferBody(now, until, offer, address.relay, direct)
        self.stored_at = await self._put_offer("offer", body, offer.region)
        self._shown = offer
        here = await self._sealed("node", NodeBody(now, until, address.relay, direct))
        await self._directory.publish(node_topic(me), here)
        log.info("market.published", at=self.stored_at)

    async def _put_offer(self, kind: str, body: Body, region: str) -> int:
        blob = await self._sealed(kind, body)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce(region, blob))
            taken = await self._published(offers_topic(region, self._keys.node[0] % SHARDS), blob)
        if isinstance(taken, DockageError):
            raise taken
        return taken

    async def _published(self, topic: bytes, blob: bytes) -> int | DockageError:
        """A failure is a value: indexes that are being told are not to be cut off for it."""
        try:
            return await self._directory.publish(topic, blob)
        except DockageError as error:
            return error

    async def _sealed(self, kind: str, body: Body) -> bytes:
        return await asyncio.to_thread(seal, kind, self._keys.node, body, self._keys.sign, self._work)


def _places(address: Address) -> tuple[str, frozenset[str]]:
    """What of an address matters to others, whatever its order."""
    return address.relay, frozenset(address.direct[:DIRECT_MAX])


async def _none() -> Sequence[bytes]:
    return ()


class Market:
    """Everybody's offers, as the board shows them now."""

    def __init__(
        self,
        directory: Directory,
        link: PeerLink,
        keys: Keys,
        clock: Clock,
        regions: Sequence[str],
        own: Callable[[], Coroutine[Any, Any, Sequence[bytes]]] = _none,
    ) -> None:
        """*own* asks our user's other machines, which need no board."""
        self._directory, self._link, self._keys, self._clock = directory, link, keys, clock
        self.regions, self._own = tuple(regions), own

    async def search(self, region: str = "") -> tuple[Found, ...]:
        """Every offer of *region*, or of the regions we are configured to look at, ours excepted.
        Raises Unavailable("market.unreachable")."""
        regions = (region,) if region else self.regions
        topics = [topic for name in regions for topic in offers_topics(name)]
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT):
                async with asyncio.TaskGroup() as tasks:
                    own: asyncio.Task[Sequence[bytes]] = tasks.create_task(self._own())
                    searches = [tasks.create_task(self._search(topic)) for topic in topics]
        except TimeoutError:
            raise Unavailable("market.unreachable", "the market did not answer within 20 s") from None
        answers = [search.result() for search in searches]
        for answer in answers:
            if isinstance(answer, Unavailable) and all(isinstance(a, Unavailable) for a in answers):
                if own.result():
                    break
                raise answer
        blobs = [blob for answer in answers if not isinstance(answer, Unavailable) for blob in answer]
        # One of our own machines may be on the board too, with the price for everybody: what it told us counts.
        found = {x.offer.provider: x for x in (*self._others(blobs), *self._others(own.result()))}
        return tuple(found.values())

    async def own(self) -> tuple[Found, ...]:
        """What our user's other machines sell to us."""
        return self._others(await self._own())

    def _others(self, blobs: Iterable[bytes]) -> tuple[Found, ...]:
        found = [self._open(blob) for blob in blobs]
        return tuple(x for x in found if x is not None and x.offer.provider != self._keys.node)

    async def shard(self, region: str, number: int) -> tuple[Found, ...]:
        """One part of a region's offers. Empty, too, where the board does not answer."""
        answer = await self._search(offers_topic(region, number % SHARDS))
        return () if isinstance(answer, Unavailable) else self._others(answer)

    async def select(self, region: str, number: int, query: Query) -> Chosen | Unavailable:
        """Of one part of a region's offers the best, by its holders; a failure is a value."""
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT):
                excerpt = await self._directory.select(offers_topic(region, number), query)
        except TimeoutError:
            return Unavailable("market.unreachable", "the market did not answer within 20 s")
        except Unavailable as error:
            return error
        return Chosen(self._others(excerpt.records), excerpt.reach, excerpt.fitting, excerpt.known)

    async def _search(self, topic: bytes) -> Sequence[bytes] | Unavailable:
        """One shard; a failure is a value, so that the other shards' offers are still shown."""
        try:
            return await self._directory.search(topic)
        except Unavailable as error:
            return error

    def _open(self, blob: bytes) -> Found | None:
        """Its signature was verified by the directory: to do it twice would double what a search costs."""
        try:
            record = open_record(blob, _verified, self._clock.now())
        except PeerError:
            return None
        return self.found(record) if isinstance(record.body, OfferBody) else None

    def found(self, record: Record) -> Found:
        """What an opened record of an offer says to us."""
        address = Address(record.body.relay, record.body.direct)
        self._link.learn(record.key, address)
        return Found(record.body.offer.as_seen_by(self._keys.node), address, record.seq)


def _verified(_key: NodeKey, _message: bytes, _signature: bytes) -> bool:
    return True


def choose(found: Sequence[Found], wish: Wish, risk: Risk = nobody) -> tuple[Offer, ...]:
    """The offers that fit *wish*, best first. Raises UsageError("market.nothing-fits") with what stands in the
    way and the offer that comes nearest."""
    offers = tuple(x.offer for x in found)
    fitting = rank(offers, wish, risk)
    if fitting:
        return fitting
    raise UsageError("market.nothing-fits", explain(offers, wish, risk))


def explain(offers: Sequence[Offer], wish: Wish, risk: Risk = nobody) -> str:
    """Why none of *offers* fits, and the smallest change that would help."""
    if not offers and wish.region:
        return (
            f"there is no offer in region {wish.region}: ask for one that `dockage market` shows, or for none"
        )
    if not offers:
        return (
            "there is no offer on the market at all: is a seed configured, and has a provider published? Machines of "
            "your own are linked by `dockage link`"
        )
    nearest = min(
        offers, key=lambda o: (len(obstacles(o, wish, risk)), hourly_ceiling(o, wish.limits), o.provider)
    )
    whys = obstacles(nearest, wish, risk)
    advice = " ".join(map(_advice, changes(offers, wish, risk)[:3])) or "It would fit if that were changed."
    return (
        f"none of {len(offers)} offers fits; the nearest is {nearest.provider.hex()[:8]}: "
        f"{', '.join(whys)}. {advice}"
    )


def _advice(change: Change) -> str:
    many = "1 offer would fit" if change.offers == 1 else f"{change.offers} offers would fit"
    return (
        f"With {change.text} {many}, the cheapest of {change.provider.hex()[:8]} for "
        f"{-(-change.msat_hour // 1000)} sat an hour at most."
    )
