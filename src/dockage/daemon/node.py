"""A node put together: what the control API and the roles of one daemon share. Made in ``system.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dockage.domain.units import Instant
from dockage.node.provider import Provider
from dockage.node.tenant import Tenant
from dockage.ports.hosting import ContainerHost
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import PeerLink, RelayFigures

from .config import Config
from .deputies import Deputies
from .deputising import Deputising
from .driver import Driver
from .entrance import Entrance
from .exposing import Exposing
from .history import History
from .indexing import Indexer
from .ingress import Ingress
from .keeping import Keeping
from .linking import Linking
from .machines import Machines
from .market import Market, Notice
from .own import OwnMarket
from .paidrelay import PaidRelay
from .peers import Reception
from .publishing import Publisher
from .rail import Rail
from .renting import Renting
from .steps import Steps


@dataclass(slots=True)
class Reached:
    """How others reach us, known once the link's side is wired (``nat.py``)."""

    paid: PaidRelay | None = None
    """None where no relay is wanted."""


@dataclass(frozen=True, slots=True)
class Node:
    home: Path
    config: Config
    started: Instant
    keys: Keys
    clock: Clock
    link: PeerLink
    reception: Reception
    tenant: Driver[Tenant]
    market: Market
    renting: Renting
    rail: Rail | None
    provider: Driver[Provider] | None
    notice: Notice | None
    host: ContainerHost | None
    history: History
    machines: Machines
    own: OwnMarket
    linking: Linking
    entrance: Entrance | None
    """None where there is only one board."""
    keeping: Keeping
    publisher: Publisher
    """Documents, grants and fences of our deployments."""
    exposing: Exposing
    """Our deployments in public."""
    deputies: Deputies
    deputising: Deputising
    indexer: Indexer | None = None
    """Where this node is an index of the market."""
    relay: Callable[[], RelayFigures] | None = None
    ingress: Ingress | None = None
    """Others', where this node is a gateway."""
    reached: Reached = field(default_factory=Reached)
    steps: Steps = field(default_factory=Steps)
