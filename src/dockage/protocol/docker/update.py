"""The body of ``POST /containers/{id}/update``: only what stays inside the lease may change."""

from __future__ import annotations

from typing import Any

from .fields import RESOURCES
from .values import is_default

CHANGEABLE = frozenset(
    "CpuShares Memory MemoryReservation NanoCpus CpuPeriod CpuQuota PidsLimit RestartPolicy".split()
)


def update_body(body: dict[str, Any]) -> dict[str, Any]:
    """Only for a body without ``update_refusals`` and within the limits. Memory never brings swap with it."""
    kept = {name: value for name, value in body.items() if name in CHANGEABLE and not is_default(value)}
    if kept.get("PidsLimit", 1) < 1:
        del kept["PidsLimit"]  # "unlimited" is not a change for the better that we could make
    if "Memory" in kept:
        kept["MemorySwap"] = kept["Memory"]
    return {name: value for name, value in kept.items() if name in RESOURCES}
