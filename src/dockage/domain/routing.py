"""What a gateway may route by: which documents stand beside each other, and which replica gets the next request.

One ingress lease holds one deployment. The rule: a newer word of a tenant about its own deployment always counts, and
never takes a name or a port away from another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from .deployment import Document, Site, may_claim
from .errors import UsageError
from .identity import LeaseId


class Rules(NamedTuple):
    """A gateway's own."""

    zone: str
    """"" = it has none: own domains only."""
    first_port: int = 0
    last_port: int = -1
    """Public ports for ``tcp`` and ``udp``, both included."""
    dropped: frozenset[str] = frozenset()
    """Host names, and tenants' keys in hex, that the operator serves no more."""


Claim = tuple[str, str]
"""What one deployment alone can have: its own name, a host name, a public port."""
Held = Mapping[Claim, tuple[LeaseId, Document]]
"""By ``claims``, all that is published."""


def claims(document: Document) -> set[Claim]:
    names = {("name", host) for site in document.sites for host in site.hosts}
    ports = {(f"{site.mode} port", str(site.public_port)) for site in document.sites if site.public_port}
    return names | ports | {itself(document)}


def itself(document: Document) -> Claim:
    return "deployment", f"{document.tenant.hex()}/{document.name}"


def check(held: Held, lease: LeaseId, new: Document, rules: Rules) -> None:
    """Whether *new*, for *lease*, may stand beside what is *held*. Raises UsageError("document.old" |
    "document.dropped" | "site.foreign" | "site.port" | "site.taken"): the answer to its tenant."""
    _check_drops(new, rules)
    for site in new.sites:
        _check_site(new, site, rules)
    for claim in sorted(claims(new)):
        holder, other = held.get(claim, (lease, new))
        if itself(other) == itself(new):
            if new.rank < other.rank:
                raise UsageError("document.old", f"epoch {other.epoch} of {new.name} is published already")
        elif holder != lease:
            raise UsageError("site.taken", f"{' '.join(claim)} is another deployment's here")


def _check_drops(new: Document, rules: Rules) -> None:
    if is_dropped(new, rules.dropped):
        raise UsageError("document.dropped", "this gateway's operator does not serve that; use another one")


def _check_site(new: Document, site: Site, rules: Rules) -> None:
    for host in site.hosts:
        if rules.zone and not may_claim(new.tenant, host, rules.zone):
            raise UsageError("site.foreign", f"{host} is a name of the gateway or of another tenant")
    if site.public_port and not rules.first_port <= site.public_port <= rules.last_port:
        raise UsageError(
            "site.port",
            f"port {site.public_port} is not for rent here: {rules.first_port} to {rules.last_port} are",
        )


def is_dropped(document: Document, dropped: Iterable[str]) -> bool:
    named = {document.tenant.hex(), *(host for site in document.sites for host in site.hosts)}
    return bool(named & set(dropped))


# -- which replica -----------------------------------------------------------------------------------
class Choosable(Protocol):
    @property
    def in_flight(self) -> int: ...

    @property
    def down(self) -> bool: ...

    @property
    def misses(self) -> int: ...


B = TypeVar("B", bound=Choosable)


def pick(choice: Sequence[B], rand: Random) -> B | None:
    """The less busy of two at random. Where all are down, the one that missed least: it may be us who is cut off."""
    if len(choice) == 1:
        return choice[0]
    up = [each for each in choice if not each.down]
    if not up:
        return min(choice, key=lambda each: (each.misses, each.in_flight), default=None)
    if len(up) == 1:
        return up[0]
    first = int(rand.random() * len(up))
    second = (first + 1 + int(rand.random() * (len(up) - 1))) % len(up)
    one, other = up[first], up[second]
    return one if one.in_flight <= other.in_flight else other
