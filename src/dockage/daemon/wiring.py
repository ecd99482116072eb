"""Joins the minds with their hands and ears: all of a node that stands on ports alone.

Counterpart: ``system.py``, which puts real adapters under it; the tests put fakes there, so what is wired here
is what they test. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from msgspec.structs import replace

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.offer import Offer
from dockage.domain.reason import Reason
from dockage.domain.units import MINUTE, Duration, Sat
from dockage.node import effects as want
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import records
from dockage.node import tenant as renting
from dockage.node.evidence import known
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider_ending import remembered, why_closed
from dockage.ports.hosting import ContainerHost, Gateway, PricePolicy, Prober, Resolver
from dockage.ports.machine import Clock, Evidence, Journal, Keys, Row
from dockage.ports.peers import (
    Address,
    Directory,
    Neighbours,
    NewPake,
    PeerLink,
    PublicSquare,
    RelayFigures,
    Stream,
)
from dockage.protocol import streams
from dockage.wire.tolls import TollHost

from .access import Access
from .bargains import Bargains
from .bundles import Bundles
from .chainwatch import ChainWatch
from .config import Config, read_seed
from .contacts import Contacts
from .deputies import Deputies
from .deputising import Deputising
from .driver import Driver
from .edge import Edge
from .entrance import Entrance, Way
from .exposing import Exposing
from .fences import Fences
from .history import THIN_SEC, History
from .hours import LOOK_SEC, Hours, HoursLoop, read_hours
from .indexes import Indexes
from .indexing import CRAWL_SEC, PUBLISH_SEC, Indexer
from .ingress import Ingress
from .keeper import keeper
from .keeping import Keeping
from .linking import Linking
from .machines import Machines
from .market import Market, Notice
from .metering import MeterLoop
from .node import Node
from .outlets import Outlets
from .own import OwnMarket
from .ownership import Ownership
from .peers import Opener, Postman, Reception
from .perform_provider import ProviderPerformer
from .perform_tenant import TenantPerformer
from .planning import Planner, Terms
from .presence import Presence
from .prices import NOT_YET, PriceLoop
from .publishing import Publisher
from .queries import Queries
from .rail import Rail
from .reach import Reach
from .relayed import Relayed
from .renting import Renting
from .seeds import seed_server, source_opener
from .steps import Steps
from .tasks import Jobs, every
from .tunnels import TunnelCounts
from .zones import Zones

TICK_SEC = 1.0
BLOCKED = Reason("provider.blocked", "the provider does not serve your key any more")
LAN_SEC = 5.0
MAINLINE_SEC = 30.0
"""For the first addresses to come from there."""

Loop = Callable[[], Awaitable[None]]
IntoLease = Callable[[LeaseId], Awaitable[Stream]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What a node stands on: one part behind each port."""

    home: Path
    config: Config
    keys: Keys
    clock: Clock
    journal: Journal
    evidence: Evidence
    rows: Sequence[Row]
    """What the journal held at the start."""
    link: PeerLink
    reception: Reception
    directory: Directory
    entered: asyncio.Event
    """Set once the market was looked for, found or not."""
    rail: Rail | None
    host: ContainerHost | None
    """None where nothing is sold."""
    prices: PricePolicy
    prober: Callable[[IntoLease, IntoLease], Prober] | None
    """Makes it from the ways to a lease's engine and to send it an image; None where nobody looks."""
    rand: Random
    architecture: str
    """Of our own images, as the kernel names it."""
    new_pake: NewPake
    relay: Callable[[], RelayFigures] | None = None
    """Of the relay that this node runs for others."""
    neighbours: Callable[[], Neighbours] | None = None
    """Makes the port; None where the extra is not installed."""
    contacts: Contacts | None = None
    """Where the board is many nodes."""
    square: PublicSquare | None = None
    hostname: str = "machine"
    gateway: Gateway | None = None
    """The same part as ``host``, where that is a gateway's."""
    resolver: Resolver | None = None
    """Of a gateway, for tenants' own domains."""
    tolls: TollHost | None = None
    """The same part as ``host``, where that is a relay's that is paid."""


