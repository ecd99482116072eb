"""Joins a provider's mind with its hands and ears: what it sells, to whom, at which hours. A part of ``wiring.py``."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from dockage.domain.offer import Offer
from dockage.domain.reason import Reason
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node import records
from dockage.node.policy import ProviderPolicy
from dockage.node.provider_ending import remembered
from dockage.protocol import streams

from .access import Access
from .driver import Driver
from .fences import Fences
from .ground import Ground, Loop
from .hours import LOOK_SEC, Hours, HoursLoop, read_hours
from .ingress import Ingress
from .market import Announce, Notice
from .metering import MeterLoop
from .ownership import Ownership
from .peers import Opener
from .perform_provider import ProviderPerformer
from .prices import NOT_YET, PriceLoop
from .rows import changed
from .seeds import seed_server, source_opener
from .tasks import every
from .together import Together

BLOCKED = Reason("provider.blocked", "the provider does not serve your key any more")


class Sale(NamedTuple):
    """A provider, joined; all None where nothing is sold."""

    provider: Driver[selling.Provider] | None = None
    notice: Notice | None = None
    together: Together | None = None
    ingress: Ingress | None = None
    """Where it is a gateway."""


NOTHING_SOLD = Sale()


def wire_provider(
    ground: Ground,
    loops: list[Loop],
    policy: ProviderPolicy,
    hands: ProviderPerformer,
    open_stream: Opener,
    bundled: Opener,
    announce: Announce,
) -> Sale:
    provider = _mind(ground, policy, hands)
    _serve_tenants(ground, provider, open_stream)
    notice = _notice(ground, provider, announce)
    ingress = _gateway(ground, provider, bundled)
    loops += [*_loops(ground, provider, notice), *([ingress.run] if ingress else [])]
    return Sale(provider, notice, hands.together, ingress)


def _mind(ground: Ground, policy: ProviderPolicy, hands: ProviderPerformer) -> Driver[selling.Provider]:
    leases = [records.decode_sold_lease(r.value) for r in ground.rows if r.kind == records.SOLD]
    channels = [records.decode_channel(r.value) for r in ground.rows if r.kind == records.EARNING]
    drain = next((records.decode_drain(r.value) for r in ground.rows if r.kind == records.DRAIN), None)
    drain = remembered(drain, ground.clock.now())
    state = replace(selling.restore(policy, leases, channels, drain), unpriced=NOT_YET)
    if hours := _hours(ground):
        state = replace(state, closes_at=hours.closes_at(ground.clock.now()))
    hands.driver = Driver(state, selling.step, changed, ground.journal, hands.perform, ground.clock)
    return hands.driver


def _serve_tenants(ground: Ground, provider: Driver[selling.Provider], open_stream: Opener) -> None:
    assert ground.host is not None
    keys, clock, fences = ground.keys, ground.clock, Fences(ground.rows, ground.journal)
    Access(provider, ground.host, source_opener(open_stream), keys, clock, fences).register(ground.reception)
    ground.reception.serve_kind(streams.Seed, seed_server(provider, ground.host, keys, clock))
    if ground.tolls is not None:
        ground.tolls.connect(lambda lease: x.tenant if (x := provider.state.leases.get(lease)) else None)


def _notice(ground: Ground, provider: Driver[selling.Provider], announce: Announce) -> Notice:
    keys, clock = ground.keys, ground.clock

    def offered() -> Offer | None:
        """What only our own machines may rent is not shown to everybody."""
        state = provider.state
        closed = state.policy.only_own or selling.why_closed(state, clock.now())
        return None if closed else selling.offer(state, keys.node)

    bits = ground.config.node.stamp_bits
    return Notice(ground.directory, ground.link, keys, clock, offered, bits, announce)


def _gateway(ground: Ground, provider: Driver[selling.Provider], open_stream: Opener) -> Ingress | None:
    if ground.gateway is None:
        return None
    ground.gateway.connect(open_stream)
    sold = provider.state.policy.ingress
    owns = Ownership(ground.resolver, sold.zone if sold else "", ground.clock)
    ingress = Ingress(provider, ground.gateway, owns, ground.keys, ground.clock, ground.journal, ground.rows)
    ingress.register(ground.reception)
    return ingress


def _loops(ground: Ground, provider: Driver[selling.Provider], notice: Notice) -> list[Loop]:
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
        loops.append(partial(every, LOOK_SEC, watch.look, "hours"))
    return [partial(provider.run, selling.outstanding(provider.state)), *loops]


def _hours(ground: Ground) -> Hours | None:
    sells = ground.config.provider
    return read_hours(sells.hours, sells.time_zone) if sells.hours else None
