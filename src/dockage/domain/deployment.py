"""A deployment as gateways see it: its public names, and the replicas that serve them now.

The tenant signs a document for each gateway (``protocol/documents.py``). The one with the higher epoch counts; of two
with one epoch, the one that lasts longer. Host names are compared only after ``normal_host``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Collection
from typing import Literal

import msgspec
from msgspec.structs import replace

from .identity import LeaseId, NodeKey
from .units import Instant

SITES_MAX = 64
REPLICAS_MAX = 64
SERVICES_MAX = 64
GATEWAYS_MAX = 16
HOSTS_MAX = 16
GRANT_MAX = 320
"""Bytes of a tenant's grant (``protocol/grants.py``)."""
NAME_MAX = 64
"""Characters of a deployment's name."""
APP_MAX = 30
"""Characters of a deployment's name in its one-label alias: a label has 63, hash and hyphen take 33."""

Mode = Literal["terminate", "pass", "tcp", "udp"]
"""``terminate``: the gateway ends TLS and speaks HTTP; ``pass``: it reads the name that the TLS client asks for and
passes the bytes on; ``tcp``, ``udp``: a public port of its own."""
State = Literal["serving", "draining", "standby"]
"""``draining`` gets nothing new, ``standby`` nothing at all."""

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_MAX - 1}}}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_Z32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
"""z-base-32, by P. O'Whielacronx: the alphabet of pkarr."""


