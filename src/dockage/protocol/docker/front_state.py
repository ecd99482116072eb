"""What the Docker front remembers of the tenant's containers, networks and volumes, and how a journal row holds it.

Counterpart: ``adapters/front/books.py``, which keeps these in memory and writes them. The rule: a record holds what
the user *asked* (the create body, byte for byte) beside what the lease answered, so that it can be placed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources

from .front_errors import ambiguous

NOWHERE = LeaseId(b"")
"""The lease of a network or volume that no container has needed yet."""


@dataclass(frozen=True, slots=True)
class Publish:
    """One ``-p``: a port of the container, to be listened to on the tenant's machine."""

    container_port: int
    host_ip: str = ""
    """As asked; "" = the front's default address."""
    first: int = 0
    """Lowest host port that will do; 0 = any free one."""
    last: int = 0
    protocol: str = "tcp"

    @property
    def end(self) -> str:
        """As the Engine API names it: ``80/tcp``."""
        return f"{self.container_port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Container:
    id: str
    """What clients call it: 64 hex digits, the engine's own id of its first placement."""
    name: str
    deployment: str
    lease: LeaseId
    remote: str
    """Its id at the lease's engine; differs from ``id`` once it was placed again."""
    image: str
    """As the user named it."""
    need: Resources
    body: bytes
    """The create body as the client sent it (JSON)."""
    created: int = 0
    """Seconds since the Unix epoch."""
    ports: tuple[Publish, ...] = ()
    bound: tuple[int, ...] = ()
    """The host ports of its last run, in the order of ``ports``: tried first, so that they survive a restart."""
    seen: bytes = b"{}"
    """The engine's last inspect answer (JSON): what is shown when the lease cannot be asked any more."""
    ended: str = ""
    """Why its lease ended; "" while it has one."""
    ran: bool = False
    """Whether it ran when its lease ended."""
    asleep: bool = False
    """It was started at an hour at which nothing is to run: it runs once that is over."""
    image_id: str = ""
    """What the image is by its content (``sha256:`` of its config), whatever its name means by now."""

    def __repr__(self) -> str:
        return f"<Container {self.id[:12]} {self.name} at {self.lease.hex()[:8]}>"


@dataclass(frozen=True, slots=True)
class Network:
    id: str
    name: str
    body: bytes
    created: str
    """RFC 3339."""
    deployment: str = ""
    lease: LeaseId = NOWHERE
    remote: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    name: str
    body: bytes
    created: str
    deployment: str = ""
    lease: LeaseId = NOWHERE


@dataclass(frozen=True, slots=True)
class Rented:
    """A lease that the front obtained and must release when its deployment is empty."""

    lease: LeaseId
    deployment: str
    provider: bytes = b""
    msat_hour: int = 0
    wishes: dict[str, str] = field(default_factory=dict)
    """The ``dockage.*`` labels that it was chosen by."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a deployment was when our user's last change of it began."""

    deployment: str
    containers: tuple[Container, ...]


Record = Container | Network | Volume | Rented | Before
R = TypeVar("R", bound=Record)

KINDS: dict[type[Record], str] = {
    Container: "front.container",
    Network: "front.network",
    Volume: "front.volume",
    Rented: "front.lease",
    Before: "front.before",
}
GONE = b""
"""The value of a journal row whose record was removed."""


def key(record: Record) -> bytes:
    match record:
        case Container() | Network():
            return bytes.fromhex(record.id)
        case Volume():
            return record.name.encode()
        case Rented():
            return record.lease
        case Before():
            return record.deployment.encode()


def encode(record: Record) -> bytes:
    return msgspec.msgpack.encode(record)


def decode(kind: type[R], value: bytes) -> R:
    """Our own row; raises msgspec.ValidationError if it is not one (a bug, or a newer version's journal)."""
    return msgspec.msgpack.decode(value, type=kind)


@dataclass(slots=True)
class Shelf:
    """All records, by key. Pure: who changes it also writes the journal."""

    containers: dict[str, Container] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    rented: dict[LeaseId, Rented] = field(default_factory=dict)
    before: dict[str, Before] = field(default_factory=dict)

    def put(self, record: Record) -> None:
        match record:
            case Container():
                self.containers[record.id] = record
            case Network():
                self.networks[record.id] = record
            case Volume():
                self.volumes[record.name] = record
            case Rented():
                self.rented[record.lease] = record
            case Before():
                self.before[record.deployment] = record

    def drop(self, record: Record) -> None:
        match record:
            case Container():
                self.containers.pop(record.id, None)
            case Network():
                self.networks.pop(record.id, None)
            case Volume():
                self.volumes.pop(record.name, None)
            case Rented():
                self.rented.pop(record.lease, None)
            case Before():
                self.before.pop(record.deployment, None)

    def in_deployment(self, deployment: str) -> list[Container]:
        return [container for container in self.containers.values() if container.deployment == deployment]

    def find_container(self, ref: str) -> Container | None:
        """By full id, name, or unique beginning of an id. Raises ApiError(400) for one that is not unique."""
        return _find(self.containers, ref, ref.removeprefix("/"))

    def find_network(self, ref: str) -> Network | None:
        return _find(self.networks, ref, ref)

    def network_names(self, refs: Iterable[str]) -> dict[str, str]:
        """What each of *refs* that is known is called."""
        return {ref: found.name for ref in refs if (found := self.find_network(ref))}

    def is_empty(self, deployment: str) -> bool:
        """Whether nothing is left that a lease is worth paying for: no container, no volume with data."""
        return not self.in_deployment(deployment) and not any(
            volume.deployment == deployment and volume.lease for volume in self.volumes.values()
        )


N = TypeVar("N", Container, Network)


def _find(known: Mapping[str, N], ref: str, name: str) -> N | None:
    if ref in known:
        return known[ref]
    found = [one for one in known.values() if one.name == name]
    found = found[:1] or [one for one in known.values() if ref and one.id.startswith(ref)]
    if len(found) > 1:
        raise ambiguous(ref)
    return found[0] if found else None
