"""The control API's part for money: what was spent, the channels it went through, and the wallet behind them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web

from dockage.domain.channel import Channel
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.lease import LeaseState
from dockage.domain.units import SECOND, Sat, since
from dockage.node import events as told
from dockage.protocol.bitcoin import address as addresses
from dockage.protocol.bitcoin.settlement import RELAY_FEERATE

from . import views
from .control_words import Span, asked, find, matches, reply
from .node import Node
from .rail import FUND_TARGET, Rail, no_rail

DISPLAY_SEC = 1.0
"""How long a view waits for the chain's part of it: a node that hangs must not hide what we know ourselves."""


class Sending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    amount_sat: Annotated[int, msgspec.Meta(ge=1, le=21_000_000 * 100_000_000)]
    feerate: Annotated[int, msgspec.Meta(ge=1000, le=10_000_000)] | None = None
    """sat per 1000 vB; null: as the chain is now."""
    preview: bool = False
    """Only say what it would cost."""


def routes(node: Node) -> list[web.RouteDef]:
    calls = _Calls(node)
    return [
        web.get("/v1/spend", calls.spend),
        web.post("/v1/spend/history", calls.spend_history),
        web.get("/v1/channels", calls.channels),
        web.post("/v1/channels/{channel}/close", calls.close_channel),
        web.get("/v1/channels/backup", calls.backup),
        web.get("/v1/wallet", calls.wallet),
        web.post("/v1/wallet/receive", calls.receive),
        web.post("/v1/wallet/send", calls.send),
    ]


async def status(node: Node) -> views.Json | None:
    if node.rail is None:
        return None
    bitcoin = node.config.bitcoin
    silence, now = node.rail.silence, node.clock.now()
    silent = since(silence.since, now) // SECOND if silence else None
    known: views.Json = {
        "network": bitcoin.network,
        "wallet": bitcoin.wallet,
        "height": None,
        "error": "",
    }
    known["silent_sec"] = silent
    try:
        async with asyncio.timeout(DISPLAY_SEC):
            height = await node.rail.chain.height()
            return {**known, "height": height, "silent_sec": None}
    except Unavailable as error:
        return {**known, "error": error.message}
    except TimeoutError:
        return {**known, "error": silence.reason.text if silence else "bitcoind takes long to answer"}


async def feerate(node: Node) -> int:
    if node.rail is None:
        return RELAY_FEERATE
    return await node.rail.chain.feerate(FUND_TARGET)


async def all_channels(node: Node) -> list[views.Json]:
    try:
        async with asyncio.timeout(DISPLAY_SEC):
            rate = await feerate(node)
    except (Unavailable, TimeoutError):
        rate = RELAY_FEERATE  # only for display
    tenant, provider = node.tenant.state, node.provider
    shown = [views.channel(c, "paying", tenant.height, rate) for c in tenant.channels.values()]
    if provider is not None:
        height = provider.state.height
        shown += [views.channel(c, "earning", height, rate) for c in provider.state.channels.values()]
    return shown


class _Calls:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def spend(self, _: web.Request) -> web.Response:
        return reply(views.spend(self._node.tenant.state, self._node.clock.now()))

    async def spend_history(self, request: web.Request) -> web.Response:
        wanted = await asked(request, Span)
        return reply(views.history(await self._node.history.spent(wanted.step, wanted.since), wanted.step))

    async def channels(self, _: web.Request) -> web.Response:
        return reply({"channels": await all_channels(self._node)})

    async def close_channel(self, request: web.Request) -> web.Response:
        what = request.match_info["channel"]
        provider = self._node.provider
        if provider is not None and matches(what, provider.state.channels):
            channel = find(what, provider.state.channels)
            await provider.tell(told.CloseRequested(channel))
            return reply({"channel": channel.hex(), "role": "earning"})
        channel = find(what, self._node.tenant.state.channels)
        self._refuse_while_used(self._node.tenant.state.channels[channel])
        await self._node.tenant.tell(told.CloseRequested(channel))
        return reply({"channel": channel.hex(), "role": "paying"})

    def _refuse_while_used(self, channel: Channel) -> None:
        """A lease that is ending has no use for it any more: its last bill is taken along."""
        ending = LeaseState.ENDING.value
        used = [x for x in self._node.renting.all() if x.provider == channel.peer and x.state != ending]
        if used:
            names = ", ".join(sorted({x.deployment for x in used}))
            raise UsageError("channel.in-use", f"it pays for {names}: take that down first (dockage down)")

    async def backup(self, _: web.Request) -> web.Response:
        """One descriptor line a channel, with which stock bitcoind refunds it after its expiry."""
        rail, node = self._rail(), self._node
        network = node.config.bitcoin.network
        tenant = node.tenant.state
        funded = [c for c in tenant.channels.values() if c.is_watched_at(tenant.height)]
        lines = [
            {
                "channel": c.id.hex(),
                "descriptor": rail.backup(c, node.keys.node, network),
                "expiry_height": c.terms.expiry_height,
                "outpoint": f"{c.txid}:{c.vout}",
            }
            for c in funded
        ]
        return reply({"network": network, "channels": lines})

    def _rail(self) -> Rail:
        if self._node.rail is None:
            raise no_rail()
        return self._node.rail

    async def wallet(self, _: web.Request) -> web.Response:
        balance = await self._rail().wallet.balance()
        locked = sum(
            c.terms.capacity - c.paid
            for c in self._node.tenant.state.channels.values()
            if c.txid and not c.is_over and not c.settled_txid
        )
        return reply(
            {
                **(await status(self._node) or {}),
                "confirmed_sat": balance.confirmed,
                "pending_sat": balance.pending,
                "in_channels_sat": locked,
            }
        )

    async def receive(self, _: web.Request) -> web.Response:
        return reply({"address": await self._rail().wallet.receive()})

    async def send(self, request: web.Request) -> web.Response:
        wanted = await asked(request, Sending)
        rail, amount = self._rail(), Sat(wanted.amount_sat)
        feerate = wanted.feerate or await rail.chain.feerate(FUND_TARGET)
        if wanted.preview:
            script = addresses.decode(wanted.address, self._node.config.bitcoin.network)
            tx = await rail.wallet.fund([(script, amount)], feerate)
            await rail.wallet.forget(tx)
        else:
            tx = await rail.wallet.send(wanted.address, amount, feerate)
        txid = "" if wanted.preview else tx.txid
        return reply({"txid": txid, "fee_sat": tx.fee, "feerate": feerate})
