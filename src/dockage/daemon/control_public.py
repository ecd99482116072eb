"""What of our own deployments is public: the control API's part (docs/reference/control-api.md)."""

from __future__ import annotations

from aiohttp import web

from .exposing import Way
from .node import Node
from .views import Json, dump, reason


def all_of(node: Node) -> list[Json]:
    return [_deployment(node, name) for name in node.exposing.deployments()]


def routes(node: Node) -> list[web.RouteDef]:
    async def listed(_: web.Request) -> web.Response:
        return web.Response(body=dump({"deployments": all_of(node)}), content_type="application/json")

    return [web.get("/v1/public", listed)]


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
        "in_flight": sum(site.in_flight for site in sites),
        "requests": sum(site.total for site in sites),
        "replicas": [
            {"lease": x.lease.hex(), "misses": x.misses, "in_flight": x.in_flight}
            for x in (signs.replicas if signs else ())
        ],
    }
