"""Joins the minds with their hands and ears: all of a node that stands on ports alone.

Counterpart: ``system.py``, which puts real adapters under it; the tests put fakes there, so what is wired here
is what they test. Nothing here decides anything.
"""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from dockage.domain.units import MINUTE, Duration, Sat
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import records
from dockage.node import tenant as renting
from dockage.node.evidence import known
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.protocol import streams

from .bargains import Bargains
from .bundles import Bundles
from .chainwatch import ChainWatch
from .config import read_seed
from .deputies import Deputies
from .deputising import Deputising
from .driver import Driver
from .edge import Edge
from .exposing import Exposing
from .ground import Ground, Loop
from .history import THIN_SEC, History
from .indexes import Indexes
from .indexing import CRAWL_SEC, PUBLISH_SEC, Indexer
from .keeper import keeper
from .keeping import Keeping
from .machines import Machines
from .market import Market
from .node import Node
from .outlets import Outlets
from .peers import Opener, Postman
from .perform_provider import ProviderPerformer
from .perform_tenant import TenantPerformer
from .planning import Planner, Terms
from .publishing import Publisher
from .queries import Queries
from .reach import Reach
from .relayed import Relayed
from .renting import Renting
from .rows import changed
from .steps import Steps
from .tasks import Jobs, every
from .tunnels import TunnelCounts
from .wiring_machines import wire_machines
from .wiring_provider import NOTHING_SOLD, wire_provider
from .zones import Zones

TICK_SEC = 1.0


def wire(
    ground: Ground, policy: ProviderPolicy | None, patience: TenantPolicy | None = None
) -> tuple[Node, list[Loop]]:
    """The node, and what must run while it lives. *policy*: how it sells, if it does."""
    keys, clock, link, jobs = ground.keys, ground.clock, ground.link, Jobs()
    reach = Reach(link, ground.directory, keys, clock)
    postman, bundles = Postman(reach.open, keys, jobs), Bundles(reach.open, ground.link.current, jobs)
    ways = (reach.open, bundles.open)
    counts = TunnelCounts(ground.rows, ground.journal)
    planner = _planner(ground)
    hands = _tenant(ground, patience or _tenant_policy(ground), postman, jobs, planner)
    tenant = hands.driver
    machines = Machines(ground.rows, ground.journal, link)
    indexes = _indexes(ground)
    relayed = _relayed(ground, tenant)
    loops: list[Loop] = [jobs.run, partial(link.serve, ground.reception.accept)]
    sale = NOTHING_SOLD
    if policy is not None and ground.host is not None:
        selling_hands = ProviderPerformer(postman, ground.rail, jobs, ground.host)
        policy = replace(policy, own=machines.keys)
        sale = wire_provider(ground, loops, policy, selling_hands, *ways, indexes.announce)
    own, linking, entrance = wire_machines(ground, loops, machines, sale.provider, reach.open)
    market = Market(ground.directory, link, keys, clock, ground.config.node.regions, own.offers)
    queries = Queries(market, indexes, clock, ground.rand)
    rents = _renting(ground, tenant, queries, ways, counts, planner)
    indexer = _indexer(ground, loops) if ground.config.node.index else None
    if ground.prober is not None:
        hands.prober = ground.prober(rents.engine, rents.layers)
    loops += [partial(tenant.run, renting.outstanding(tenant.state)), rents.drop_unfinished]
    loops += _clockwork(ground, tenant, sale.provider, counts)
    history, steps = History(ground.journal, clock), Steps()
    loops.append(partial(every, THIN_SEC, history.thin, "history"))
    keeping = _keeping(ground, loops, tenant, rents, reach, jobs, steps)
    deputies, deputising = _deputies(ground, loops, machines, keeping, tenant, reach, jobs, steps)
    publisher = Publisher(tenant, reach.open, keys, relayed)
    exposing = _exposing(ground, loops, tenant, rents, keeping, publisher)
    exposing.waits, exposing.stead = deputies.deputy_runs, deputising.stead
    edge = Edge(sale.provider, tenant, keys, ground.rail, sale.together, postman, counts, relayed, clock)
    ground.reception.handle = edge.handle
    node = Node(
        home=ground.home,
        config=ground.config,
        started=clock.now(),
        keys=keys,
        clock=clock,
        link=link,
        reception=ground.reception,
        tenant=tenant,
        market=market,
        renting=rents,
        rail=ground.rail,
        provider=sale.provider,
        notice=sale.notice,
        host=ground.host,
        history=history,
        machines=machines,
        own=own,
        linking=linking,
        entrance=entrance,
        keeping=keeping,
        publisher=publisher,
        exposing=exposing,
        deputies=deputies,
        deputising=deputising,
        indexer=indexer,
        relay=ground.relay,
        steps=steps,
        ingress=sale.ingress,
    )
    return node, loops


# -- the tenant --------------------------------------------------------------------------------------
def _tenant(
    ground: Ground, policy: TenantPolicy, postman: Postman, jobs: Jobs, planner: Planner | None
) -> TenantPerformer:
    me, rail = ground.keys.node, ground.rail
    hands = TenantPerformer(postman, rail, jobs, me, ground.evidence, planner, ground.rand)
    leases = [records.decode_rented_lease(r.value) for r in ground.rows if r.kind == records.RENTED]
    channels = [records.decode_channel(r.value) for r in ground.rows if r.kind == records.PAYING]
    state = renting.restore(me, policy, leases, channels)
    hands.driver = Driver(state, renting.step, changed, ground.journal, hands.perform, ground.clock)
    return hands


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


def _keeping(
    ground: Ground,
    loops: list[Loop],
    tenant: Driver[renting.Tenant],
    rents: Renting,
    reach: Reach,
    jobs: Jobs,
    steps: Steps,
) -> Keeping:
    stored = (ground.keys, ground.clock, ground.journal, ground.rows)
    keeping, controller = keeper(*stored, tenant, rents, reach.open, jobs, steps)
    loops += [partial(controller.run, ()), keeping.run, Bargains(keeping).run]
    return keeping


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
    loops += [partial(deputising.driver.run, ()), deputising.run, deputies.run]
    return deputies, deputising


def _relayed(ground: Ground, tenant: Driver[renting.Tenant]) -> Relayed:
    stated = [(x.id, x.last.usage) for x in tenant.state.leases.values() if x.last is not None]
    return Relayed(ground.rows, ground.journal, stated)


# -- the index ---------------------------------------------------------------------------------------
def _indexes(ground: Ground) -> Indexes:
    named = [read_seed(text) for text in ground.config.node.indexes]
    return Indexes(ground.directory, ground.link, ground.keys, ground.clock, named, ground.rand)


def _indexer(ground: Ground, loops: list[Loop]) -> Indexer:
    node = ground.config.node
    indexer = Indexer(ground.directory, ground.link, ground.keys, ground.clock, node.regions, node.stamp_bits)
    ground.reception.serve_kind(streams.Index, indexer.serve)

    async def crawl() -> None:
        await ground.entered.wait()
        await every(CRAWL_SEC, indexer.crawl, "index")

    async def publish() -> None:
        await ground.entered.wait()
        await every(PUBLISH_SEC, indexer.publish, "index-notice")

    loops += [crawl, publish]
    return indexer


# -- both --------------------------------------------------------------------------------------------
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
        partial(every, TICK_SEC, tick, "tick"),
        partial(every, TICK_SEC, counts.save, "tunnel-counts"),
    ]
    if ground.rail is not None:
        watch = ChainWatch(ground.rail, minds, ground.clock)
        loops.append(partial(every, ground.config.bitcoin.poll_sec, watch.poll, "chain"))
    return loops
