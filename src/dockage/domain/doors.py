"""What of a deployment is to be public, as its labels say it; and what a gateway is to serve for that.

Counterpart: ``deployment.py``, whose ``Site`` is a door at one gateway. The one rule: a door has the same names and the
same port after every restart and every move, so a link to it stays good.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from .deployment import HOSTS_MAX, SITES_MAX, Mode, Site, alias, hash32, is_name, long_name, normal_host
from .errors import UsageError
from .identity import NodeKey
from .offer import Ingress

MODES: Mapping[str, Mode] = {"http": "terminate", "tls": "pass", "tcp": "tcp", "udp": "udp"}
"""As labels call them."""
_DOOR = re.compile(r"(?:(?P<public>\d{1,5}):)?(?P<port>\d{1,5})(?:/(?P<kind>[a-z]+))?")
OWN_HOSTS_MAX = HOSTS_MAX - 4
"""A gateway's own names for a door are up to four."""
DOORS_MAX = 16
"""Of one deployment: a grant names so many ports."""


class Door(msgspec.Struct, frozen=True):
    """One way in that is asked for."""

    service: str
    port: int
    """The container's."""
    mode: Mode = "terminate"
    public_port: int = 0
    """Of ``tcp`` and ``udp``; 0: any that the gateway has left."""
    hosts: tuple[str, ...] = ()
    """Our user's own names for it."""

    @property
    def by_name(self) -> bool:
        return self.mode in ("terminate", "pass")


def read_doors(service: str, public: str, hosts: str = "") -> tuple[Door, ...]:
    """From the values of ``dockage.public`` and ``dockage.host``. Raises UsageError("label.public" | "label.host")."""
    own = tuple(dict.fromkeys(read_hosts(hosts)))
    doors = tuple(_door(service, text) for text in _words(public))
    named = [door for door in doors if door.by_name]
    if len(named) > 1:
        raise UsageError(
            "label.public",
            f"{service}: names lead to one port of a service: one of http and tls, not {public!r}",
        )
    if own and not named:
        raise UsageError(
            "label.host", f"{service}: dockage.host needs a port for it, as in dockage.public=80"
        )
    if doors and not is_name(service):
        raise UsageError(
            "label.public", f"{service[:80]!r} cannot be public: its name is none that docker takes"
        )
    return tuple(msgspec.structs.replace(door, hosts=own) if door.by_name else door for door in doors)


def read_hosts(text: str) -> Iterator[str]:
    """Raises UsageError("label.host")."""
    words = _words(text)
    if len(words) > OWN_HOSTS_MAX:
        raise UsageError("label.host", f"dockage.host takes at most {OWN_HOSTS_MAX} names, not {len(words)}")
    for word in words:
        if not (host := normal_host(word)):
            raise UsageError(
                "label.host", f"dockage.host takes names like shop.example.org, not {word[:80]!r}"
            )
        yield host


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def _door(service: str, text: str) -> Door:
    found = _DOOR.fullmatch(text.lower())
    kind = (found and found["kind"]) or "http"
    if (
        found is None
        or kind not in MODES
        or not _is_port(found["port"])
        or not _is_port(found["public"] or "1")
    ):
        raise UsageError(
            "label.public",
            f"dockage.public takes ports like 80, 443/tls, 5432/tcp or 27015:27015/udp, not {text[:80]!r}",
        )
    door = Door(service, int(found["port"]), MODES[kind], int(found["public"] or 0))
    if door.by_name and door.public_port:
        raise UsageError(
            "label.public", f"{text}: http and tls are found by their name, and need no public port"
        )
    return door


def _is_port(text: str) -> bool:
    return 0 < int(text) < 65536


# -- at a gateway --------------------------------------------------------------------------------------
def fits(doors: Iterable[Door], gateway: Ingress) -> bool:
    """Whether a gateway can serve all of them."""
    return all(_fits(door, gateway) for door in doors)


def _fits(door: Door, gateway: Ingress) -> bool:
    if door.by_name:
        return bool(gateway.zone or door.hosts)
    if not gateway.last_port:
        return False
    return not door.public_port or gateway.first_port <= door.public_port <= gateway.last_port


def sites(
    doors: Sequence[Door], app: str, tenant: NodeKey, gateway: Ingress, attempt: int = 0
) -> tuple[Site, ...]:
    """What to ask of *gateway*. Where a port was taken, another *attempt* asks for others. The first service by name
    has the deployment's own name."""
    ordered = sorted(doors, key=lambda door: (not door.by_name, door.service, door.port, door.mode))
    found = list[Site]()
    used = set[tuple[str, int]]()
    for number, door in enumerate(ordered):
        if door.by_name:
            hosts = (*door.hosts, *zone_hosts(app, door.service, tenant, gateway.zone, first=number == 0))
            site = Site(tuple(dict.fromkeys(hosts)), door.port, door.service, door.mode)
        else:
            port = door.public_port or _free_port(door, app, tenant, gateway, attempt, used)
            used.add((door.mode, port))
            site = Site((), door.port, door.service, door.mode, port)
        found.append(site)
    return tuple(found[:SITES_MAX])


def zone_hosts(app: str, service: str, tenant: NodeKey, zone: str, *, first: bool) -> tuple[str, ...]:
    """The names of a service in a gateway's zone: of one label for its wildcard certificate, and under our key."""
    if not zone:
        return ()
    own = (alias(app, tenant, zone), long_name(app, tenant, zone)) if first else ()
    name = service_label(app, service)
    return (
        *own,
        f"{name}-{hash32(tenant)}.{zone}",
        f"{service_label(service)}.{long_name(app, tenant, zone)}",
    )


def service_label(*parts: str) -> str:
    """One label for several names; cut as an app's is, but where that loses something its end is a hash, so that two
    do not become one."""
    whole = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    if len(whole) <= LABEL_MAX:
        return whole or "app"
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
    return f"{whole[: LABEL_MAX - 7].strip('-')}-{digest}"


LABEL_MAX = 30


def _free_port(
    door: Door, app: str, tenant: NodeKey, gateway: Ingress, attempt: int, used: set[tuple[str, int]]
) -> int:
    """The same each time, another for each attempt."""
    size = gateway.last_port - gateway.first_port + 1
    seed = b"\0".join(
        (tenant, app.encode(), door.service.encode(), door.mode.encode(), str(door.port).encode())
    )
    start = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big") + attempt
    for step in range(size):
        port = gateway.first_port + (start + step) % size
        if (door.mode, port) not in used:
            return port
    return gateway.first_port


def urls(found: Sequence[Site], gateway: Ingress) -> tuple[tuple[str, str], ...]:
    """(service, URL) of each site, as people type it: an own name if there is one, else the short one of the zone."""
    at = gateway.zone or (
        f"[{gateway.addresses[0]}]" if ":" in gateway.addresses[0] else gateway.addresses[0]
    )
    return tuple(
        (site.service, f"https://{site.hosts[0]}" if site.hosts else f"{site.mode}://{at}:{site.public_port}")
        for site in found
        if site.hosts or site.public_port
    )
