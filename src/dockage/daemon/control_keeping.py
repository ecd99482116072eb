"""What the controller keeps, as people and programs are shown it; and the two commands it takes (docs/reference)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.errors import UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant, since
from dockage.node.kept import Chapter, Deployment, Replica

from .control_words import asked, reply
from .node import Node
from .views import Json, reason
from .wishes import COPIES_MAX, read_wishes

UPDATE = "dockage.update-"


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    replicas: Annotated[int, msgspec.Meta(ge=0, le=COPIES_MAX)]


class Moving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    to: str = ""
    """The first hex digits of a provider's key; "" = the best other one."""


class Updating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: dict[str, str]
    """``dockage.update-*``: they count where the deployment itself has none."""


def deployment(of: Deployment, now: Instant) -> Json:
    return {
        "deployment": of.name,
        "wanted": of.wanted,
        "standby": of.standbys_wanted,
        "epoch": of.epoch,
        "looking": bool(of.asks),
        "hindrance": reason(of.hindrance),
        "rollout": _rollout(of),
        "setback": reason(of.setback),
        "msat_hour_max": of.msat_hour,
        "replicas": [_replica(of, x, now) for x in of.replicas.values()],
        "story": [_chapter(x, now) for x in of.story],
    }


def _rollout(of: Deployment) -> str:
    """Nothing while none is under way."""
    rollout = of.rollout
    if rollout is None:
        return ""
    if rollout.failed is not None:
        return "paused" if rollout.paused else "rolling back"
    if not rollout.through:
        return "changing" if rollout.place in of.replicas else "waiting for a copy"
    return "rolling" if rollout.admitted else "proving"


def _replica(of: Deployment, x: Replica, now: Instant) -> Json:
    verdict = x.verdict(now)
    return {
        "lease": x.lease.hex(),
        "provider": x.place.provider.hex(),
        "region": x.place.region,
        "state": "lost" if x.lost_at else x.stage.value,
        "health": verdict.health.value,
        "reason": reason(x.moving or verdict.reason),
        "primary": x.lease == of.primary,
        "epoch": x.epoch,
        "since_sec": since(x.since, now) // SECOND,
        "msat_hour_max": x.msat_hour,
    }


def _chapter(x: Chapter, now: Instant) -> Json:
    return {
        "at_ns": x.at,
        "ago_sec": since(x.at, now) // SECOND,
        "what": x.what,
        "lease": x.lease.hex(),
        "other": x.other.hex(),
        **(reason(x.reason) or {}),
    }


def all_of(node: Node) -> list[Json]:
    now = node.clock.now()
    return [deployment(x, now) for x in node.keeping.state.deployments.values()]


def routes(node: Node) -> list[web.RouteDef]:
    async def listed(_: web.Request) -> web.Response:
        return reply({"deployments": all_of(node)})

    async def scale(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        await node.keeping.scale(name, (await asked(request, Scaling)).replicas)
        return reply(_one(node, name))

    async def move(request: web.Request) -> web.Response:
        name, prefix = request.match_info["name"], (await asked(request, Moving)).to.lower()
        await node.keeping.move(name, await _provider(node, prefix) if prefix else None)
        return reply(_one(node, name))

    async def update(request: web.Request) -> web.Response:
        labels = (await asked(request, Updating)).labels
        if any(not name.startswith(UPDATE) for name in labels):
            raise UsageError("label.unknown", f"only labels {UPDATE}* are taken here")
        read_wishes(labels)
        node.keeping.said[request.match_info["name"]] = labels
        return reply({})

    return [
        web.post("/v1/deployments/{name}/update", update),
        web.get("/v1/deployments", listed),
        web.post("/v1/deployments/{name}/scale", scale),
        web.post("/v1/deployments/{name}/move", move),
    ]


async def _provider(node: Node, prefix: str) -> NodeKey:
    """Raises UsageError("market.nothing-fits") unless exactly one on the market begins so."""
    found = {
        x.offer.provider for x in await node.market.search() if x.offer.provider.hex().startswith(prefix)
    }
    if len(found) != 1:
        what = "more than one begins" if found else "no provider on the market begins"
        raise UsageError("market.nothing-fits", f"{what} with {prefix!r}: `dockage market` lists them")
    return found.pop()


def _one(node: Node, name: str) -> Json:
    return deployment(node.keeping.state.deployments[name], node.clock.now())
