"""What everything of a lease is called. Pure functions of its id, so a crash can lose no name."""

from __future__ import annotations

from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.hosting import LEASE_LABEL

NETWORKS_MAX = 1000


def checked(lease: LeaseId) -> str:
    """The lease in full hex. Raises UsageError for anything that is not 16 bytes: it ends up in paths."""
    if len(lease) != 16:
        raise UsageError("lease.id", f"a lease id has 16 bytes, not {len(lease)}")
    return lease.hex()


def network(lease: LeaseId) -> str:
    """Engines run a name server of theirs in each container, but not for a network that is called like this: as in
    their own default network, names are not looked up there. It is a third of a start that an engine 20.10 saves. Its
    containers have to join by its id: by this name they would ask for another container's network."""
    return f"container:dkg-{checked(lease)[:12]}"


def bridge_prefix(lease: LeaseId) -> str:
    """What all interfaces of the lease begin with; ``+`` makes it an iptables match. 32 bits of the id: with
    1,000 leases on a machine two share one with a chance of 1 in 9,000, and ``prepare`` refuses the second."""
    return f"dk-{checked(lease)[:8]}-"


def bridge(lease: LeaseId, n: int) -> str:
    if not 0 <= n < NETWORKS_MAX:
        raise UsageError("network.number", f"a lease has networks 0 to {NETWORKS_MAX - 1}, not {n}")
    return f"{bridge_prefix(lease)}{n}"


def chain_forward(lease: LeaseId) -> str:
    return f"DOCKAGE-FWD-{checked(lease)[:8]}"


def chain_input(lease: LeaseId) -> str:
    return f"DOCKAGE-IN-{checked(lease)[:8]}"


def chain_lan(lease: LeaseId) -> str:
    return f"DOCKAGE-LAN-{checked(lease)[:8]}"


def slice_unit(lease: LeaseId) -> str:
    """A dash in a slice's name means nesting: this one lies in ``dockage.slice``."""
    return f"dockage-{checked(lease)}.slice"


def label(lease: LeaseId) -> str:
    """As in ``filters={"label": [...]}``."""
    return f"{LEASE_LABEL}={checked(lease)}"