def wire(
    ground: Ground, policy: ProviderPolicy | None, patience: TenantPolicy | None = None
) -> tuple[Node, list[Loop]]:
    """The node, and what must run while it lives. *policy*: how it sells, if it does."""
    keys, clock, link, jobs = ground.keys, ground.clock, ground.link, Jobs()
    reach = Reach(link, ground.directory, keys, clock)
    postman, bundles = Postman(reach.open, keys, jobs), Bundles(reach.open, ground.link.current, jobs)
    counts = TunnelCounts(ground.rows, ground.journal)
    planner = _planner(ground)
    tenant_hands = TenantPerformer(
        postman, ground.rail, jobs, keys.node, ground.evidence, planner, ground.rand
    )
    tenant = _tenant(ground, tenant_hands, patience or _tenant_policy(ground))
    machines = Machines(ground.rows, ground.journal, link)
    named = [read_seed(text) for text in ground.config.node.indexes]
    indexes = Indexes(ground.directory, link, keys, clock, named, ground.rand)
    provider = notice = together = ingress = None
    relayed = _relayed(ground, tenant)
    loops: list[Loop] = [jobs.run, lambda: link.serve(ground.reception.accept)]
    if policy is not None and ground.host is not None:
        hands = ProviderPerformer(postman, ground.rail, jobs, ground.host)
        provider, notice = _sell(ground, replace(policy, own=machines.keys), hands, reach, indexes)
        together = hands.together
        ingress = _open_gateway(ground, provider, bundles)
        loops += [*_selling_loops(ground, provider, notice), *([ingress.run] if ingress else [])]
    own, linking, entrance, more = _own(ground, machines, provider, reach)
    loops += more
    market = Market(ground.directory, link, keys, clock, ground.config.node.regions, own.offers)
    ways = (reach.open, bundles.open)
    rents = _renting(ground, tenant, Queries(market, indexes, clock, ground.rand), ways, counts, planner)
    indexer = _indexer(ground) if ground.config.node.index else None
    loops += _indexing_loops(ground, indexer) if indexer is not None else []
    if ground.prober is not None:
        tenant_hands.prober = ground.prober(rents.engine, rents.layers)
    loops += [_driving(tenant, renting.outstanding(tenant.state)), rents.drop_unfinished]
    loops += _clockwork(ground, tenant, provider, counts)
    history = History(ground.journal, clock)
    loops.append(lambda: every(THIN_SEC, history.thin, "history"))
    stored, steps = (ground.journal, ground.rows), Steps()
    keeping, controller = keeper(keys, clock, *stored, tenant, rents, reach.open, jobs, steps)
    loops += [_driving(controller, ()), keeping.run, Bargains(keeping).run]
    deputies = _deputies(ground, loops, machines, keeping, tenant, reach, jobs, steps)
    publisher = Publisher(tenant, reach.open, keys, relayed)
    exposing = _exposing(ground, loops, tenant, rents, keeping, publisher)
    exposing.waits, exposing.stead = deputies[0].deputy_runs, deputies[1].stead
    edge = Edge(provider, tenant, keys, ground.rail, together, postman, counts, relayed, clock)
    ground.reception.handle = edge.handle
    node = Node(
        ground.home,
        ground.config,
        clock.now(),
        keys,
        clock,
        link,
        ground.reception,
        tenant,
        market,
        rents,
        ground.rail,
        provider,
        notice,
        ground.host,
        history,
        *(machines, own, linking, entrance, keeping, publisher, exposing, *deputies),
        indexer=indexer,
        relay=ground.relay,
        steps=steps,
        ingress=ingress,
    )
    return node, loops


# -- the tenant --------------------------------------------------------------------------------------
def _tenant(ground: Ground, hands: TenantPerformer, policy: TenantPolicy) -> Driver[renting.Tenant]:
    leases = [records.decode_rented_lease(r.value) for r in ground.rows if r.kind == records.RENTED]
    channels = [records.decode_channel(r.value) for r in ground.rows if r.kind == records.PAYING]
    state = renting.restore(ground.keys.node, policy, leases, channels)
    hands.driver = Driver(state, renting.step, changed, ground.journal, hands.perform, ground.clock)
    return hands.driver


def _tenant_policy(ground: Ground) -> TenantPolicy:
    wanted = ground.config.tenant
    every_ = wanted.check_minutes * MINUTE if wanted.checks and ground.prober is not None else 0
    return TenantPolicy(refill=ground.config.channel.refill, check_every=Duration(every_))


def _planner(ground: Ground) -> Planner | None:
    if ground.rail is None:
        return None
    limits = ground.config.channel
    terms = Terms(limits.hours, limits.overhead_percent, limits.expiry_blocks, Sat(limits.largest_sat))
    return Planner(ground.rail, ground.keys.node, terms)


def _renting(
    ground: Ground,
    tenant: Driver[renting.Tenant],
    queries: Queries,
    openers: tuple[Opener, Opener],
    counts: TunnelCounts,
    planner: Planner | None,
) -> Renting:
    return Renting(
        tenant,
        queries,
        *openers,
        ground.config.bitcoin.network,
        counts,
        planner,
        ground.architecture,
        lambda: known(tenant.state, ground.clock.now()).risk,
    )


