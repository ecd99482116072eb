"""What a node stands on: one part behind each port. ``system.py`` makes it of real parts, the tests of fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from dockage.domain.identity import LeaseId
from dockage.ports.hosting import ContainerHost, Gateway, PricePolicy, Prober, Resolver
from dockage.ports.machine import Clock, Evidence, Journal, Keys, Row
from dockage.ports.peers import Directory, Neighbours, NewPake, PeerLink, PublicSquare, RelayFigures, Stream
from dockage.wire.tolls import TollHost

from .config import Config
from .contacts import Contacts
from .peers import Reception
from .rail import Rail

Loop = Callable[[], Awaitable[None]]
IntoLease = Callable[[LeaseId], Awaitable[Stream]]


@dataclass(frozen=True, slots=True)
class Ground:
    home: Path
    config: Config
    keys: Keys
    clock: Clock
    journal: Journal
    evidence: Evidence
    rows: Sequence[Row]
    """What the journal held at the start."""
    link: PeerLink
    reception: Reception
    directory: Directory
    entered: asyncio.Event
    """Set once the market was looked for, found or not."""
    rail: Rail | None
    host: ContainerHost | None
    """None where nothing is sold."""
    prices: PricePolicy
    prober: Callable[[IntoLease, IntoLease], Prober] | None
    """Makes it from the ways to a lease's engine and to send it an image; None where nobody looks."""
    rand: Random
    architecture: str
    """Of our own images, as the kernel names it."""
    new_pake: NewPake
    relay: Callable[[], RelayFigures] | None = None
    """Of the relay that this node runs for others."""
    neighbours: Callable[[], Neighbours] | None = None
    """Makes the port; None where the extra is not installed."""
    contacts: Contacts | None = None
    """Where the board is many nodes."""
    square: PublicSquare | None = None
    hostname: str = "machine"
    gateway: Gateway | None = None
    """The same part as ``host``, where that is a gateway's."""
    resolver: Resolver | None = None
    """Of a gateway, for tenants' own domains."""
    tolls: TollHost | None = None
    """The same part as ``host``, where that is a relay's that is paid."""
