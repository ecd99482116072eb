"""Names of the tenant's view and of the engine: container ``web`` is ``dkg-<12 hex of the lease>-web`` there.

A name alone never decides who owns something (a tenant chooses its lease id, so prefixes may be made to
collide): the gate finds objects by the label ``dockage.lease`` = full hex, names only keep them apart.
"""

from __future__ import annotations

import re

from dockage.domain.identity import LeaseId

from .refusal import Refused

LEASE_LABEL = "dockage.lease"
"""As ``ports.hosting.LEASE_LABEL`` (which this layer may not import; a test compares them)."""
NETWORK_LABEL = "dockage.network"
"""On a network that a tenant made: its number n in ``LeaseRoom.network_options(lease, n)``."""
ANONYMOUS_LABEL = "dockage.anonymous"
"""On a volume nobody named: it goes with its container, as Docker's anonymous volumes do. On a container:
the names of those that are its own, comma-separated."""
INTERNAL_LABELS = frozenset({LEASE_LABEL, NETWORK_LABEL, ANONYMOUS_LABEL})
"""Set by the gate, hidden from the tenant, refused in its requests. Other ``dockage.*`` labels are the tenant's."""

DEFAULT_NETWORK = "bridge"
"""What the tenant sees of the network that ``prepare`` made."""
ANONYMOUS_PREFIX = "anonymous-"

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")
_FOREIGN = re.compile(r"dkg-[0-9a-f]{12}(?:-[a-zA-Z0-9_.-]+)?")


def is_name(text: str) -> bool:
    """Docker's rule for containers, volumes and networks, with an end (128)."""
    return _NAME.fullmatch(text) is not None


def is_full_id(text: str) -> bool:
    return _FULL_ID.fullmatch(text) is not None


def is_image_id(text: str) -> bool:
    """An id or a prefix of at least 12 digits: what a front names after it shipped the layers."""
    return _IMAGE_ID.fullmatch(text) is not None


def prefix(lease: LeaseId) -> str:
    return f"dkg-{lease.hex()[:12]}-"


def engine_name(lease: LeaseId, name: str) -> str:
    """Raises Refused(400) for a name that Docker would not take either."""
    if not is_name(name):
        raise Refused(
            400, f"invalid name {name[:80]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-], at most 128 characters"
        )
    return prefix(lease) + name


def tenant_name(lease: LeaseId, name: str) -> str:
    """Without the lease's prefix (and without the slash that the engine puts before a container's name)."""
    return name.removeprefix("/").removeprefix(prefix(lease))


def tenant_network(lease: LeaseId, default: str, name: str) -> str:
    """*default* is the engine's name of the lease's own network, which is joined by its id; no other is."""
    return DEFAULT_NETWORK if name == default or is_full_id(name) else tenant_name(lease, name)


def scrub(lease: LeaseId, message: str) -> str:
    """An engine's error message in the tenant's words: own names without prefix, foreign ones and the
    provider's paths not at all."""
    mine = message.replace(prefix(lease), "")
    hidden = _FOREIGN.sub("(hidden)", mine)
    return _PROVIDER_PATH.sub("(provider)", hidden)[:2000]


_PROVIDER_PATH = re.compile(
    r"(?<![\w/])/(?:var/(?:lib|run)|run|dev/shm|home|root|mnt|srv|sys/fs)/[^\s\"':,]*"
)
