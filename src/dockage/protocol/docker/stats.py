"""``GET /containers/{id}/stats`` from the provider's own meter instead of its engine's collector.

Counterparts: ``adapters/host/inside.py`` reads the kernel's files, ``adapters/engine/stats.py`` sends the lines. The
shape is the Engine API's (1.41 to 1.44), so the stock clients' arithmetic holds: 100 % of CPU is one core, memory less
``inactive_file`` is the working set that is billed. Nothing in it is of the provider's machine as a whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dockage.domain.resources import Resources

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"


class Interface(NamedTuple):
    """Totals of one network interface of a container, as it sees them itself (Ethernet frames)."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class ContainerUse(NamedTuple):
    """One container at one moment, from its cgroup below the lease's. Totals are since it was started; the bill's own
    totals are the lease's, which also has what earlier containers used."""

    at: str
    """RFC 3339, as Go writes it."""
    boottime_ns: int
    cpu_ns: int
    user_ns: int = 0
    kernel_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    """With file cache, as the kernel counts it."""
    memory_peak: int = 0
    memory_limit: int = 0
    """0 = none of its own."""
    memory_refused: int = 0
    memory_stat: dict[str, int] = {}  # noqa: RUF012  (never changed)
    pids: int = 0
    pids_limit: int = 0
    """0 = none of its own."""
    read_bytes: int = 0
    written_bytes: int = 0
    networks: dict[str, Interface] = {}  # noqa: RUF012


def document(
    id_: str,
    name: str,
    limits: Resources | None,
    now: ContainerUse | None,
    before: ContainerUse | None = None,
) -> Json:
    """One line. *now* is None while the container does not run; *before* is the sample of the line before it."""
    limits = limits or Resources()
    return {
        "read": now.at if now else NEVER,
        "preread": before.at if before else NEVER,
        "pids_stats": _pids(now) if now else {},
        "blkio_stats": _blocks(now),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now, limits),
        "precpu_stats": _cpu(before, limits),
        "memory_stats": _memory(now, limits) if now else {},
        "name": name,
        "id": id_,
        **({"networks": {key: one._asdict() for key, one in now.networks.items()}} if now else {}),
    }


def cores(limits: Resources) -> int:
    """As many as the lease has, rounded up: how many the provider has is its own affair."""
    return max(1, -(-limits.cpu_milli // 1000))


def _cpu(use: ContainerUse | None, limits: Resources) -> Json:
    """``system_cpu_usage`` is what the lease's cores could have done since the machine was started: clients divide by
    how far it moved, and multiply by ``online_cpus``."""
    at_work = use or ContainerUse(NEVER, 0, 0)
    whole = {"system_cpu_usage": use.boottime_ns * cores(limits), "online_cpus": cores(limits)} if use else {}
    return {
        "cpu_usage": {
            "total_usage": at_work.cpu_ns,
            "usage_in_kernelmode": at_work.kernel_ns,
            "usage_in_usermode": at_work.user_ns,
        },
        **whole,
        "throttling_data": {
            "periods": at_work.periods,
            "throttled_periods": at_work.throttled_periods,
            "throttled_time": at_work.throttled_ns,
        },
    }


def _memory(use: ContainerUse, limits: Resources) -> Json:
    bounds = [bound for bound in (use.memory_limit, limits.memory_bytes) if bound]
    peak = {"max_usage": use.memory_peak} if use.memory_peak else {}
    refused = {"failcnt": use.memory_refused} if use.memory_refused else {}
    return {
        "usage": use.memory_bytes,
        **peak,
        "stats": use.memory_stat,
        **refused,
        "limit": min(bounds, default=0),
    }


def _pids(use: ContainerUse) -> Json:
    return {"current": use.pids} | ({"limit": use.pids_limit} if use.pids_limit else {})


BLOCKS = (
    "io_service_bytes_recursive io_serviced_recursive io_queue_recursive io_service_time_recursive "
    "io_wait_time_recursive io_merged_recursive io_time_recursive sectors_recursive"
).split()


def _blocks(use: ContainerUse | None) -> Json:
    """All disks in one: which the provider has, tells its tenants nothing."""
    moved = {"read": use.read_bytes, "write": use.written_bytes} if use else {}
    entries = [{"major": 0, "minor": 0, "op": op, "value": value} for op, value in moved.items()]
    return dict.fromkeys(BLOCKS, None if use is None else ()) | {BLOCKS[0]: entries if use else None}
