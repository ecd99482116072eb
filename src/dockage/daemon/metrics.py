"""What a monitoring system may know of a node: ``GET /metrics`` on loopback, if the configuration says where.

Names and labels: docs/reference/metrics.md. The one rule: what is shown is bounded. Each lease that runs has its
samples, up to LEASES_MAX of a side; those that have ended are only part of the sums.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from dockage import __version__
from dockage.domain.channel import Channel
from dockage.domain.errors import UsageError
from dockage.domain.pricing import ceiling
from dockage.domain.resources import Resources
from dockage.domain.statement import Statement
from dockage.domain.units import HOUR, MIB, SECOND, since
from dockage.domain.usage import Usage
from dockage.node import provider as selling
from dockage.node.provider import Provider, SoldLease
from dockage.node.tenant import RentedLease
from dockage.ports.peers import RelayFigures
from dockage.protocol.prometheus import CONTENT_TYPE, Family, Kind, Sample, render

from .node import Node

LEASES_MAX = 1000

Lease = RentedLease | SoldLease
Labels = dict[str, str]


def listen(where: str) -> socket.socket:
    """*where* is ``ip:port``. Raises UsageError("metrics.busy")."""
    host, _, port = where.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as error:
        raise UsageError("metrics.busy", f"cannot listen on {where} (node.metrics): {error}") from None


class Metrics:
    def __init__(self, node: Node, listening: socket.socket) -> None:
        self._node, self._socket = node, listening

    async def serve(self) -> None:
        """Until cancelled."""
        app = web.Application(middlewares=[_only_by_address])
        app.router.add_get("/metrics", self._page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, self._socket).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(body=render(families(self._node)), headers={"Content-Type": CONTENT_TYPE})


@web.middleware
async def _only_by_address(request: web.Request, handler: Any) -> web.StreamResponse:
    """A page in the user's browser may make any name lead to loopback, and must not read this."""
    host = request.url.host or ""
    if host != "localhost" and not _is_address(host):
        raise web.HTTPForbidden(text="ask by address\n")
    response: web.StreamResponse = await handler(request)
    return response


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def families(node: Node) -> Iterator[Family]:
    """The whole page."""
    yield from _of_node(node)
    yield from _of_leases(node)
    yield from _of_money(node)
    if node.provider is not None:
        yield from _of_room(node.provider.state)
    if node.relay is not None:
        yield from _of_relay(node.relay())


# -- the node ----------------------------------------------------------------------------------------
def _of_node(node: Node) -> Iterator[Family]:
    about = {"version": __version__, "node": node.keys.node.hex()}
    yield _gauge("dockage_info", "Always 1: which node and version this is.", (Sample(1, about),))
    up = since(node.started, node.clock.now()) / SECOND
    yield _gauge("dockage_uptime_seconds", "Since the daemon started.", (Sample(up),))
    refused = tuple(Sample(n, {"code": code}) for code, n in sorted(node.reception.refused.items()))
    yield _counter(
        "dockage_peer_refusals_total", "Breaches of the protocol by peers, by error code.", refused
    )


def _of_room(provider: Provider) -> Iterator[Family]:
    rooms = {"capacity": provider.policy.capacity, "free": selling.free(provider)}
    for name, of in _RESOURCES.items():
        samples = tuple(Sample(of(room), {"of": label}) for label, room in rooms.items())
        yield _gauge(f"dockage_provider_{name}", "For sale altogether, and what of it is free now.", samples)


def _of_relay(done: RelayFigures) -> Iterator[Family]:
    yield _gauge("dockage_relay_clients", "Of the relay that this node runs.", (Sample(done.clients),))
    totals = {
        "passed_bytes": ("Passed on from client to client.", done.passed_bytes),
        "dropped_frames": ("Not passed on, as the reader was too slow.", done.dropped_frames),
        "unpaid_frames": ("Not passed on, as no lease of either side runs.", done.unpaid_frames),
        "throttled_seconds": ("Waited as clients sent more than their share.", done.throttled_sec),
    }
    for name, (text, value) in totals.items():
        yield _counter(f"dockage_relay_{name}_total", text, (Sample(value),))
    refused = tuple(Sample(n, {"reason": why}) for why, n in sorted(done.refused.items()))
    yield _counter("dockage_relay_refusals_total", "Connections and clients turned away.", refused)


# -- leases ------------------------------------------------------------------------------------------
_RESOURCES: dict[str, Callable[[Resources], float]] = {
    "cpu_cores": lambda r: r.cpu_milli / 1000,
    "memory_bytes": lambda r: r.memory_bytes,
    "disk_bytes": lambda r: r.disk_bytes,
}
_USED: dict[str, tuple[str, Callable[[Usage], float]]] = {
    "cpu_seconds": ("Core-seconds used.", lambda u: u.cpu_ns / SECOND),
    "memory_byte_seconds": ("Working set, integrated.", lambda u: u.memory_mib_ms * MIB / 1000),
    "disk_byte_seconds": ("Blocks held, integrated.", lambda u: u.disk_mib_ms * MIB / 1000),
    "reserved_cpu_seconds": ("Core-seconds kept free for it.", lambda u: u.cpu_reserved_ns / SECOND),
    "reserved_memory_byte_seconds": (
        "Memory kept free for it, integrated.",
        lambda u: u.memory_reserved_mib_ms * MIB / 1000,
    ),
}
_SENT = {
    field.removesuffix("_bytes").removeprefix("net_"): field
    for field in Usage.__struct_fields__
    if field.endswith("_bytes")
}
"""Direction: its field."""
_STATED: dict[str, tuple[str, Callable[[Statement], int]]] = {
    "memory_bytes": ("Working set now.", lambda s: s.memory_bytes),
    "disk_bytes": ("Blocks held now.", lambda s: s.disk_bytes),
    "containers": ("Containers that run.", lambda s: s.containers),
}


