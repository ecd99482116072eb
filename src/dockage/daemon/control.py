"""The local control API: JSON over a unix socket that only the owner may open. Counterpart: ``cli/client.py``.

Reference: docs/reference/control-api.md. Errors are ``{"code": ..., "message": ...}`` with status 400 for what the
user can mend, 404 for what is not there, 503 for a part that does not answer now.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web

from dockage import __version__
from dockage.domain.advice import changes
from dockage.domain.channel import NOTHING, Channel
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.lease import LeaseState
from dockage.domain.pricing import usual, waiting
from dockage.domain.query import MOST_MAX, Query
from dockage.domain.reason import TEXT_MAX, Reason
from dockage.domain.resources import Resources
from dockage.domain.units import HOUR, SECOND, Duration, Instant, Sat, after, since
from dockage.node import events as told
from dockage.node import provider as selling
from dockage.node.evidence import known
from dockage.node.provider_ending import DRAINED, closing
from dockage.protocol.bitcoin import address as addresses
from dockage.protocol.bitcoin.settlement import RELAY_FEERATE, overhead

from . import control_deputies, control_keeping, control_public, views
from .control_gateway import gateway_routes
from .control_machines import machine_routes
from .control_words import asked, reply
from .driver import Driver
from .market import explain
from .node import Node
from .paidrelay import NAME as RELAY
from .patience import patiently
from .rail import FUND_TARGET, Rail, no_rail
from .renting import silently
from .wishes import GATEWAYS_MAX, Wishes, read_wishes

log = structlog.get_logger("dockage.control")

BODY_MAX = 64 * 1024
SHUTDOWN_SEC = 2.0
DISPLAY_SEC = 1.0
"""How long a view waits for the chain's part of it: a node that hangs must not hide what we know ourselves."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


