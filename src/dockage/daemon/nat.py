"""What a node does about NATs, wired: the relay it runs for others, and how it finds and tells its own address.

A part of ``system.py``: it knows the adapters, and decides nothing.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import AsyncExitStack
from ipaddress import ip_address

from dockage.adapters.keys.files import verify
from dockage.adapters.relay import Relay, RelayProbe
from dockage.domain.errors import UsageError
from dockage.ports.machine import Clock
from dockage.ports.peers import NatLink
from dockage.protocol import streams
from dockage.wire.limits import RelayLimits

from . import config as settings
from .config import Config
from .peers import Reception
from .whereabouts import Observers, Whereabouts, observation_server
from .wiring import Loop


def wants_relays(config: Config) -> bool:
    """A node that listens on loopback alone is meant for its own machine."""
    host = config.node.bind.rpartition(":")[0].strip("[]")
    return config.node.nat and not ip_address(host).is_loopback


def open_relay(config: Config, stack: AsyncExitStack) -> tuple[Relay, Loop] | None:
    """The relay and what must run for it; None if there is to be none. Raises UsageError("relay.*")."""
    wanted = config.relay
    if not wanted.listen:
        return None
    listening = stack.enter_context(_listen(wanted.listen))
    limits = RelayLimits(wanted.clients, wanted.client_bytes_sec, wanted.total_bytes_sec)
    members = frozenset(settings.read_key(key) for key in wanted.only_for)
    relay = Relay(verify, limits, lambda key: not members or key in members)
    tls = _tls(wanted)
    return relay, lambda: relay.serve(listening, tls)


def find_ourselves(
    config: Config, link: NatLink, clock: Clock, observers: Observers, probe: RelayProbe
) -> list[Loop]:
    """Nodes that everybody can reach need no relay of others, but may be told to use one."""
    reachable = config.node.market or bool(config.relay.listen)
    ours = Whereabouts(link, clock, observers, probe, config.node.relays, told=not reachable)
    return [ours.ask_around, ours.watch_relays]


def answer_observers(config: Config, link: NatLink, reception: Reception) -> None:
    """With TLS a relay is known by its name, which others must be told by people."""
    plain = config.relay.listen and not config.relay.certificate
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
