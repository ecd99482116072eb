"""What one container uses, from its own group below the lease's: for ``docker stats``, never for the bill.

The bill reads the lease's group, which outlives every container. Read only while somebody looks, about 200 us a time.
Files: kernel Documentation/admin-guide, cgroup-v1/{cpuacct,memory,pids,blkio-controller}.rst, cgroup-v2.rst, proc(5).
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from dockage.domain.units import SECOND
from dockage.protocol.docker.stats import ContainerUse, Interface

TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
UNLIMITED = 1 << 60
"""cgroup v1 shows no limit as the largest multiple of a page."""
PROC = Path("/proc")


def read(root: Path, version: int, group: str) -> ContainerUse:
    """*group* below the hierarchy's *root*. Raises OSError if the container does not run."""
    return _v2(root / group) if version == 2 else _v1(root, group)


def _v1(root: Path, group: str) -> ContainerUse:
    cpu, memory, pids = (root / controller / group for controller in ("cpuacct", "memory", "pids"))
    total = _number(cpu / "cpuacct.usage")
    ticks, throttled = _table(cpu / "cpuacct.stat"), _table(root / "cpu" / group / "cpu.stat")
    moved = _moved_v1(root / "blkio" / group / "blkio.throttle.io_service_bytes_recursive")
    return ContainerUse(
        at=_text(time.time_ns()),
        boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        cpu_ns=total,
        user_ns=ticks.get("user", 0) * TICK_NS,
        kernel_ns=ticks.get("system", 0) * TICK_NS,
        periods=throttled.get("nr_periods", 0),
        throttled_periods=throttled.get("nr_throttled", 0),
        throttled_ns=throttled.get("throttled_time", 0),
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        memory_peak=_number(memory / "memory.max_usage_in_bytes"),
        memory_limit=_number(memory / "memory.limit_in_bytes"),
        memory_refused=_number(memory / "memory.failcnt"),
        memory_stat=_table(memory / "memory.stat"),
        pids=_number(pids / "pids.current"),
        pids_limit=_number(pids / "pids.max"),
        read_bytes=moved["Read"],
        written_bytes=moved["Write"],
        networks=networks(cpu / "cgroup.procs"),
    )


def _v2(group: Path) -> ContainerUse:
    cpu, moved = _table(group / "cpu.stat"), _moved_v2(group / "io.stat")
    return ContainerUse(
        at=_text(time.time_ns()),
        boottime_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        user_ns=cpu.get("user_usec", 0) * 1000,
        kernel_ns=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_bytes=_number(group / "memory.current"),
        memory_limit=_number(group / "memory.max"),
        memory_stat=_table(group / "memory.stat"),
        pids=_number(group / "pids.current"),
        pids_limit=_number(group / "pids.max"),
        read_bytes=moved["rbytes"],
        written_bytes=moved["wbytes"],
        networks=networks(group / "cgroup.procs"),
    )


def _text(instant: int) -> str:
    whole, part = divmod(instant, SECOND)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def _number(path: Path) -> int:
    """0 for "max", which is no limit."""
    text = path.read_text().strip()
    value = int(text) if text.isdecimal() else 0
    return value if value < UNLIMITED else 0


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}


def _moved_v1(path: Path) -> dict[str, int]:
    """``254:0 Read 4096``, a line for each disk. Zero until some rule for the disk exists (metering.md §1.3)."""
    found = {"Read": 0, "Write": 0}
    with contextlib.suppress(FileNotFoundError):  # a kernel without the controller
        for row in (line.split() for line in path.read_text().splitlines()):
            if len(row) == 3 and row[1] in found:
                found[row[1]] += int(row[2])
    return found


def _moved_v2(path: Path) -> dict[str, int]:
    """``254:0 rbytes=4096 wbytes=0 ...``"""
    found = {"rbytes": 0, "wbytes": 0}
    with contextlib.suppress(FileNotFoundError):
        for word in path.read_text().split():
            key, _, value = word.partition("=")
            if key in found:
                found[key] += int(value)
    return found


def networks(procs: Path, proc: Path = PROC) -> dict[str, Interface]:
    """Of the network namespace in which the group's first process is. None, if it ends meanwhile: its number may
    already be somebody else's."""
    pid = next(iter(procs.read_text().split()), "0")
    try:
        lines = (proc / pid / "net" / "dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    if pid not in procs.read_text().split():
        return {}
    rows = (line.partition(":") for line in lines)
    return {name.strip(): _interface(rest.split()) for name, _, rest in rows if name.strip() != "lo"}


def _interface(row: list[str]) -> Interface:
    numbers = list(map(int, row))
    return Interface(*numbers[0:4], *numbers[8:12])