class Sending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    amount_sat: Annotated[int, msgspec.Meta(ge=1, le=21_000_000 * 100_000_000)]
    feerate: Annotated[int, msgspec.Meta(ge=1000, le=10_000_000)] | None = None
    """sat per 1000 vB; null: as the chain is now."""
    preview: bool = False
    """Only say what it would cost."""


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    notice_sec: Annotated[int, msgspec.Meta(ge=0, le=366 * 86_400)] = 3600
    """From now until the leases end."""
    reason: Annotated[str, msgspec.Meta(max_length=TEXT_MAX)] = ""
    """What the tenants are told; empty: a sentence of ours."""


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the history, and in which steps: minutes, hours or days are what it is kept in."""

    since_sec: Annotated[int, msgspec.Meta(ge=0, le=1 << 33)] = 0
    step_sec: Annotated[int, msgspec.Meta(ge=60, le=366 * 86_400)] = 3600

    @property
    def since(self) -> Instant:
        return Instant(self.since_sec * SECOND)

    @property
    def step(self) -> Duration:
        return Duration(self.step_sec * SECOND)


class Control:
    def __init__(self, node: Node, socket: Path) -> None:
        self._node, self._socket = node, socket

    async def serve(self) -> None:
        """Until cancelled; removes the socket at the end."""
        app = web.Application(client_max_size=BODY_MAX, middlewares=[_errors])
        app.add_routes(machine_routes(self._node))
        app.add_routes(gateway_routes(self._node))
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/machine", self._machine),
                web.post("/v1/market", self._market),
                web.post("/v1/quote", self._quote),
                web.get("/v1/progress", self._progress),
                web.get("/v1/spend", self._spend),
                web.get("/v1/earnings", self._earnings),
                web.post("/v1/spend/history", self._spend_history),
                web.post("/v1/earnings/history", self._earnings_history),
                web.get("/v1/why/{what:.+}", self._why),  # whatever the user typed is a name
                web.post("/v1/drain", self._drain),
                web.post("/v1/drain/cancel", self._cancel_drain),
                web.post("/v1/leases/{lease}/end", self._end_lease),
                *control_keeping.routes(self._node),
                *control_deputies.routes(self._node),
                *control_public.routes(self._node),
                web.get("/v1/channels", self._channels),
                web.post("/v1/channels/{channel}/close", self._close_channel),
                web.get("/v1/channels/backup", self._backup),
                web.get("/v1/wallet", self._wallet),
                web.post("/v1/wallet/receive", self._receive),
                web.post("/v1/wallet/send", self._send),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SEC)
        await runner.setup()
        try:
            await web.SockSite(runner, _bound(self._socket)).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            self._socket.unlink(missing_ok=True)

    # -- the node ------------------------------------------------------------------------------------
    async def _status(self, _: web.Request) -> web.Response:
        node = self._node
        address = node.link.address()
        return reply(
            {
                "version": __version__,
                "node": node.keys.node.hex(),
                "home": str(node.home),
                "addresses": list(address.direct),
                "relay": address.relay,
                "paid_relay": views.paid_relay(node.reached.paid, node.clock.now()),
                "runs_relay": node.relay()._asdict() if node.relay else None,
                "uptime_sec": since(node.started, node.clock.now()) // SECOND,
                "market_node": node.config.node.market,
                "provider": self._provider_status(),
                "tenant": {"socket": str(node.home / node.config.tenant.socket)}
                if node.config.tenant.enabled
                else None,
                "bitcoin": await self._bitcoin_status(),
                "market": views.entrance(node.entrance) if node.entrance else None,
                "machines": len(node.machines),
                "refused": dict(node.reception.refused),
            }
        )

    def _provider_status(self) -> views.Json | None:
        node = self._node
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

    async def _machine(self, _: web.Request) -> web.Response:
        """What a provider's machine is, and what does not work on it; slower than /status: the engine is asked."""
        if self._node.host is None:
            raise UsageError("provider.none", "this node sells nothing; start it with dockage provide")
        return reply((await self._node.host.facts())._asdict())

    async def _bitcoin_status(self) -> views.Json | None:
        if self._node.rail is None:
            return None
        bitcoin = self._node.config.bitcoin
        silence, now = self._node.rail.silence, self._node.clock.now()
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
                height = await self._node.rail.chain.height()
                return {**known, "height": height, "silent_sec": None}
        except Unavailable as error:
            return {**known, "error": error.message}
        except TimeoutError:
            return {**known, "error": silence.reason.text if silence else "bitcoind takes long to answer"}

    # -- the market ----------------------------------------------------------------------------------
    async def _market(self, request: web.Request) -> web.Response:
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

    async def _quote(self, request: web.Request) -> web.Response:
        """What renting now would cost, before anything is asked of anybody."""
        need = await asked(request, Need)
        limits, wishes = _wanted(need)
        offer, best, others = await self._node.renting.quote(limits, wishes)
        prices = await control_public.gateway_prices(self._node, wishes, need.gateways)
        feerate = await self._feerate()
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

    async def _feerate(self) -> int:
        if self._node.rail is None:
            return RELAY_FEERATE
        return await self._node.rail.chain.feerate(FUND_TARGET)

    async def _why(self, request: web.Request) -> web.Response:
        """What became of a lease or a deployment: its state, its reason, and who refused it before."""
        what = request.match_info["what"].lower()
        now = self._node.clock.now()
        leases = [
            views.rented(x, now)
            for x in self._node.tenant.state.leases.values()
            if x.id.hex().startswith(what) or x.deployment.lower() == what
        ]
        channels = [c for c in await self._all_channels() if str(c["channel"]).startswith(what)]
        kept = [x for x in control_keeping.all_of(self._node) if str(x["deployment"]).lower() == what]
        relay = views.paid_relay(self._node.reached.paid, now) if what == RELAY else None
        if not (leases or channels or relay):
            raise NotFound("control.not-found", f"no lease, deployment or channel is called {what}")
        return reply({"leases": leases, "channels": channels, "kept": kept, "paid_relay": relay})

    # -- leases and money ----------------------------------------------------------------------------
    async def _progress(self, _: web.Request) -> web.Response:
        steps = self._node.steps.all()
        return reply({"deployments": [{"deployment": name, "step": line} for name, line in steps.items()]})

    async def _spend(self, _: web.Request) -> web.Response:
        return reply(views.spend(self._node.tenant.state, self._node.clock.now()))

    async def _earnings(self, _: web.Request) -> web.Response:
        return reply(views.earnings(self._provider().state, self._node.clock.now()))

    async def _drain(self, request: web.Request) -> web.Response:
        """Sell nothing new, and tell every tenant when and why its lease will end."""
        wanted = await asked(request, Drain)
        reason = Reason(DRAINED.code, wanted.reason or DRAINED.text)
        at = after(self._node.clock.now(), Duration(wanted.notice_sec * SECOND))
        await self._provider().tell(told.DrainRequested(at, reason))
        return reply(self._draining())

    async def _cancel_drain(self, _: web.Request) -> web.Response:
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

    async def _spend_history(self, request: web.Request) -> web.Response:
        wanted = await asked(request, Span)
        return reply(views.history(await self._node.history.spent(wanted.step, wanted.since), wanted.step))

    async def _earnings_history(self, request: web.Request) -> web.Response:
        wanted = await asked(request, Span)
        return reply(views.history(await self._node.history.earned(wanted.step, wanted.since), wanted.step))

    async def _end_lease(self, request: web.Request) -> web.Response:
        lease = _find(request.match_info["lease"], self._node.tenant.state.leases)
        await self._node.renting.release(lease)
        return reply(views.rented(self._node.tenant.state.leases[lease], self._node.clock.now()))

    async def _channels(self, _: web.Request) -> web.Response:
        return reply({"channels": await self._all_channels()})

    async def _all_channels(self) -> list[views.Json]:
        try:
            async with asyncio.timeout(DISPLAY_SEC):
                feerate = await self._feerate()
        except (Unavailable, TimeoutError):
            feerate = RELAY_FEERATE  # only for display
        tenant, provider = self._node.tenant.state, self._node.provider
        shown = [views.channel(c, "paying", tenant.height, feerate) for c in tenant.channels.values()]
        if provider is not None:
            height = provider.state.height
            shown += [views.channel(c, "earning", height, feerate) for c in provider.state.channels.values()]
        return shown

    async def _close_channel(self, request: web.Request) -> web.Response:
        what = request.match_info["channel"]
        provider = self._node.provider
        if provider is not None and _matches(what, provider.state.channels):
            channel = _find(what, provider.state.channels)
            await provider.tell(told.CloseRequested(channel))
            return reply({"channel": channel.hex(), "role": "earning"})
        channel = _find(what, self._node.tenant.state.channels)
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

    async def _backup(self, _: web.Request) -> web.Response:
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

    # -- the wallet ----------------------------------------------------------------------------------
    def _rail(self) -> Rail:
        if self._node.rail is None:
            raise no_rail()
        return self._node.rail

    async def _wallet(self, _: web.Request) -> web.Response:
        balance = await self._rail().wallet.balance()
        locked = sum(
            c.terms.capacity - c.paid
            for c in self._node.tenant.state.channels.values()
            if c.txid and not c.is_over and not c.settled_txid
        )
        return reply(
            {
                **(await self._bitcoin_status() or {}),
                "confirmed_sat": balance.confirmed,
                "pending_sat": balance.pending,
                "in_channels_sat": locked,
            }
        )

    async def _receive(self, _: web.Request) -> web.Response:
        return reply({"address": await self._rail().wallet.receive()})

    async def _send(self, request: web.Request) -> web.Response:
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