def _exposing(
    ground: Ground,
    loops: list[Loop],
    tenant: Driver[renting.Tenant],
    rents: Renting,
    keeping: Keeping,
    publisher: Publisher,
) -> Exposing:
    keys, clock = ground.keys, ground.clock
    outlets = Outlets(rents, tenant, clock, ground.journal, ground.rows, keeping.hands.place)
    zones = Zones(ground.directory, keys, clock, ground.config.node.stamp_bits)
    patience = ground.config.tenant.gateway_patience_sec
    exposing = Exposing(keys.node, keeping, tenant, outlets, publisher, zones, clock, patience)

    async def keep_zones() -> None:
        await ground.entered.wait()
        await zones.keep_up()

    loops += [exposing.run, keep_zones]
    return exposing


def _deputies(
    ground: Ground,
    loops: list[Loop],
    machines: Machines,
    keeping: Keeping,
    tenant: Driver[renting.Tenant],
    reach: Reach,
    jobs: Jobs,
    steps: Steps,
) -> tuple[Deputies, Deputising]:
    stored = (ground.keys, ground.clock, ground.journal, ground.rows, machines, keeping, tenant, reach.open)
    allowance = Sat(ground.config.tenant.deputy_sat)
    deputies, deputising = Deputies(*stored, jobs, steps), Deputising(*stored, jobs, allowance)
    ground.reception.serve_kind(streams.Deputy, deputising.serve)
    ground.reception.serve_kind(streams.DeputyImage, deputising.serve_image)
    loops += [_driving(deputising.driver, ()), deputising.run, deputies.run]
    return deputies, deputising


def _relayed(ground: Ground, tenant: Driver[renting.Tenant]) -> Relayed:
    stated = [(x.id, x.last.usage) for x in tenant.state.leases.values() if x.last is not None]
    return Relayed(ground.rows, ground.journal, stated)


# -- our user's other machines -------------------------------------------------------------------------
def _own(
    ground: Ground, machines: Machines, provider: Driver[selling.Provider] | None, reach: Reach
) -> tuple[OwnMarket, Linking, Entrance | None, list[Loop]]:
    wanted, link, clock, keys = ground.config.node, ground.link, ground.clock, ground.keys

    def offered() -> Offer | None:
        """They pay nothing, so that there is no price at the moment does not matter."""
        closed = provider is None or why_closed(provider.state, clock.now())
        return None if provider is None or closed else selling.offer(provider.state, keys.node)

    async def changed() -> None:
        if provider is not None:
            await provider.tell(told.Linked(machines.keys))

    machines.changed = changed
    known = ground.contacts.live if ground.contacts else tuple
    own = OwnMarket(machines, link, reach.open, keys, clock, offered, known)
    presence = Presence(
        ground.neighbours, link, machines, network=wanted.network, market=wanted.market, always=wanted.lan
    )
    name = wanted.name or ground.hostname
    linking = Linking(link, clock, machines, presence, ground.new_pake, ground.rand, name)
    ground.reception.serve_kind(streams.Own, own.serve)
    ground.reception.serve_kind(streams.Pairing, linking.serve)
    entrance, more = _entrance(ground, own, presence)
    return own, linking, entrance, [own.run, presence.run, linking.run, *more]


def _entrance(ground: Ground, own: OwnMarket, presence: Presence) -> tuple[Entrance | None, list[Loop]]:
    if ground.contacts is None:
        return None, []
    wanted, square = ground.config.node, ground.square

    async def hints() -> Sequence[tuple[NodeKey, Address]]:
        return own.hints()

    ways, loops = [Way("machines", hints, 1.0)], list[Loop]()
    if wanted.lan:
        ways.append(Way("lan", lambda: presence.market_nodes(LAN_SEC), 2 * LAN_SEC))
    if square is not None:
        ways.append(Way("mainline", lambda: square.find(MAINLINE_SEC), 2 * MAINLINE_SEC))
        loops += [square.stand] if wanted.market else []
    entrance = Entrance(ground.contacts, ways, ground.entered, is_market=wanted.market)
    return entrance, [entrance.run, ground.contacts.keep_up, *loops]


