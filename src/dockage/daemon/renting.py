"""Renting, step by step, for our own user: the ``ports.renting.Leases`` of this node.

It searches, ranks, hands the candidates to the tenant's mind and waits for what becomes of the lease; all
decisions about money are the mind's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from dockage.domain.channel import Channel
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId, NodeKey, short
from dockage.domain.lease import METERED, LeaseState
from dockage.domain.offer import ENGINE, GATEWAY, Offer, Risk, Wish, hourly_ceiling, nobody
from dockage.domain.pricing import ceiling
from dockage.domain.query import AVOID_MAX, Query
from dockage.domain.reason import Reason
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.spread import Place
from dockage.domain.units import HOUR, Instant, Msat
from dockage.node import events as told
from dockage.node.events import Candidate, ChannelPlan
from dockage.node.tenant import RentedLease, Tenant
from dockage.ports.peers import Stream
from dockage.ports.renting import LeaseInfo, Progress
from dockage.protocol.streams import AnyHeader, Datagrams, Engine, Layers, Tunnel, encode_header
from dockage.wire.ahead import Headed
from dockage.wire.frames import frame
from dockage.wire.quick import Around, Take

from .driver import Driver
from .market import Found, choose
from .patience import patiently
from .peers import Opener
from .planning import Planner
from .queries import Queries
from .tunnels import TunnelCounts
from .wishes import Wishes, read_wishes

log = structlog.get_logger("dockage.renting")

OBTAIN_TIMEOUT = 3600.0
"""Confirmations take as long as they take; the user may always press Ctrl-C."""
RELEASE_TIMEOUT = 10.0
CANDIDATES_MAX = 8
PER_NET = 16
"""Offers of one /24, /48 or relay among those that are looked at: a quarter."""
UNFINISHED = frozenset({LeaseState.QUOTING, LeaseState.FUNDING, LeaseState.OPENING})


def silently(_: str) -> None:
    """Nobody waits for news."""


class Renting:
    def __init__(
        self,
        driver: Driver[Tenant],
        queries: Queries,
        open_stream: Opener,
        open_bundled: Opener,
        network: str,
        counts: TunnelCounts,
        planner: Planner | None,
        architecture: str,
        risk: Callable[[], Risk] = lambda: nobody,
    ) -> None:
        self.driver, self.queries = driver, queries
        self._open_stream, self._open_bundled = open_stream, open_bundled
        self._network, self.counts, self._planner = network, counts, planner
        self._architecture, self._risk = architecture, risk
        self._obtaining: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._shown: dict[LeaseId, tuple[RentedLease, LeaseInfo]] = {}
        self.aside: set[LeaseId] = set()
        """Replicas that our user's own commands do not go to (``beside.py``)."""
        self.seen: Callable[[tuple[Found, ...]], None] = lambda _: None
        """Is shown every look at the market."""

    # -- ports.renting.Leases --------------------------------------------------------------------------------
    async def obtain(
        self, deployment: str, need: Resources, wishes: Mapping[str, str], progress: Progress
    ) -> LeaseInfo:
        wanted = read_wishes(wishes)
        lock = self._obtaining.setdefault(deployment, asyncio.Lock())
        async with lock:  # the services of one project come one after another and share a lease
            held = self._held(deployment)
            if held is not None:
                return await self.grow(held, need)
            return await self._rent(deployment, need, wanted, progress)

    async def rename(self, lease: LeaseId, deployment: str) -> LeaseInfo:
        await self.driver.tell(told.Renamed(lease, deployment))
        mine = self.driver.state.leases.get(lease)
        if mine is None or mine.deployment != deployment:
            raise Unavailable("lease.ended", f"the lease {short(lease)} has ended meanwhile")
        return info(mine)

    async def release(self, lease: LeaseId) -> None:
        if lease not in self.driver.state.leases:
            return
        done = Reason("lease.released", "our user took the deployment down")
        await self.driver.tell(told.EndRequested(lease, done))
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                await self._until(lease, lambda x: x.is_over)
        except TimeoutError:
            pass  # the mind goes on asking, and pays nothing meanwhile

    def all(self) -> Sequence[LeaseInfo]:
        """Asked several times at each request of a client: what did not change is not worked out again."""
        before, self._shown = self._shown, {}
        for lease in self.driver.state.leases.values():
            if not lease.is_over:
                known = before.get(lease.id)
                self._shown[lease.id] = known if known and known[0] is lease else (lease, info(lease))
        return [shown for _, shown in self._shown.values()]

    async def engine(self, lease: LeaseId) -> Stream:
        return await self._open(self._open_stream, lease, Engine(lease))

    async def tunnel(self, lease: LeaseId, container: str, port: int) -> Stream:
        stream = await self._open(self._open_bundled, lease, Tunnel(lease, container, port))
        return Counted(stream, *self.counts.counters(lease))

    async def datagrams(self, lease: LeaseId, container: str, port: int) -> Stream:
        stream = await self._open(self._open_bundled, lease, Datagrams(lease, container, port))
        return Counted(stream, *self.counts.counters(lease))

    async def layers(self, lease: LeaseId) -> Stream:
        return await self._open(self._open_stream, lease, Layers(lease))

    async def _open(self, opener: Opener, lease: LeaseId, header: AnyHeader) -> Stream:
        mine = self.driver.state.leases.get(lease)
        if mine is None or mine.state not in METERED:
            why = f": {mine.reason}" if mine and mine.reason else ""
            raise Unavailable("lease.ended", f"the lease {short(lease)} is not running{why}")
        return Headed(await opener(mine.provider), frame(encode_header(header)))

    async def drop_unfinished(self) -> None:
        """At the start: whoever waited for these leases is gone, and would have to pay for them."""
        gone = Reason("lease.cancelled", "the daemon was restarted before the lease ran")
        for lease in list(self.driver.state.leases.values()):
            if lease.state in UNFINISHED:
                await self.driver.post(told.EndRequested(lease.id, gone))

    # -- one lease -----------------------------------------------------------------------------------
    def _held(self, deployment: str) -> RentedLease | None:
        for lease in self.driver.state.leases.values():
            ours = lease.deployment == deployment and lease.service == ENGINE and lease.id not in self.aside
            if ours and lease.state in METERED:
                return lease
        return None

    async def grow(self, lease: RentedLease, need: Resources) -> LeaseInfo:
        """Raises UsageError with the provider's reason if it has no more room."""
        limits = lease.limits + need
        await self.driver.tell(told.GrowRequested(lease.id, limits))
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT):
                grown = await self._until(lease.id, lambda x: x.wanted is None or x.is_over)
        except TimeoutError:
            raise Unavailable("peer.slow", f"provider {short(lease.provider)} does not answer") from None
        if grown.limits != limits:
            raise UsageError("lease.not-grown", f"the provider will not enlarge the lease: {grown.reason}")
        return info(grown)

    async def ingress(self, deployment: str, wishes: Wishes, progress: Progress) -> LeaseInfo:
        """A lease at a gateway, for the document of *deployment*; as ``obtain``, but each call rents another one."""
        return await self._rent(deployment, INGRESS, wishes, progress, GATEWAY)

    async def _rent(
        self, deployment: str, need: Resources, wishes: Wishes, progress: Progress, service: str = ENGINE
    ) -> LeaseInfo:
        progress("looking for a gateway" if service == GATEWAY else "looking for a provider")
        candidates = await self.candidates(need, wishes, progress, service=service)
        lease = LeaseId(secrets.token_bytes(16))
        return await self.rent(lease, deployment, need, candidates, progress, service=service)

    async def rent(
        self,
        lease: LeaseId,
        deployment: str,
        need: Resources,
        candidates: tuple[Candidate, ...],
        progress: Progress,
        *,
        service: str = ENGINE,
    ) -> LeaseInfo:
        """Returns once it runs. Raises UsageError with everybody's refusals, Unavailable("lease.slow")."""
        asked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(OBTAIN_TIMEOUT):
                await self.driver.tell(told.RentRequested(lease, deployment, need, candidates, service))
                rented = await self._until(lease, lambda x: x.state in METERED or x.is_over, progress)
        except TimeoutError:
            await self._give_up(lease)
            raise Unavailable("lease.slow", f"no lease came about in {OBTAIN_TIMEOUT / 60:.0f} min") from None
        except asyncio.CancelledError:
            await self._give_up(lease)
            raise
        if rented.is_over:
            raise _why_failed(rented)
        took = asyncio.get_running_loop().time() - asked
        log.info(
            "lease.running", deployment=deployment, provider=short(rented.provider), ms=round(took * 1000)
        )
        return info(rented)

    async def _give_up(self, lease: LeaseId) -> None:
        gone = Reason("lease.cancelled", "our user gave up waiting")
        await self.driver.post(told.EndRequested(lease, gone))

    def wish(self, need: Resources, wishes: Wishes, *, service: str = ENGINE) -> Wish:
        """What is looked for in the market."""
        return Wish(
            tenant=self.driver.state.me,
            limits=need,
            region=wishes.region,
            architecture=self._architecture,
            opacity=wishes.opacity,
            isolation=wishes.isolation,
            max_msat_hour=wishes.max_msat_hour,
            network=self._network,
            service=service,
        )

    async def candidates(
        self, need: Resources, wishes: Wishes, progress: Progress = silently, *, service: str = ENGINE
    ) -> tuple[Candidate, ...]:
        """Best first, each with the channel it would need. Raises UsageError("market.nothing-fits"), and
        Unavailable("market.unreachable") if nobody answers for 35 s."""
        offers = await self.fitting(need, wishes, progress, service=service)
        return tuple([await self.candidate(offer, need, wishes) for offer in offers[:CANDIDATES_MAX]])

    async def quote(self, need: Resources, wishes: Wishes) -> tuple[Offer, Candidate, int]:
        """The best offer, what renting there would take, and how many more fit. Raises as ``candidates``."""
        best, *others = await self.fitting(need, wishes, silently)
        return best, await self.candidate(best, need, wishes), len(others)

    async def fitting(
        self,
        need: Resources,
        wishes: Wishes,
        progress: Progress,
        *,
        service: str = ENGINE,
        beside: Sequence[Place] = (),
        avoid: Iterable[NodeKey] = (),
    ) -> tuple[Offer, ...]:
        """The offers that fit, best first, without those of *avoid* or of the operators and networks of *beside*; few
        of one network, so that who floods the market with cheap ones is not all that is seen of it."""
        wish = self.wish(need, wishes, service=service)
        if not wishes.provider:
            query = _apart(Query(wish, near=True, per_net=PER_NET), beside, avoid)
            answer = await patiently(lambda: self.queries.ask(query), progress)
            self.seen(tuple(answer.found))
            return choose(answer.found, wish, self._risk())
        everything = await patiently(lambda: self.queries.market.search(wishes.region), progress)
        self.seen(tuple(everything))
        found = tuple(x for x in everything if x.offer.provider.hex().startswith(wishes.provider))
        if not found:
            raise UsageError("market.nothing-fits", f"there is no offer of a provider {wishes.provider}")
        return choose(found, wish)  # whom our user names is our user's choice

    async def candidate(self, offer: Offer, need: Resources, wishes: Wishes) -> Candidate:
        price = hourly_ceiling(offer, need)
        return Candidate(offer.provider, price, await self._plan(offer, price, wishes), offer.tariff)

    async def _plan(self, offer: Offer, msat_hour: Msat, wishes: Wishes) -> ChannelPlan | None:
        """None where no new channel is needed."""
        if offer.tariff.is_free or self._paying(offer.provider) is not None:
            return None
        if self._planner is None:
            raise UsageError("wallet.none", "the offer is not free: set [bitcoin] in config.toml to pay it")
        return await self._planner.first(msat_hour, wishes.channel_sat, offer.setup_sat)

    def _paying(self, provider: NodeKey) -> Channel | None:
        height = self.driver.state.height
        for channel in self.driver.state.channels.values():
            if channel.peer == provider and channel.serves_at(height) and channel.remaining > 0:
                return channel
        return None

    async def _until(
        self,
        lease: LeaseId,
        done: Callable[[RentedLease], bool],
        progress: Progress = lambda _: None,
    ) -> RentedLease:
        said = None
        while True:
            mine = self.driver.state.leases[lease]
            if done(mine):
                return mine
            if (mine.state, mine.candidates) != said:
                said = (mine.state, mine.candidates)
                progress(_SAY.get(mine.state, "{}").format(short(mine.provider)))
            await self.driver.moved()


