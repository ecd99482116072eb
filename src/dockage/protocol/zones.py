"""A tenant's zone: the slow facts about its deployments, signed by its key, kept by the market.

Spec: docs/spec/09-dns.md. The payload is a DNS response as pkarr keeps it: every name ends with the tenant's key in
z-base-32. Any gateway can answer for any tenant from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dockage.domain.deployment import app_label, key52
from dockage.domain.errors import PeerError, UsageError
from dockage.domain.identity import NodeKey

from . import dns
from .records import ZONE_MAX

RECORDS_MAX = 64
TTL = 60
"""Seconds: gateways change seldom, and each answers only for those that are up."""
KEPT = (dns.A, dns.AAAA, dns.CNAME, dns.TXT, dns.SRV)
"""Kinds that a gateway passes on."""

Zone = Mapping[str, tuple[dns.Record, ...]]
"""By name relative to the tenant's key: "" is the key itself, ``shop`` an app."""


def write_zone(tenant: NodeKey, apps: Mapping[str, Sequence[str]]) -> bytes:
    """The payload of the record that says at which public addresses each deployment is. Raises UsageError
    ("zone.oversized"): then the tenant has more deployments than one key can tell of."""
    key = key52(tenant)
    records = [
        dns.Record(f"{app_label(name)}.{key}", *_timed(dns.address(address)))
        for name, addresses in sorted(apps.items())
        for address in addresses
    ]
    payload = dns.write_answers(records)
    if len(payload) > ZONE_MAX or len(records) > RECORDS_MAX:
        raise UsageError(
            "zone.oversized",
            f"{len(records)} addresses of {len(apps)} deployments do not fit into a zone of {ZONE_MAX} bytes: use "
            "fewer gateways for each, or a second node for some of them",
        )
    return payload


def _timed(address: tuple[int, bytes]) -> tuple[int, int, bytes]:
    return address[0], TTL, address[1]


def read_zone(tenant: NodeKey, payload: bytes) -> Zone:
    """What is of no use here is passed over. Raises PeerError("dns.malformed" | "zone.foreign")."""
    key, found = key52(tenant), dict[str, tuple[dns.Record, ...]]()
    for record in dns.read_answers(payload, RECORDS_MAX):
        if record.name != key and not record.name.endswith("." + key):
            raise PeerError("zone.foreign", "a zone with a name that does not end with its own key")
        if record.kind in KEPT and _is_whole(record):
            name = record.name.removesuffix(key).removesuffix(".")
            found[name] = (*found.get(name, ()), record)
    return found


def _is_whole(record: dns.Record) -> bool:
    sizes = {dns.A: 4, dns.AAAA: 16}
    return len(record.data) == sizes.get(record.kind, len(record.data))