class Site(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One way in: names or a public port outside, a service's port inside."""

    hosts: tuple[str, ...]
    """Normalised; none for ``tcp`` and ``udp``."""
    port: int
    """The container's."""
    service: str
    mode: Mode = "terminate"
    public_port: int = 0
    """At the gateway, for ``tcp`` and ``udp``."""

    @property
    def is_sane(self) -> bool:
        by_name = self.mode in ("terminate", "pass")
        return (
            0 < self.port < 65536
            and is_name(self.service)
            and (0 < len(self.hosts) <= HOSTS_MAX if by_name else not self.hosts)
            and (self.public_port == 0 if by_name else 0 < self.public_port < 65536)
            and all(normal_host(host) == host for host in self.hosts)
        )


class Replica(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One whole copy: a lease, and its containers by service."""

    provider: NodeKey
    lease: LeaseId
    services: tuple[tuple[str, str], ...]
    """(service, full container id), sorted; a service has as many containers as it is scaled to."""
    grant: bytes
    """The tenant's word to the provider that the gateway this document is for may open tunnels."""
    state: State = "serving"

    def container(self, service: str, nth: int = 0) -> str | None:
        found = [container for name, container in self.services if name == service]
        return found[nth] if nth < len(found) else None

    @property
    def width(self) -> int:
        """Of the service with the most containers."""
        return max(Counter(name for name, _ in self.services).values(), default=0)

    @property
    def is_sane(self) -> bool:
        names = [name for name, _ in self.services]
        return (
            (len(self.provider), len(self.lease)) == (32, 16)
            and len(names) <= SERVICES_MAX
            and list(self.services) == sorted(set(self.services))
            and all(is_name(name) and _CONTAINER.fullmatch(id_) for name, id_ in self.services)
            and len(self.grant) <= GRANT_MAX
        )


OWN = 1 << 40
"""A tenant's own epochs are above, those that its deputy signs in its place below: so its own word always counts."""


class Document(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tenant: NodeKey
    name: str
    """The deployment's."""
    epoch: int
    """Raised with each change; grants below it may have been fenced."""
    expires: Instant
    """The controller's term: it publishes again before."""
    sites: tuple[Site, ...]
    replicas: tuple[Replica, ...]
    gateways: tuple[NodeKey, ...]
    """Everybody who was told of this deployment."""

    @property
    def rank(self) -> tuple[int, Instant]:
        """Of two documents of one deployment the higher counts."""
        return self.epoch, self.expires

    @property
    def is_sane(self) -> bool:
        """False for a peer's nonsense. No host, public port or lease occurs twice."""
        hosts = [host for site in self.sites for host in site.hosts]
        ports = [(site.mode, site.public_port) for site in self.sites if site.public_port]
        leases = [replica.lease for replica in self.replicas]
        return (
            len(self.tenant) == 32
            and is_name(self.name)
            and 0 < self.epoch < 1 << 63
            and 0 < self.expires < 1 << 63
            and len(self.sites) <= SITES_MAX
            and len(self.replicas) <= REPLICAS_MAX
            and len(self.gateways) <= GATEWAYS_MAX
            and all(len(key) == 32 for key in self.gateways)
            and all(len(set(x)) == len(x) for x in (hosts, ports, leases, self.gateways))
            and all(site.is_sane for site in self.sites)
            and all(replica.is_sane for replica in self.replicas)
        )


def without(sites: tuple[Site, ...], hosts: Collection[str]) -> tuple[Site, ...]:
    """As a gateway serves them that does not serve *hosts*. A site stays, if need be with none."""
    return tuple(replace(site, hosts=tuple(x for x in site.hosts if x not in hosts)) for site in sites)


def is_name(text: str) -> bool:
    """Of a deployment or a service: what docker takes, up to 64 characters."""
    return _NAME.fullmatch(text) is not None


# -- names -------------------------------------------------------------------------------------------
HOST_MAX = 253
"""Characters (RFC 1035 §2.3.4)."""


def normal_host(text: str) -> str:
    """*text* as host names are compared (RFC 1123: lower case, no dot at the end); "" for what is none. A port is no
    part of it, nor is an address one: the last label is not all digits. Other scripts come as ``xn--``."""
    if not text.isascii() or len(text) > 254:
        return ""
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > HOST_MAX or len(labels) < 2 or labels[-1].isdigit():
        return ""
    return host if all(_LABEL.fullmatch(label) for label in labels) else ""


def app_label(name: str) -> str:
    """A deployment's name as the first label of its host names: what DNS does not take is a hyphen; cut to
    ``APP_MAX``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:APP_MAX].strip("-") or "app"


def key52(key: NodeKey) -> str:
    """z-base-32: 52 characters, as a pkarr name."""
    number = int.from_bytes(key, "big") << 4
    return "".join(_Z32[number >> shift & 31] for shift in range(255, -1, -5))


def key_of(text: str) -> NodeKey | None:
    """The inverse of ``key52``; None for what is none."""
    if len(text) != 52 or not set(text) <= set(_Z32):
        return None
    number = 0
    for letter in text:
        number = number << 5 | _Z32.index(letter)
    return None if number & 15 else NodeKey((number >> 4).to_bytes(32, "big"))


def hash32(key: NodeKey) -> str:
    """base32 of 20 bytes of the key's hash: 32 characters, so that an app's name fits before it in one label."""
    return base64.b32encode(hashlib.sha256(key).digest()[:20]).decode().lower()


def long_name(name: str, tenant: NodeKey, zone: str) -> str:
    """``<app>.<key>.<zone>``: says itself whose it is."""
    return f"{app_label(name)}.{key52(tenant)}.{zone}"


def alias(name: str, tenant: NodeKey, zone: str) -> str:
    """``<app>-<hash>.<zone>``: one label, so that the zone's wildcard certificate covers it."""
    return f"{app_label(name)}-{hash32(tenant)}.{zone}"


def may_claim(tenant: NodeKey, host: str, zone: str) -> bool:
    """Whether *tenant* may use *host* at a gateway of *zone*: names in the zone belong to the key that they hold;
    other domains to whoever points them here."""
    if host != zone and not host.endswith("." + zone):
        return True
    inner = host.removesuffix(zone).removesuffix(".")
    if "." not in inner:
        return inner.endswith("-" + hash32(tenant))
    return inner.endswith("." + key52(tenant))
