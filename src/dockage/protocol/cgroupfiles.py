"""A container's own counters, as ``cat`` prints the kernel's files inside it: cgroup v1 and v2 at once.

Whichever files are there are there (metering.md §2.3); what is missing is said on stderr, which is not read.
"""

from __future__ import annotations

from typing import NamedTuple

FILES = (
    "/sys/fs/cgroup/cpuacct/cpuacct.usage",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/memory.stat",
    "/sys/fs/cgroup/memory.current",
    "/sys/fs/cgroup/memory.stat",
    "/sys/fs/cgroup/cpu.stat",
)


class Counters(NamedTuple):
    cpu_ns: int
    memory_bytes: int
    """Usage less inactive file cache."""


def read(text: str) -> Counters | None:
    """None where the files are not those of a container with its own counters."""
    words = [line.split() for line in text.splitlines()]
    plain = [int(w[0]) for w in words if len(w) == 1 and w[0].isdecimal()]
    named = {w[0]: int(w[1]) for w in words if len(w) == 2 and w[1].isdecimal()}
    if "usage_usec" in named and len(plain) == 1:  # v2
        return Counters(named["usage_usec"] * 1000, max(0, plain[0] - named.get("inactive_file", 0)))
    if len(plain) == 2:  # v1: cpuacct.usage before memory.usage_in_bytes
        return Counters(plain[0], max(0, plain[1] - named.get("total_inactive_file", 0)))
    return None
