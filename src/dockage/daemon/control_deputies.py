"""The control API's part for deputies: those of our deployments, and whose we are (docs/reference/control-api.md)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, SECOND, Duration, Sat, msat, since
from dockage.node.deputy import Charge

from .control_words import asked, reply
from .deputies import Mine, Standing
from .node import Node
from .views import Json, reason

_Sat = Annotated[int, msgspec.Meta(ge=0, le=21_000_000 * 100_000_000)]


class Adding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    deployment: str
    machine: str
    """Of a linked one: its name, or the beginning of its key."""
    budget_sat: _Sat = 0
    max_spend_sat: _Sat | None = None
    """An hour."""
    days: Annotated[int, msgspec.Meta(ge=1, le=30)] = 7


class Removing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    force: bool = False


def routes(node: Node) -> list[web.RouteDef]:
    async def listed(_: web.Request) -> web.Response:
        charges = node.deputising.state.charges.values()
        return reply(
            {
                "mine": [_mine(node, *x) for x in node.deputies.all()],
                "charges": [_charge(node, x) for x in charges if not x.mandate.is_withdrawn],
                "budget_sat_max": node.deputising.state.allowance,
            }
        )

    async def add(request: web.Request) -> web.Response:
        wanted = await asked(request, Adding)
        hourly = None if wanted.max_spend_sat is None else msat(Sat(wanted.max_spend_sat))
        lasts = Duration(wanted.days * 24 * HOUR)
        await node.deputies.add(wanted.deployment, wanted.machine, Sat(wanted.budget_sat), hourly, lasts)
        return reply(next(_mine(node, *x) for x in node.deputies.all() if x[0].name == wanted.deployment))

    async def remove(request: web.Request) -> web.Response:
        force = (await asked(request, Removing)).force
        gone = await node.deputies.remove(request.match_info["name"], force=force)
        return reply(_mine(node, gone, Standing()))

    return [
        web.get("/v1/deputies", listed),
        web.post("/v1/deputies", add),
        web.post("/v1/deputies/{name}/remove", remove),
    ]


def _mine(node: Node, mine: Mine, standing: Standing) -> Json:
    now, state = node.clock.now(), node.keeping.state
    of = state.deployments.get(mine.name)
    return {
        "deployment": mine.name,
        "deputy": mine.deputy.hex(),
        "machine": _machine(node, mine.deputy),
        "budget_sat": mine.budget,
        "msat_hour_max": mine.hourly,
        "left_sec": max(0, mine.expires - now) // SECOND,
        "answered_sec": since(standing.heard_at, now) // SECOND if standing.heard_at else None,
        "up_to_date": standing.taken == mine.version,
        "ours": of is not None and state.acts(of, now),
        "deputy_runs": standing.acts,
        "trouble": reason(standing.trouble or standing.refused),
    }


def _charge(node: Node, charge: Charge) -> Json:
    mandate, of = charge.mandate, node.keeping.state.deployments.get(charge.name)
    return {
        "deployment": mandate.name,
        "tenant": mandate.tenant.hex(),
        "machine": _machine(node, mandate.tenant),
        "called": charge.name,
        "budget_sat": mandate.budget,
        "spent_msat": charge.spent,
        "msat_hour_max": mandate.hourly,
        "left_sec": max(0, mandate.expires - node.clock.now()) // SECOND,
        "acts": charge.acts,
        "runs": charge.runs,
        "spent_out": charge.spent_out,
        "replicas": len(of.replicas) if of else 0,
    }


def _machine(node: Node, key: NodeKey) -> str:
    """Its name; "" once it is not linked any more."""
    return next((x.name for x in node.machines if x.key == key), "")
