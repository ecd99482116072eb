"""The control API's part for our user's own machines: link one by a code, list them, remove one."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.errors import UsageError

from . import views
from .control_words import asked, reply
from .linking import Shown
from .machines import Machine
from .node import Node


class Typed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: Annotated[str, msgspec.Meta(max_length=1024)]


def routes(node: Node) -> list[web.RouteDef]:
    calls = _Calls(node)
    return [
        web.get("/v1/machines", calls.all),
        web.post("/v1/machines/{machine}/remove", calls.remove),
        web.get("/v1/link", calls.shown),
        web.post("/v1/link/show", calls.show),
        web.post("/v1/link/cancel", calls.cancel),
        web.post("/v1/link/accept", calls.accept),
    ]


class _Calls:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def all(self, _: web.Request) -> web.Response:
        return reply({"machines": [self._machine(x) for x in self._node.machines]})

    async def remove(self, request: web.Request) -> web.Response:
        machine = self._node.machines.find(request.match_info["machine"])
        await self._node.machines.remove(machine.key)
        return reply(self._machine(machine))

    async def show(self, _: web.Request) -> web.Response:
        return reply(self._shown(self._node.linking.offer()))

    async def shown(self, _: web.Request) -> web.Response:
        shown = self._node.linking.shown
        if shown is None:
            raise UsageError("link.no-code", "no code is shown here: `dockage link` shows one")
        return reply(self._shown(shown))

    async def cancel(self, _: web.Request) -> web.Response:
        self._node.linking.cancel()
        return reply({})

    async def accept(self, request: web.Request) -> web.Response:
        typed = await asked(request, Typed)
        return reply(self._machine(await self._node.linking.accept(typed.code)))

    def _machine(self, machine: Machine) -> views.Json:
        return views.machine(machine, self._node.own.seen(machine.key), self._node.clock.now())

    def _shown(self, shown: Shown) -> views.Json:
        left = shown.until - asyncio.get_running_loop().time()
        return {
            "code": shown.password,
            "long_code": self._node.linking.long_form(shown),
            "on_lan": self._node.linking.on_lan,
            "state": shown.state,
            "left_sec": max(0, round(left)),
            "reason": {"code": shown.code, "text": shown.message} if shown.code else None,
            "machine": self._machine(shown.machine) if shown.machine else None,
        }