def _of_leases(node: Node) -> Iterator[Family]:
    leases = [*_rented(node), *_sold(node)]
    counts = Counter((side, x.state.value) for side, x in leases)
    states = tuple(Sample(n, {"side": side, "state": state}) for (side, state), n in sorted(counts.items()))
    yield _gauge("dockage_leases", "Leases that are remembered, by what they do.", states)
    named = [(x, _labels(side, x)) for side, x in leases if not x.is_over]
    stated = [(x.last, labels) for x, labels in named if x.last is not None]
    yield from _of_statements(stated)
    for name, limit in _RESOURCES.items():
        limits = tuple(Sample(limit(x.limits), labels) for x, labels in named)
        yield _gauge(f"dockage_lease_limit_{name}", "The lease's limit.", limits)
    most = tuple(Sample(ceiling(x.limits, x.tariff, HOUR), labels) for x, labels in named)
    yield _gauge("dockage_lease_price_max_msat_per_hour", "Worst case, network aside.", most)


def _of_statements(stated: list[tuple[Statement, Labels]]) -> Iterator[Family]:
    for name, (text, used) in _USED.items():
        samples = tuple(Sample(used(last.usage), labels) for last, labels in stated)
        yield _counter(f"dockage_lease_{name}_total", text, samples)
    sent = tuple(
        Sample(getattr(last.usage, field), {**labels, "direction": direction})
        for direction, field in _SENT.items()
        for last, labels in stated
    )
    yield _counter("dockage_lease_network_bytes_total", "Billed bytes, seen from the container.", sent)
    for name, (text, gauge) in _STATED.items():
        samples = tuple(Sample(gauge(last), labels) for last, labels in stated)
        yield _gauge(f"dockage_lease_{name}", text, samples)
    due = tuple(Sample(last.due, labels) for last, labels in stated)
    yield _counter("dockage_lease_due_msat_total", "The bill so far.", due)
    ticks = tuple(Sample(last.seq, labels) for last, labels in stated)
    yield _counter("dockage_lease_statements_total", "Statements so far.", ticks)


def _rented(node: Node) -> list[tuple[str, Lease]]:
    leases = node.tenant.state.leases.values()
    return [("rented", x) for x in sorted(leases, key=lambda x: (x.is_over, -x.since))[:LEASES_MAX]]


def _sold(node: Node) -> list[tuple[str, Lease]]:
    leases = node.provider.state.leases.values() if node.provider else ()
    return [("sold", x) for x in sorted(leases, key=lambda x: (x.is_over, -x.since))[:LEASES_MAX]]


def _labels(side: str, lease: Lease) -> Labels:
    if isinstance(lease, RentedLease):
        deployment, peer = lease.deployment, lease.provider
    else:
        deployment, peer = "", lease.tenant
    return {"side": side, "lease": lease.id.hex(), "deployment": deployment, "peer": peer.hex()}


# -- money -------------------------------------------------------------------------------------------
def _of_money(node: Node) -> Iterator[Family]:
    tenant = node.tenant.state
    roles = {"paying": (tenant.channels, sum(x.due for x in tenant.leases.values()))}
    if node.provider is not None:
        sells = node.provider.state
        roles["earning"] = (sells.channels, sum(x.due for x in sells.accounts.values()))
    due = tuple(Sample(msat, {"role": role}) for role, (_, msat) in roles.items())
    yield _counter("dockage_due_msat_total", "All bills ever, ended leases too.", due)
    for name, (text, kind, worth) in _CHANNELS.items():
        samples = (Sample(sum(map(worth, of.values())), {"role": role}) for role, (of, _) in roles.items())
        yield Family(name, kind, text, tuple(samples))
    counts = Counter((role, c.state.value) for role, (of, _) in roles.items() for c in of.values())
    states = tuple(Sample(n, {"role": role, "state": state}) for (role, state), n in sorted(counts.items()))
    yield _gauge("dockage_channels", "Payment channels, by what they do.", states)


_CHANNELS: dict[str, tuple[str, Kind, Callable[[Channel], int]]] = {
    "dockage_paid_sat_total": ("Signed on all channels ever.", "counter", lambda c: c.paid),
    "dockage_settled_sat_total": (
        "Of that, what the chain has settled.",
        "counter",
        lambda c: c.paid if c.settled_txid else 0,
    ),
    "dockage_channel_capacity_sat": (
        "Of the channels that are open.",
        "gauge",
        lambda c: c.terms.capacity if c.is_live else 0,
    ),
    "dockage_channel_remaining_sat": (
        "What can still be paid on them.",
        "gauge",
        lambda c: c.remaining if c.is_live else 0,
    ),
}


def _gauge(name: str, text: str, samples: tuple[Sample, ...]) -> Family:
    return Family(name, "gauge", text, samples)


def _counter(name: str, text: str, samples: tuple[Sample, ...]) -> Family:
    return Family(name, "counter", text, samples)
