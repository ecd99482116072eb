"""What of our own deployments is public: the control API's part (docs/reference/control-api.md)."""

from __future__ import annotations

from aiohttp import web

from dockage.domain.errors import UsageError
from dockage.domain.offer import GATEWAY, hourly_ceiling
from dockage.domain.resources import INGRESS
from dockage.domain.units import Msat

from .control_words import reply
from .exposing import Way
from .node import Node
from .renting import silently
from .views import Json, reason
from .wishes import Wishes, gateway_wishes


def all_of(node: Node) -> list[Json]:
    return [_deployment(node, name) for name in node.exposing.deployments()]


def routes(node: Node) -> list[web.RouteDef]:
    async def listed(_: web.Request) -> web.Response:
        return reply({"deployments": all_of(node)})

    return [web.get("/v1/public", listed)]


async def gateway_prices(node: Node, wishes: Wishes, count: int) -> list[Msat]:
    """What the best *count* gateways cost an hour at most, traffic aside; fewer where there are fewer."""
    if not count:
        return []
    try:
        found = await node.renting.fitting(INGRESS, gateway_wishes(wishes, None), silently, service=GATEWAY)
    except UsageError:
        return []
    return [hourly_ceiling(offer, INGRESS) for offer in found[:count]]


def _deployment(node: Node, name: str) -> Json:
    ways = node.exposing.ways(name)
    urls = dict.fromkeys(url for way in ways if way.telling.is_open for url in way.urls)
    return {
        "deployment": name,
        "urls": [{"service": service, "url": url} for service, url in urls],
        "gateways": [_gateway(x) for x in ways],
        "looking": node.exposing.is_looking(name),
        "hindrance": reason(node.exposing.troubles.get(name)),
    }


def _gateway(of: Way) -> Json:
    signs = of.telling.signs
    sites = signs.sites if signs else ()
    return {
        "lease": of.outlet.lease.hex(),
        "gateway": of.outlet.gateway.hex(),
        "zone": of.outlet.ingress.zone if of.outlet.ingress else "",
        "addresses": list(of.outlet.ingress.addresses) if of.outlet.ingress else [],
        "open": of.telling.is_open,
        "epoch": of.telling.epoch,
        "reason": reason(of.telling.trouble),
        "urls": [{"service": service, "url": url} for service, url in of.urls],
        "hosts": [host for site in of.telling.served for host in site.hosts],
        "in_flight": sum(site.in_flight for site in sites),
        "requests": sum(site.total for site in sites),
        "replicas": [
            {"lease": x.lease.hex(), "misses": x.misses, "in_flight": x.in_flight}
            for x in (signs.replicas if signs else ())
        ],
    }
