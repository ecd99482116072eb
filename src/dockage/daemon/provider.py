"""Puts a provider together, beside ``system.py``: the machine it sells, at which prices and to whom."""

from __future__ import annotations

import secrets
import time
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from dockage.adapters.engine.gate import EngineGate
from dockage.adapters.host.host import DockerHost
from dockage.adapters.prices.command import CommandRate
from dockage.adapters.prices.fixed import ByUse, Fixed
from dockage.adapters.prices.pegged import Bounds, FixedRate, Pegged
from dockage.adapters.system.resolvers import resolvers
from dockage.domain.channel import RESERVE
from dockage.domain.offer import Ingress
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, SECOND, Duration, Sat, micro, msat
from dockage.node.policy import ProviderPolicy
from dockage.ports.hosting import HostFacts, PricePolicy

from . import config as settings
from . import nat
from .config import Config

log = structlog.get_logger("dockage.node")


async def docker_host(home: Path, sells: settings.Provider, stack: AsyncExitStack) -> DockerHost:
    engine = Path(sells.engine)
    host = DockerHost(
        engine,
        home / "leases",
        secrets.token_hex(8),
        firewall=sells.firewall,
        resolvers=sells.resolvers or resolvers(),
    )
    await host.start()
    stack.push_async_callback(host.close)
    # The gate needs the host for its names and volumes, the host needs the gate to serve: joined here.
    gate = EngineGate(engine, host)
    stack.push_async_callback(gate.close)
    host.gate = gate
    return host


def policy(config: Config, facts: HostFacts) -> ProviderPolicy:
    sells, port = config.provider, nat.paid_port(config)
    for warning in facts.warnings:
        log.warning("host.warning", what=warning)
    return ProviderPolicy(
        tariff=settings.tariff(config),
        capacity=facts.capacity if config.gateway.enabled or port else for_sale(sells, facts.capacity),
        region=sells.region,
        architecture=facts.architecture,
        network=config.bitcoin.network,
        free_for=tuple(settings.read_key(key) for key in sells.free_for),
        only_for=tuple(settings.read_key(key) for key in sells.only_for if key != settings.OWN),
        only_own=settings.only_own(sells),
        blocked=frozenset(settings.read_key(key) for key in sells.blocked),
        credit_sat=Sat(sells.credit_sat),
        ingress=ingress(config.gateway),
        relay_port=port,
        setup_sat=Sat(sells.setup_sat or (RESERVE if config.bitcoin.wallet == "light" else 0)),
        credit_max_sat=Sat(sells.credit_max_sat),
        credit_total_sat=Sat(sells.credit_total_sat),
        min_msat_hour=msat(Sat(sells.min_sat_hour)),
        patience=Duration(sells.patience_sec * SECOND),
        grace=Duration(sells.grace_sec * SECOND),
    )


def ingress(gateway: settings.Gateway) -> Ingress | None:
    """What the offer says of the gateway."""
    if not gateway.enabled:
        return None
    return Ingress(gateway.zone, gateway.public, *settings.read_ports(gateway.ports))


def for_sale(sells: settings.Provider, machine: Resources) -> Resources:
    share = sells.share_percent
    return Resources(
        sells.cpu_milli or machine.cpu_milli * (share or 100) // 100,
        sells.memory_mib * MIB or machine.memory_bytes * (share or 75) // 100,
        sells.disk_mib * MIB or machine.disk_bytes * (share or 50) // 100,
    )


def prices(sells: settings.Provider, peg: settings.Peg) -> PricePolicy:
    match sells.price_policy:
        case "utilisation":
            return ByUse(sells.price_empty_percent, sells.price_full_percent)
        case "pegged":
            rate = CommandRate(peg.command, peg.timeout_sec) if peg.command else FixedRate(micro(peg.rate))
            low, high = settings.rate_bounds(peg)
            bounds = Bounds(micro(peg.reference), low, high, float(peg.max_age_sec))
            return Pegged(rate, bounds, peg.every_sec, time.monotonic)
        case _:
            return Fixed()