def _bound(path: Path) -> socket.socket:
    """Not yet listening when its mode is set: nobody else gets in meanwhile, and no thread's umask is touched."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise UsageError("control.socket", f"cannot listen on {path}: {error}") from None
    return bound


async def _need(request: web.Request) -> tuple[Resources, Wishes]:
    return _wanted(await asked(request, Need))


def _wanted(need: Need) -> tuple[Resources, Wishes]:
    limits = Resources(*(getattr(need, name) for name in Resources.__struct_fields__))
    if not limits.is_sane:
        raise UsageError("control.malformed", "a need is neither negative nor beyond any machine")
    return limits, read_wishes(need.labels)


def _matches(prefix: str, known: Any) -> list[Any]:
    return [key for key in known if len(prefix) >= 4 and key.hex().startswith(prefix.lower())]


def _find(prefix: str, known: Any) -> Any:
    """By a unique prefix of at least four hex digits."""
    matches = _matches(prefix, known)
    if len(matches) != 1:
        what = "more than one begins" if matches else "nothing begins"
        raise NotFound("control.not-found", f"{what} with {prefix!r}: give at least four hex digits")
    return matches[0]


class NotFound(UsageError):
    """What the user named is not there."""


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except UsageError as error:
        status = 404 if isinstance(error, NotFound) else 400
        return reply({"code": error.code, "message": error.message}, status=status)
    except Unavailable as error:
        return reply({"code": error.code, "message": error.message}, status=503)
    except DockageError as error:
        return reply({"code": error.code, "message": error.message}, status=502)
    except web.HTTPException as error:
        return reply({"code": "control.http", "message": error.text or error.reason}, status=error.status)
    except Exception:
        log.exception("control.crashed", path=request.path)
        return reply(
            {"code": "control.crashed", "message": "a fault of dockage; its log says more"}, status=500
        )
