"""Puts a gateway together, beside ``system.py``: the relay as the provider's machine, Caddy before it, and the name
server beside it.
"""

from __future__ import annotations

import platform
import secrets
from pathlib import Path
from random import SystemRandom

from dockage.adapters import dns
from dockage.adapters.gateway.face import Certificates, Face
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.routing import Rules
from dockage.ports.hosting import Gateway, Resolver
from dockage.ports.machine import Clock
from dockage.ports.peers import Directory
from dockage.wire.keys import verify

from . import config as settings
from .ground import Loop
from .naming import Naming

FOLDER = "gateway"


def open_gateway(
    home: Path, gateway: settings.Gateway, directory: Directory, clock: Clock
) -> tuple[GatewayHost, Resolver | None, list[Loop]]:
    """What must run beside the relay, too. Raises UsageError("gateway.*")."""
    host = make(home, gateway, clock)
    return host, resolver(gateway), name_server(home, gateway, host, directory, clock)


def make(home: Path, gateway: settings.Gateway, clock: Clock) -> GatewayHost:
    """Raises UsageError("gateway.no-caddy")."""
    first, last = settings.read_ports(gateway.ports)
    rules = Rules(gateway.zone, first, last if first else -1)
    folder = home / FOLDER
    if not gateway.face:
        places = Places(http=gateway.http, ports_at=gateway.bind)
        return _host(rules, clock, places)
    places = Places(folder / "relay.sock", "", gateway.tls, folder / "tls.sock", gateway.bind)
    host = _host(rules, clock, places)
    host.beside.append(Face(folder, gateway.http, gateway.tls, _certificates(gateway), host.served).run)
    return host


def _certificates(gateway: settings.Gateway) -> Certificates:
    files = (gateway.certificate, gateway.certificate_key) if gateway.certificate else None
    ours = gateway.face and gateway.zone and gateway.dns and not files and gateway.acme != "internal"
    return Certificates(
        gateway.acme, gateway.acme_root, gateway.acme_email, files, gateway.zone if ours else ""
    )


def _host(rules: Rules, clock: Clock, places: Places) -> GatewayHost:
    return GatewayHost(
        rules, clock, SystemRandom(), secrets.token_hex(8), platform.machine(), Listeners(places)
    )


def name_server(
    home: Path, gateway: settings.Gateway, host: Gateway, directory: Directory, clock: Clock
) -> list[Loop]:
    """What must run to answer for the zone, and to keep its wildcard; nothing where that is not wanted. Raises
    UsageError("gateway.no-acme")."""
    if not gateway.dns:
        return []

    def is_up(lease: LeaseId) -> bool:
        """Where no replica is meant to serve, the gateway holds requests until one does."""
        signs = host.signs(lease)
        return signs is None or not signs.replicas or any(not each.misses for each in signs.replicas)

    naming = Naming(gateway.zone, gateway.public, host.documents, is_up, directory, verify, clock, dns.is_up)
    at, _, port = gateway.dns.rpartition(":")
    server = dns.DnsServer(naming.respond)
    loops: list[Loop] = [naming.keep_up, lambda: server.serve(at.strip("[]"), int(port))]
    return [*loops, *_wildcard(home / FOLDER, _certificates(gateway), naming, clock)]


def _wildcard(folder: Path, certificates: Certificates, naming: Naming, clock: Clock) -> list[Loop]:
    if not certificates.zone:
        return []
    try:
        from dockage.adapters.gateway.wildcard import Wildcard
    except ImportError:
        raise UsageError(
            "gateway.no-acme",
            "the zone's certificate needs the package acme: install dockage with the extra `gateway`, or give "
            "gateway.certificate",
        ) from None
    return [Wildcard(folder, certificates.zone, certificates, naming.prove, clock).run]


def resolver(gateway: settings.Gateway) -> Resolver | None:
    """Who is asked whose a tenant's own domain is. Raises UsageError("gateway.no-dnspython")."""
    if not gateway.resolver:
        return None
    try:
        from dockage.adapters.dns.resolver import DnsResolver
    except ImportError:
        raise UsageError(
            "gateway.no-dnspython",
            "gateway.resolver needs dnspython: install dockage with the extra `gateway`",
        ) from None
    at, _, port = gateway.resolver.rpartition(":")
    return DnsResolver(at.strip("[]"), int(port))
