"""What a gateway answers to whom asks for a name: the rules of its name server, without the network.

Names lead to gateways, never to providers: whose home an app runs in is nobody's business, and a replica that falls out
is replaced behind the gateway, sooner than any resolver would notice. Spec: docs/spec/09-dns.md.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from dockage.domain.deployment import Document, Site, app_label, key52, key_of
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.ownership import PROOF_LABEL, is_within, proof_text

from . import dns
from .zones import Zone

TTL = 5
"""Seconds that an answer about a deployment may be kept."""
SLOW_TTL = 3600
"""The same for the name server itself."""
ANSWERS_MAX = 4
"""Addresses in one answer: enough to try another one, few enough to be no amplifier."""

Address = tuple[int, bytes]
"""(A or AAAA, its data)."""
Section = tuple[dns.Record, ...]


class Self(NamedTuple):
    """Of the gateway."""

    zone: str
    """"" = none: it answers for domains that were delegated to it."""
    addresses: tuple[Address, ...]
    serial: int
    proofs: tuple[str, ...] = ()
    """What an authority is to find at ``_acme-challenge.<zone>`` at the moment (RFC 8555 §8.4)."""

    @property
    def server(self) -> str:
        return f"ns.{self.zone}"

    @property
    def challenge(self) -> str:
        return f"_acme-challenge.{self.zone}"


class Place(NamedTuple):
    """One host name of a document."""

    lease: LeaseId
    document: Document


class View(NamedTuple):
    """All that answers are made of."""

    self: Self
    places: Mapping[str, Place]
    """By host name."""
    zones: Mapping[NodeKey, Zone]
    """Of tenants, as far as they are known here; of one without a zone an empty one."""
    up: Callable[[LeaseId], bool]
    """Whether a deployment is served from here at the moment."""
    dead: Container[Address]
    """Other gateways that do not answer."""


class Answer(NamedTuple):
    code: int
    answers: Section = ()
    authorities: Section = ()


class Ask(NamedTuple):
    """No answer without this tenant's zone: fetch it, and look again."""

    tenant: NodeKey


def places(documents: Mapping[LeaseId, Document]) -> dict[str, Place]:
    return {
        host: Place(lease, document)
        for lease, document in documents.items()
        for site in document.sites
        for host in site.hosts
    }


def look_up(view: View, name: str, kind: int, turn: int = 0) -> Answer | Ask:
    """*turn* picks who of several comes first."""
    if kind == dns.AXFR:
        return Answer(dns.REFUSED)
    zone = view.self.zone
    if zone and name in (zone, view.self.server):
        return _own(view.self, name, kind)
    if zone and name == view.self.challenge and view.self.proofs:
        proofs = [dns.Record(name, dns.TXT, TTL, dns.text(each)) for each in view.self.proofs]
        return _chosen(view.self, zone, proofs, kind)
    if (answer := _proof(view, name, kind)) is not None:
        return answer
    service, host = _split_service(name)
    place = view.places.get(host)
    if place is not None:
        return _found(view, host, kind, _of_place(view, place, service, name, kind, turn))
    if zone and name.endswith("." + zone):
        return _of_tenant(view, name, kind, turn)
    parent = _delegated(view, name)
    return Answer(dns.NXDOMAIN, (), (_soa(view.self, parent),)) if parent else Answer(dns.REFUSED)


# -- the gateway itself ------------------------------------------------------------------------------
def _own(self: Self, name: str, kind: int) -> Answer:
    records = [dns.Record(name, each, SLOW_TTL, data) for each, data in self.addresses]
    if name == self.zone:
        records += [
            dns.Record(name, dns.NS, SLOW_TTL, dns.encode_name(self.server)),
            _soa(self, name),
        ]
    return _chosen(self, self.zone, records, kind)


def _soa(self: Self, apex: str) -> dns.Record:
    contact = f"hostmaster.{self.zone or apex}"
    server = self.server if self.zone else apex
    return dns.Record(apex, dns.SOA, TTL, dns.authority(server, contact, self.serial, TTL))


def _chosen(self: Self, apex: str, records: Sequence[dns.Record], kind: int) -> Answer:
    """*kind* of *records*; where the name has none of it, an alias; else the word that there is none (RFC 2308)."""
    found = tuple(x for x in records if kind in (x.kind, dns.ANY) or x.kind == dns.CNAME)
    return Answer(dns.NOERROR, found) if found else Answer(dns.NOERROR, (), (_soa(self, apex),))


# -- deployments that are published here -------------------------------------------------------------
def _split_service(name: str) -> tuple[tuple[str, str] | None, str]:
    """``_web._tcp.shop.example`` is a service of ``shop.example`` (RFC 2782)."""
    if not name.startswith("_"):
        return None, name
    match name.split(".", 2):
        case [service, proto, host] if proto in ("_tcp", "_udp"):
            return (service[1:], proto[1:]), host
        case _:
            return None, name


