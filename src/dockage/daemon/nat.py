"""What a node does about NATs, wired: the relay it runs for others, and how it finds and tells its own address.

A part of ``system.py``: it knows the adapters, and decides nothing.
"""

from __future__ import annotations

import platform
import secrets
import socket
import ssl
from collections.abc import Iterable
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import NamedTuple

from dockage.adapters.relay import Relay, RelayProbe
from dockage.domain.errors import UsageError
from dockage.domain.units import Sat
from dockage.ports.machine import Journal, Row
from dockage.ports.peers import NatLink
from dockage.protocol import streams
from dockage.wire.keys import verify
from dockage.wire.limits import RelayLimits
from dockage.wire.tolls import TollHost

from . import config as settings
from .config import Config
from .ground import Loop
from .node import Node
from .paidrelay import PaidRelay
from .peers import Reception
from .whereabouts import Observers, Whereabouts, observation_server


def wants_relays(config: Config) -> bool:
    """A node that listens on loopback alone is meant for its own machine."""
    host = config.node.bind.rpartition(":")[0].strip("[]")
    return config.node.nat and not ip_address(host).is_loopback


class OwnRelay(NamedTuple):
    """The relay that this node runs for others."""

    relay: Relay
    serve: Loop
    tolls: TollHost | None
    """Where it has a price."""


def open_relay(config: Config, stack: AsyncExitStack) -> OwnRelay | None:
    """None if there is to be none. Raises UsageError("relay.*")."""
    wanted = config.relay
    if not wanted.listen:
        return None
    listening = stack.enter_context(_listen(wanted.listen))
    limits = RelayLimits(wanted.clients, wanted.client_bytes_sec, wanted.total_bytes_sec)
    members = frozenset(settings.read_key(key) for key in wanted.only_for)
    tolls = TollHost(secrets.token_hex(8), platform.machine()) if wanted.msat_gib else None
    relay = Relay(verify, limits, lambda key: not members or key in members, tolls)
    tls = _tls(wanted)
    return OwnRelay(relay, lambda: relay.serve(listening, tls), tolls)


def paid_port(config: Config) -> int:
    """What the offer says; 0 where no relay is sold."""
    return int(config.relay.listen.rpartition(":")[2]) if config.relay.msat_gib else 0


def find_ourselves(
    node: Node,
    link: NatLink,
    observers: Observers,
    stack: AsyncExitStack,
    stored: tuple[Journal, Iterable[Row]],
) -> list[Loop]:
    """Nodes that everybody can reach need no relay of others, but may be told to use one."""
    config, clock, probe = node.config, node.clock, RelayProbe(node.keys.node)
    stack.push_async_callback(probe.close)
    reachable = config.node.market or bool(config.relay.listen)
    ours = Whereabouts(link, clock, observers, probe, config.node.relays, told=not reachable)
    if node.provider is None or (reachable and not config.node.relays):  # who sells nothing is not dialled
        return [ours.ask_around, ours.watch_relays]
    budget, blocks = Sat(config.node.relay_budget_sat), config.channel.expiry_blocks
    node.reached.paid = PaidRelay(ours, link, node.renting, clock, *stored, budget, blocks)
    return [ours.ask_around, ours.watch_relays, node.reached.paid.run]


def answer_observers(config: Config, link: NatLink, reception: Reception) -> None:
    """With TLS a relay is known by its name, which others must be told by people. One that is paid is found on the
    market."""
    plain = config.relay.listen and not config.relay.certificate and not config.relay.msat_gib
    port = int(config.relay.listen.rpartition(":")[2]) if plain else 0
    reception.serve_kind(streams.Observe, observation_server(link, port))


def _listen(where: str) -> socket.socket:
    host, _, port = where.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=256)
    except OSError as error:
        raise UsageError("relay.busy", f"cannot listen on {where} (relay.listen): {error}") from None


def _tls(wanted: settings.Relay) -> ssl.SSLContext | None:
    if not wanted.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(wanted.certificate, wanted.key or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "relay.certificate", f"cannot use {wanted.certificate} (relay.certificate): {error}"
        ) from None
    return context
