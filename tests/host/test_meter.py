"""Known work is billed as what it was: whatever happens to the container that did it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from dockage.adapters.host import DockerHost
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, MILLISECOND, SECOND
from hostlab import IMAGE, Lab, until

LIMITS = Resources(cpu_milli=2000, memory_bytes=96 * MIB, disk_bytes=256 * MIB)
Leases = Callable[[int], LeaseId]
WORK = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done; times"
START_UP = 400 * MILLISECOND
"""The runtime's own work in the group: 27-40 ms measured on an idle machine."""


def own_time(times: str) -> int:
    """ns of the first line of the shell's ``times``: user and system, in hundredths."""
    parts = re.findall(r"(\d+)m([\d.]+)s", times)[:2]
    return sum(int(minutes) * 60 * SECOND + int(float(seconds) * SECOND) for minutes, seconds in parts)


async def test_cpu_is_exact_through_removal_exec_and_restart(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    first = await host.read(lease)

    done = own_time(lab.run(lease, "--rm", IMAGE, "sh", "-c", WORK))
    removed = await host.read(lease)
    assert done > 20 * MILLISECOND
    assert done - 20 * MILLISECOND <= removed.cpu_ns - first.cpu_ns <= done + START_UP

    container = lab.run(lease, "-d", IMAGE, "sh", "-c", f"{WORK}; sleep 100")
    done = own_time(lab.docker("exec", container, "sh", "-c", WORK))
    lab.docker("restart", "-t", "0", container)
    restarted = await host.read(lease)
    assert restarted.cpu_ns - removed.cpu_ns >= done - 20 * MILLISECOND
    assert restarted.boottime_ns > removed.boottime_ns > first.boottime_ns
    assert (first.containers, restarted.containers) == (0, 1)


async def test_a_container_that_is_killed_for_its_memory_is_still_billed(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    """The limit is the lease's: the container itself asked for none."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    hungry = lab.run(lease, "-d", IMAGE, "dd", "if=/dev/zero", "of=/dev/null", "bs=300M", "count=1")
    assert lab.docker("wait", hungry) == "137"
    assert (await host.read(lease)).cpu_ns > 0


async def test_memory_is_the_working_set(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    fill = "dd if=/dev/zero of=/dev/shm/a bs=1M count=30; dd if=/dev/zero of=/file bs=1M count=40; echo ok; sleep 100"
    container = lab.run(lease, "-d", IMAGE, "sh", "-c", fill)

    async def written() -> bool:
        return "ok" in lab.docker("logs", container)

    await until(written)
    assert 30 * MIB <= (await host.read(lease)).memory_bytes < 60 * MIB


async def test_a_paused_lease_uses_no_cpu(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    busy = [lab.run(lease, "-d", IMAGE, "sh", "-c", "while :; do :; done") for _ in range(2)]
    await host.pause(lease)
    await host.pause(lease)
    paused = await host.read(lease)
    await asyncio.sleep(0.3)
    assert (await host.read(lease)).cpu_ns == paused.cpu_ns
    assert paused.containers == 2
    await host.thaw(lease)
    await host.thaw(lease)

    async def works() -> bool:
        return (await host.read(lease)).cpu_ns > paused.cpu_ns

    await until(works)
    lab.docker("rm", "-f", *busy)


async def test_disk_is_blocks_of_layers_and_volumes(lab: Lab, host: DockerHost, lease_of: Leases) -> None:
    """A sparse file of 1 GB holds nothing; a volume holds what is in it, not its size."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    path = await host.create_volume(lease, "data", 64 * MIB)
    empty = (await host.read(lease)).disk_bytes
    assert empty < 1 * MIB
    write = "dd if=/dev/zero of=/layer bs=1M count=20; dd if=/dev/zero of=/sparse bs=1 count=1 seek=1G; "
    write += "dd if=/dev/zero of=/data/file bs=1M count=10; sync"
    lab.run(lease, "-v", f"{path}:/data", IMAGE, "sh", "-c", write)

    async def walked() -> bool:
        return (await host.read(lease)).disk_bytes >= 30 * MIB

    await until(walked)
    assert (await host.read(lease)).disk_bytes < 32 * MIB