def _of_place(
    view: View, place: Place, service: tuple[str, str] | None, name: str, kind: int, turn: int
) -> list[dns.Record]:
    if service is not None:
        host = name.split(".", 2)[2]
        ports = _ports(place.document, *service)
        return [dns.Record(name, dns.SRV, TTL, dns.service(port, host)) for port in ports]
    records = list[dns.Record]()
    if kind in (dns.A, dns.AAAA, dns.ANY):
        records += _gateways(view, place, name, turn)
    if kind in (dns.TXT, dns.ANY):
        records.append(dns.Record(name, dns.TXT, TTL, dns.text(_summary(place.document))))
    return records


def _ports(document: Document, service: str, proto: str) -> list[int]:
    def port(site: Site) -> int:
        return site.public_port or (443 if proto == "tcp" else 0)

    named = {"udp": ("udp",), "tcp": ("tcp", "terminate", "pass")}[proto]
    return sorted({port(x) for x in document.sites if x.mode in named and x.service.lower() == service} - {0})


def _summary(document: Document) -> str:
    serving = sum(replica.state == "serving" for replica in document.replicas)
    return (
        f"dockage=1 tenant={key52(document.tenant)} deployment={document.name} "
        f"epoch={document.epoch} serving={serving}"
    )


def _gateways(view: View, place: Place, host: str, turn: int) -> list[dns.Record]:
    """This gateway while it has a replica that answers, and the tenant's others that are up; where nobody is, all: a
    resolver that hears nothing remembers that."""
    app = app_label(place.document.name)
    told = view.zones.get(place.document.tenant, {}).get(app, ())
    others = [(x.kind, x.data) for x in told if x.kind in (dns.A, dns.AAAA)]
    others = [x for x in others if x not in view.self.addresses and x not in view.dead]
    mine = list(view.self.addresses) if view.up(place.lease) or not others else []
    return _turned([*mine, *others], host, TTL, turn)


def _turned(addresses: Sequence[Address], host: str, ttl: int, turn: int) -> list[dns.Record]:
    records = list[dns.Record]()
    for kind in (dns.A, dns.AAAA):
        of = [data for each, data in addresses if each == kind]
        if len(of) > 1:
            first = turn % len(of)
            of = [*of[first:], *of[:first]][:ANSWERS_MAX]
        records += [dns.Record(host, kind, ttl, data) for data in of]
    return records


def _found(view: View, host: str, kind: int, records: Sequence[dns.Record]) -> Answer:
    zone = view.self.zone
    if zone and host.endswith("." + zone):
        return _chosen(view.self, zone, records, kind)
    if kind in (dns.NS, dns.SOA, dns.ANY):  # the tenant's own domain, delegated to us: its apex is here
        server = dns.Record(host, dns.NS, SLOW_TTL, dns.encode_name(view.self.server if zone else host))
        records = [*records, server, _soa(view.self, host)]
    return _chosen(view.self, host, records, kind)


def _proof(view: View, name: str, kind: int) -> Answer | None:
    """Whose an own domain is that is delegated to us. It was proven before it was published here, and its owner's word
    at the old name server cannot be read any more: ours stands in for it, until it is delegated elsewhere."""
    label, _, host = name.partition(".")
    place = view.places.get(host)
    if label != PROOF_LABEL or place is None or is_within(host, view.self.zone):
        return None
    proof = dns.Record(name, dns.TXT, TTL, dns.text(proof_text(place.document.tenant)))
    return _chosen(view.self, host, [proof], kind)


def _delegated(view: View, name: str) -> str:
    """The published own domain that *name* lies under, or ""."""
    parts = name.split(".")
    above = (".".join(parts[at:]) for at in range(1, len(parts)))
    return next((x for x in above if x in view.places), "")


# -- deployments that other gateways serve -----------------------------------------------------------
def _of_tenant(view: View, name: str, kind: int, turn: int) -> Answer | Ask:
    """``<name>.<key>.<zone>`` from the zone that the holder of the key has signed."""
    zone = view.self.zone
    nobody = Answer(dns.NXDOMAIN, (), (_soa(view.self, zone),))
    labels = name.removesuffix("." + zone).rpartition(".")
    tenant = key_of(labels[2])
    if tenant is None:
        return nobody
    if tenant not in view.zones:
        return Ask(tenant)
    facts = view.zones[tenant].get(labels[0])
    if facts is None:
        return nobody
    addresses = [(x.kind, x.data) for x in facts if x.kind in (dns.A, dns.AAAA)]
    alive = [x for x in addresses if x not in view.dead] or addresses
    others = [x._replace(name=name) for x in facts if x.kind not in (dns.A, dns.AAAA)]
    return _chosen(view.self, zone, [*_turned(alive, name, TTL, turn), *others], kind)
