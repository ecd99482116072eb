"""The control API's part for a gateway's operator: what is served, and what is to be served no more."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.deployment import Document, normal_host
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import SECOND, since

from . import views
from .control_words import asked, reply
from .ingress import Ingress
from .node import Node

_KEY = re.compile(r"[0-9a-f]{8,64}")


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=300)]


def routes(node: Node) -> list[web.RouteDef]:
    calls = _Calls(node)
    return [
        web.get("/v1/gateway", calls.all),
        web.post("/v1/gateway/drop", calls.drop),
        web.post("/v1/gateway/allow", calls.allow),
    ]


class _Calls:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def all(self, _: web.Request) -> web.Response:
        told, ingress = self._node.config.gateway, self._ingress
        return reply(
            {
                "zone": told.zone,
                "public": list(told.public),
                "ports": told.ports,
                "deployments": [self._deployment(*each) for each in ingress.documents.items()],
                "dropped": list(ingress.dropped),
            }
        )

    async def drop(self, request: web.Request) -> web.Response:
        name = self._name((await asked(request, Named)).name)
        cut = await self._ingress.drop(name)
        return reply({"name": name, "leases": [lease.hex() for lease in cut]})

    async def allow(self, request: web.Request) -> web.Response:
        name = self._name((await asked(request, Named)).name)
        await self._ingress.allow(name)
        return reply({"name": name, "leases": []})

    @property
    def _ingress(self) -> Ingress:
        if self._node.ingress is None:
            raise UsageError(
                "gateway.none", "this node is no gateway; start one with dockage provide --gateway"
            )
        return self._node.ingress

    def _name(self, text: str) -> str:
        """A host name, or a tenant's key by any beginning that fits one only."""
        text = text.strip().lower()
        if _KEY.fullmatch(text):
            tenants = {document.tenant.hex() for document in self._ingress.documents.values()}
            found = {key for key in (*tenants, *self._ingress.dropped) if key.startswith(text)}
            if len(found) == 1:
                return found.pop()
            if len(text) == 64:
                return text
        if host := normal_host(text):
            return host
        raise UsageError(
            "gateway.name", f"{text!r} is no host name, and no key of a tenant here: see `dockage gateway`"
        )

    def _deployment(self, lease: LeaseId, document: Document) -> views.Json:
        signs = self._ingress.signs(lease)
        sites = signs.sites if signs else ()
        return {
            "lease": lease.hex(),
            "tenant": document.tenant.hex(),
            "name": document.name,
            "epoch": document.epoch,
            "left_sec": since(self._node.clock.now(), document.expires) // SECOND,
            "hosts": [host for site in document.sites for host in site.hosts],
            "public_ports": [f"{s.public_port}/{s.mode}" for s in document.sites if s.public_port],
            "in_flight": sum(site.in_flight for site in sites),
            "requests": sum(site.total for site in sites),
            "replicas": len(document.replicas),
            "replicas_up": sum(not replica.misses for replica in signs.replicas) if signs else 0,
        }