# -- the provider ------------------------------------------------------------------------------------
def _sell(
    ground: Ground, policy: ProviderPolicy, hands: ProviderPerformer, reach: Reach, indexes: Indexes
) -> tuple[Driver[selling.Provider], Notice]:
    assert ground.host is not None
    leases = [records.decode_sold_lease(r.value) for r in ground.rows if r.kind == records.SOLD]
    channels = [records.decode_channel(r.value) for r in ground.rows if r.kind == records.EARNING]
    drain = next((records.decode_drain(r.value) for r in ground.rows if r.kind == records.DRAIN), None)
    drain = remembered(drain, ground.clock.now())
    state = replace(selling.restore(policy, leases, channels, drain), unpriced=NOT_YET)
    if hours := _hours(ground):
        state = replace(state, closes_at=hours.closes_at(ground.clock.now()))
    hands.driver = Driver(state, selling.step, changed, ground.journal, hands.perform, ground.clock)
    if ground.tolls is not None:
        ground.tolls.connect(lambda lease: x.tenant if (x := hands.driver.state.leases.get(lease)) else None)
    fences = Fences(ground.rows, ground.journal)
    access = Access(hands.driver, ground.host, source_opener(reach.open), ground.keys, ground.clock, fences)
    access.register(ground.reception)
    seeding = seed_server(hands.driver, ground.host, ground.keys, ground.clock)
    ground.reception.serve_kind(streams.Seed, seeding)
    notice = Notice(
        ground.directory,
        ground.link,
        ground.keys,
        ground.clock,
        _offering(hands.driver, ground.keys, ground.clock),
        ground.config.node.stamp_bits,
        indexes.announce,
    )
    return hands.driver, notice


def _open_gateway(ground: Ground, provider: Driver[selling.Provider], bundles: Bundles) -> Ingress | None:
    if ground.gateway is None:
        return None
    ground.gateway.connect(bundles.open)
    sold = provider.state.policy.ingress
    owns = Ownership(ground.resolver, sold.zone if sold else "", ground.clock)
    ingress = Ingress(provider, ground.gateway, owns, ground.keys, ground.clock, ground.journal, ground.rows)
    ingress.register(ground.reception)
    return ingress


def _offering(provider: Driver[selling.Provider], keys: Keys, clock: Clock) -> Callable[[], Offer | None]:
    """For the board: what only our own machines may rent is not shown to everybody."""

    def offer() -> Offer | None:
        state = provider.state
        closed = state.policy.only_own or selling.why_closed(state, clock.now())
        return None if closed else selling.offer(state, keys.node)

    return offer


def _selling_loops(ground: Ground, provider: Driver[selling.Provider], notice: Notice) -> list[Loop]:
    assert ground.host is not None
    meter = MeterLoop(provider, ground.host, ground.clock, ground.rand)

    async def keep_up() -> None:
        await ground.entered.wait()
        await notice.keep_up()

    async def drop_blocked() -> None:
        """Whom our user serves no more loses what runs, too."""
        state = provider.state
        for lease in list(state.leases.values()):
            if lease.tenant in state.policy.blocked and not lease.is_over:
                await provider.post(told.EndRequested(lease.id, BLOCKED))

    prices = PriceLoop(provider, ground.prices, provider.state.policy.tariff)
    loops: list[Loop] = [meter.run, prices.run, keep_up, drop_blocked]
    if hours := _hours(ground):
        watch = HoursLoop(provider, hours, ground.clock)
        loops.append(lambda: every(LOOK_SEC, watch.look, "hours"))
    return [_driving(provider, selling.outstanding(provider.state)), *loops]


def _hours(ground: Ground) -> Hours | None:
    sells = ground.config.provider
    return read_hours(sells.hours, sells.time_zone) if sells.hours else None


# -- the index ---------------------------------------------------------------------------------------
def _indexer(ground: Ground) -> Indexer:
    node = ground.config.node
    indexer = Indexer(ground.directory, ground.link, ground.keys, ground.clock, node.regions, node.stamp_bits)
    ground.reception.serve_kind(streams.Index, indexer.serve)
    return indexer


def _indexing_loops(ground: Ground, indexer: Indexer) -> list[Loop]:
    async def crawl() -> None:
        await ground.entered.wait()
        await every(CRAWL_SEC, indexer.crawl, "index")

    async def publish() -> None:
        await ground.entered.wait()
        await every(PUBLISH_SEC, indexer.publish, "index-notice")

    return [crawl, publish]


# -- both --------------------------------------------------------------------------------------------
def _driving(driver: Driver[Any], outstanding: Sequence[want.AnyEffect]) -> Loop:
    return lambda: driver.run(outstanding)


def _clockwork(
    ground: Ground,
    tenant: Driver[renting.Tenant],
    provider: Driver[selling.Provider] | None,
    counts: TunnelCounts,
) -> list[Loop]:
    minds = [mind for mind in (provider, tenant) if mind is not None]

    async def tick() -> None:
        for mind in minds:
            await mind.post(told.Ticked())

    loops: list[Loop] = [
        lambda: every(TICK_SEC, tick, "tick"),
        lambda: every(TICK_SEC, counts.save, "tunnel-counts"),
    ]
    if ground.rail is not None:
        watch = ChainWatch(ground.rail, minds, ground.clock)
        loops.append(lambda: every(ground.config.bitcoin.poll_sec, watch.poll, "chain"))
    return loops


def changed(before: Any, after: Any) -> list[Row]:
    """The rows in which two states of a mind differ."""
    return [Row(*record) for record in records.changes(before, after)]