_SAY = {
    LeaseState.QUOTING: "asking provider {} for a quote",
    LeaseState.FUNDING: "opening a payment channel to {} and waiting for its confirmation",
    LeaseState.OPENING: "provider {} prepares the lease",
    LeaseState.ENDING: "ending the lease at {}",
}


def info(lease: RentedLease) -> LeaseInfo:
    provider = lease.candidates[0].provider if lease.candidates else NodeKey(bytes(32))
    price = ceiling(lease.limits, lease.tariff, HOUR)
    why = str(lease.reason) if lease.reason else ""
    end = lease.announced
    return LeaseInfo(
        lease.id,
        lease.deployment,
        provider,
        lease.state.value,
        lease.limits,
        price,
        why,
        end.at if end else Instant(0),
    )


def _apart(query: Query, beside: Sequence[Place], avoid: Iterable[NodeKey]) -> Query:
    """As much of it as a query can say; ``beside.py`` looks again."""
    keys = dict.fromkeys([*(place.provider for place in beside), *avoid])
    lines = dict.fromkeys(line for place in beside for line in sorted(place.lines))
    return replace(query, avoid=tuple(keys)[:AVOID_MAX], avoid_nets=tuple(lines)[:AVOID_MAX])


def _why_failed(lease: RentedLease) -> UsageError:
    """Everybody's reasons, the last first: it has the code."""
    last = lease.reason or Reason("lease.failed", "the lease could not be opened")
    others = [f"{short(provider)}: {reason.text}" for provider, reason in lease.refusals[:-1]]
    also = f" (before that: {'; '.join(others)})" if others else ""
    return UsageError(last.code, last.text + also)


class Counted(Around):
    """A tunnel's Stream that counts its payload on our side."""

    def __init__(self, stream: Stream, sent: Callable[[int], None], received: Callable[[int], None]) -> None:
        super().__init__(stream)
        self._sent, self._received = sent, received

    async def read(self, limit: int) -> bytes:
        data = await self._stream.read(limit)
        self._received(len(data))
        return data

    async def write(self, data: bytes) -> None:
        self._sent(len(data))  # before it leaves: the provider may state it before we are called back
        await self._stream.write(data)

    def put(self, data: bytes) -> None:
        self._sent(len(data))
        self._stream.put(data)

    async def pour(self, take: Take) -> bool:
        def counted(piece: bytes) -> bool:
            self._received(len(piece))
            return take(piece)

        return await self._stream.pour(counted)
