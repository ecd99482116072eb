"""The control API's part for the market: who sells what, what renting would cost, and why nothing fits or it ended."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.advice import changes
from dockage.domain.channel import NOTHING
from dockage.domain.errors import UsageError
from dockage.domain.pricing import usual, waiting
from dockage.domain.query import MOST_MAX, Query
from dockage.domain.resources import Resources
from dockage.domain.units import HOUR
from dockage.node.evidence import known
from dockage.protocol.bitcoin.settlement import overhead

from . import control_keeping, control_money, control_public, views
from .control_words import NotFound, asked, reply
from .market import explain
from .node import Node
from .paidrelay import NAME as RELAY
from .patience import patiently
from .renting import silently
from .wishes import GATEWAYS_MAX, Wishes, read_wishes


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a deployment needs: the question of /market and /quote."""

    cpu_milli: int = 1000
    memory_bytes: int = 512 << 20
    disk_bytes: int = 1 << 30
    cpu_soft_milli: int = 0
    """Of ``cpu_milli``, what need not be kept free for it."""
    memory_soft_bytes: int = 0
    labels: dict[str, str] = {}
    gateways: Annotated[int, msgspec.Meta(ge=0, le=GATEWAYS_MAX)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 500
    """Of offers in an answer."""
    per_network: Annotated[int, msgspec.Meta(ge=0, le=MOST_MAX)] = 0
    """Of one /24, /48 or relay; 0: any number."""


def routes(node: Node) -> list[web.RouteDef]:
    calls = _Calls(node)
    return [
        web.post("/v1/market", calls.market),
        web.post("/v1/quote", calls.quote),
        web.get("/v1/why/{what:.+}", calls.why),  # whatever the user typed is a name
    ]


class _Calls:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def market(self, request: web.Request) -> web.Response:
        """Offers, priced for the deployment asked about, cheapest first, those that fit before the rest."""
        need = await asked(request, Need)
        limits, wishes = _wanted(need)
        wish = self._node.renting.wish(limits, wishes)
        query = Query(wish, near=True, most=MOST_MAX, per_net=need.per_network)
        answer = await patiently(lambda: self._node.renting.queries.ask(query, need.limit), silently)
        found = answer.found
        now = self._node.clock.now()
        seen = known(self._node.tenant.state, now)
        offers = [views.offer(x, wish, now, seen) for x in found]
        offers.sort(key=views.offer_order)
        fits = any(not o["obstacles"] for o in offers)
        candidates = [x.offer for x in found]
        why = "" if fits else explain(candidates, wish, seen.risk)
        helpful = () if fits else changes(candidates, wish, seen.risk)
        return reply(
            {
                "offers": offers,
                "why": why,
                "changes": [views.change(x) for x in helpful],
                "fitting": answer.fitting,
                "known": answer.known,
                "indexes": [key.hex() for key in answer.indexes],
            }
        )

    async def quote(self, request: web.Request) -> web.Response:
        """What renting now would cost, before anything is asked of anybody."""
        need = await asked(request, Need)
        limits, wishes = _wanted(need)
        offer, best, others = await self._node.renting.quote(limits, wishes)
        prices = await control_public.gateway_prices(self._node, wishes, need.gateways)
        feerate = await control_money.feerate(self._node)
        plan = best.plan
        fees = overhead(feerate, plan.setup_sat if plan else NOTHING)
        size = plan.capacity if plan else 0
        return reply(
            {
                "provider": best.provider.hex(),
                "region": offer.region,
                "architecture": offer.architecture,
                "opacity": offer.opacity,
                "isolation": offer.isolation,
                "tariff": views.tariff(offer.tariff),
                "msat_hour_max": best.msat_hour,
                "msat_hour_usual": usual(limits, offer.tariff, HOUR),
                "channel_sat": size,
                "channel_sat_min": fees.smallest_capacity(self._node.config.channel.overhead_percent),
                "settlement_overhead_sat": fees.total if size else 0,
                "settlement_overhead_percent": round(100 * fees.total / size, 2) if size else 0,
                "feerate": feerate,
                "alternatives": others,
                "replicas": 1 if wishes.replicas is None else wishes.replicas,
                "standby": wishes.standby,
                "msat_hour_standby": waiting(limits, offer.tariff, HOUR),
                "gateways": need.gateways,
                "gateways_found": len(prices),
                "msat_hour_gateways": sum(prices),
            }
        )

    async def why(self, request: web.Request) -> web.Response:
        """What became of a lease or a deployment: its state, its reason, and who refused it before."""
        what = request.match_info["what"].lower()
        now = self._node.clock.now()
        leases = [
            views.rented(x, now)
            for x in self._node.tenant.state.leases.values()
            if x.id.hex().startswith(what) or x.deployment.lower() == what
        ]
        channels = [
            c for c in await control_money.all_channels(self._node) if str(c["channel"]).startswith(what)
        ]
        kept = [x for x in control_keeping.all_of(self._node) if str(x["deployment"]).lower() == what]
        relay = views.paid_relay(self._node.reached.paid, now) if what == RELAY else None
        if not (leases or channels or relay):
            raise NotFound("control.not-found", f"no lease, deployment or channel is called {what}")
        return reply({"leases": leases, "channels": channels, "kept": kept, "paid_relay": relay})


def _wanted(need: Need) -> tuple[Resources, Wishes]:
    limits = Resources(*(getattr(need, name) for name in Resources.__struct_fields__))
    if not limits.is_sane:
        raise UsageError("control.malformed", "a need is neither negative nor beyond any machine")
    return limits, read_wishes(need.labels)
