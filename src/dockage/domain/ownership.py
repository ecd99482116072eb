"""Whose a domain is: its owner says so in the DNS, by the key of the tenant whom it trusts with the name.

Outside its zone a gateway serves a host only for the tenant that a record names: a TXT ``dockage-tenant=<key>`` at
``_dockage.`` before the host or a domain above it, or a CNAME of the host to a name under that key. Pointing a name at
a gateway alone proves nothing: the gateway has many tenants.
"""

from __future__ import annotations

from .deployment import HOST_MAX, Document, hash32, key52, normal_host
from .identity import NodeKey

PROOF_LABEL = "_dockage"
PROOF_PREFIX = "dockage-tenant="
HOPS_MAX = 4
"""CNAMEs in a row that are followed."""
LEVELS_MAX = 8
"""Domains of one host that are asked for a proof, from the host upwards."""


def own_hosts(document: Document, zone: str) -> list[str]:
    """Those outside of *zone*, in order."""
    hosts = [host for site in document.sites for host in site.hosts]
    return [host for host in hosts if not is_within(host, zone)]


def is_within(host: str, zone: str) -> bool:
    return bool(zone) and (host == zone or host.endswith("." + zone))


def proof_names(host: str) -> list[str]:
    """Where TXT records may stand, the nearest first: there the first that says anything counts. A top-level domain
    is not asked, nor what is no name any more with the label before it."""
    labels = host.split(".")
    names = [f"{PROOF_LABEL}.{'.'.join(labels[at:])}" for at in range(min(len(labels) - 1, LEVELS_MAX))]
    return [name for name in names if len(name) <= HOST_MAX]


def proof_text(tenant: NodeKey) -> str:
    return PROOF_PREFIX + key52(tenant)


def told_keys(texts: tuple[str, ...]) -> frozenset[str]:
    """The keys that TXT records of one name tell; other texts are other people's."""
    return frozenset(
        text.strip().removeprefix(PROOF_PREFIX) for text in texts if text.strip().startswith(PROOF_PREFIX)
    )


def leads_to(target: str, tenant: NodeKey, zone: str) -> bool:
    """Whether a CNAME's *target* says whose it is: a name under the tenant's key, in any gateway's zone, or its
    one-label name in *zone*."""
    host = normal_host(target)
    labels = host.split(".")
    if key52(tenant) in labels[1:-1]:
        return True
    return (
        is_within(host, zone)
        and host.count(".") == zone.count(".") + 1
        and labels[0].endswith("-" + hash32(tenant))
    )
