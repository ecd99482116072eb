"""Puts a gateway together, beside ``system.py``: the relay as the provider's machine, and Caddy before it."""

from __future__ import annotations

import platform
import secrets
from pathlib import Path
from random import SystemRandom

from dockage.adapters.gateway.face import Certificates, Face
from dockage.adapters.gateway.host import GatewayHost
from dockage.adapters.gateway.listeners import Listeners, Places
from dockage.domain.offer import Ingress
from dockage.domain.routing import Rules
from dockage.ports import Clock

from . import config as settings

FOLDER = "gateway"


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
    files = (gateway.certificate, gateway.certificate_key) if gateway.certificate else None
    certificates = Certificates(gateway.acme, gateway.acme_root, gateway.acme_email, files)
    host.beside.append(Face(folder, gateway.http, certificates, host.served).run)
    return host


def _host(rules: Rules, clock: Clock, places: Places) -> GatewayHost:
    return GatewayHost(
        rules, clock, SystemRandom(), secrets.token_hex(8), platform.machine(), Listeners(places)
    )


def ingress(gateway: settings.Gateway) -> Ingress | None:
    """What the offer says."""
    if not gateway.enabled:
        return None
    return Ingress(gateway.zone, gateway.public, *settings.read_ports(gateway.ports))
