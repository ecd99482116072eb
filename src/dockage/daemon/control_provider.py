"""The control API's part for a provider: what it sells and earned, and how it takes its machine off the market."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.errors import UsageError
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.domain.units import SECOND, Duration, after
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node.provider_ending import DRAINED, closing

from . import views
from .control_words import Span, asked, reply
from .driver import Driver
from .node import Node


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    notice_sec: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 3600
    """From now until the leases end."""
    reason: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] = ""
    """What the tenants are told; empty: a sentence of ours."""


def routes(node: Node) -> list[web.RouteDef]:
    calls = _Calls(node)
    return [
        web.get("/v1/machine", calls.machine),
        web.get("/v1/earnings", calls.earnings),
        web.post("/v1/earnings/history", calls.earnings_history),
        web.post("/v1/drain", calls.drain),
        web.post("/v1/drain/cancel", calls.cancel_drain),
    ]


def status(node: Node) -> views.Json | None:
    if node.provider is None or node.notice is None:
        return None
    state = node.provider.state
    return {
        "published_at": node.notice.stored_at,
        "tariff": views.tariff(state.policy.tariff),
        "price_policy": node.config.provider.price_policy,
        "unpriced": views.reason(state.unpriced),
        "closed": views.reason(selling.why_closed(state, node.clock.now())),
        "ending": views.ending(closing(state), node.clock.now()),
        "free_for": [key.hex() for key in state.policy.free_for],
        "only_own": state.policy.only_own,
        "region": state.policy.region,
        "capacity": views.resources(state.policy.capacity),
        "free": views.resources(selling.free(state)),
    }


class _Calls:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def machine(self, _: web.Request) -> web.Response:
        """What a provider's machine is, and what does not work on it; slower than /status: the engine is asked."""
        if self._node.host is None:
            raise UsageError("provider.none", "this node sells nothing; start it with dockage provide")
        return reply((await self._node.host.facts())._asdict())

    async def earnings(self, _: web.Request) -> web.Response:
        return reply(views.earnings(self._provider().state, self._node.clock.now()))

    async def earnings_history(self, request: web.Request) -> web.Response:
        wanted = await asked(request, Span)
        return reply(views.history(await self._node.history.earned(wanted.step, wanted.since), wanted.step))

    async def drain(self, request: web.Request) -> web.Response:
        """Sell nothing new, and tell every tenant when and why its lease will end."""
        wanted = await asked(request, Drain)
        reason = Reason(DRAINED.code, wanted.reason or DRAINED.text)
        at = after(self._node.clock.now(), Duration(wanted.notice_sec * SECOND))
        await self._provider().tell(told.DrainRequested(at, reason))
        return reply(self._draining())

    async def cancel_drain(self, _: web.Request) -> web.Response:
        await self._provider().tell(told.DrainCancelled())
        return reply(self._draining())

    def _draining(self) -> views.Json:
        state, now = self._provider().state, self._node.clock.now()
        left = [views.sold(x, now) for x in state.leases.values() if not x.is_over]
        return {"ending": views.ending(state.drain, now), "leases": left}

    def _provider(self) -> Driver[selling.Provider]:
        if self._node.provider is None:
            raise UsageError("provider.none", "this node sells nothing; start it with dockage provide")
        return self._node.provider
