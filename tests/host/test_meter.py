"""Known work is billed as what it was: whatever happens to the container that did it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from dockage.adapters.host import DockerHost
from dockage.domain.identity import LeaseId
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, MILLISECOND, SECOND
from dockage.domain.usage import Meter, advance
from hostlab import IMAGE, Lab, until

LIMITS = Resources(cpu_milli=2000, memory_bytes=96 * MIB, disk_bytes=256 * MIB)
Leases = Callable[[int], LeaseId]
WORK = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done; times"
SHORT = "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done; times"
BOMB = "b() { b | b & }; (b) & while :; do :; done"
"""The first shell forks once: one that may fork no more ends, and the container with it."""
START_UP = 400 * MILLISECOND
"""The runtime's own work in the group: 27-40 ms measured on an idle machine."""


def own_time(times: str) -> int:
    """ns of all that the shell's ``times`` tells: user and system, of itself and its children, in hundredths."""
    parts = re.findall(r"(\d+)m([\d.]+)s", times)
    return sum(int(minutes) * 60 * SECOND + round(float(seconds) * SECOND) for minutes, seconds in parts)


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


async def test_work_is_billed_once_from_the_opening_to_the_closing_reading(
    lab: Lab, host: DockerHost, home: Path, lease_of: Leases
) -> None:
    """One bill over short processes, a kill for memory, a fork bomb, an engine that restarts, and a daemon that is
    gone without a word; the truth is what the work itself says that it took."""
    lease, meter, told, starts = lease_of(1), Meter(), 0, 0
    await host.prepare(lease, LIMITS)
    meter = advance(meter, opening := await host.read(lease), LIMITS)

    told, starts = told + own_time(lab.run(lease, "--rm", IMAGE, "sh", "-c", SHORT)), starts + 1
    meter = advance(meter, await host.read(lease), LIMITS)

    hungry = lab.run(
        lease, "-d", IMAGE, "sh", "-c", f"{WORK}; exec dd if=/dev/zero of=/dev/null bs=300M count=1"
    )
    assert lab.docker("wait", hungry) == "137"  # the limit is the lease's: the container itself has none
    told, starts = told + own_time(lab.docker("logs", hungry)), starts + 1
    assert meter.usage.cpu_ns < (await host.read(lease)).cpu_ns - opening.cpu_ns

    bomb = lab.run(lease, "-d", "--pids-limit", "40", IMAGE, "sh", "-c", BOMB)
    await asyncio.sleep(0.5)
    group, full = leaf(lease, bomb), lab.docker("inspect", "-f", "{{.State.Running}}", bomb)
    assert full == "true"
    at_least = int((group / "cpuacct.usage").read_text())
    lab.docker("rm", "-f", bomb)
    meter = advance(meter, await host.read(lease), LIMITS)
    assert meter.usage.cpu_ns >= told + at_least - 20 * MILLISECOND * starts
    before_restart = await host.read(lease)

    lab.stop_engine()
    meter = advance(meter, await host.read(lease), LIMITS)
    lab.start_engine()
    again = DockerHost(lab.socket, home, "run-2")  # and the first one never closes anything
    await again.start()
    await again.prepare(lease, LIMITS)
    meter = advance(meter, reopened := await again.read(lease), LIMITS)
    assert reopened.cpu_ns == before_restart.cpu_ns
    more = own_time(lab.run(lease, "--rm", IMAGE, "sh", "-c", WORK))
    meter = advance(meter, closing := await again.read(lease), LIMITS)
    await again.close()

    assert meter.usage.cpu_ns == closing.cpu_ns - opening.cpu_ns
    assert more - 20 * MILLISECOND <= closing.cpu_ns - reopened.cpu_ns <= more + START_UP
    late = advance(meter, before_restart, LIMITS)
    assert late == meter  # a reading that comes late is covered by the newer one


def leaf(lease: LeaseId, container: str) -> Path:
    return Path("/sys/fs/cgroup/cpuacct/dockage", lease.hex(), container)


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


def freezer(lease: LeaseId, container: str) -> Path:
    return Path("/sys/fs/cgroup/freezer/dockage", lease.hex(), container, "freezer.state")


def freeze(state: Path) -> None:
    state.write_text("FROZEN")


async def test_what_is_frozen_behind_the_engines_back_is_removed_with_its_lease(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    """As an exec's beginnings are, where its container is paused in that moment (engine 20.10)."""
    lease = lease_of(1)
    await host.prepare(lease, LIMITS)
    container = lab.run(lease, "-d", IMAGE, "sleep", "600")
    freeze(freezer(lease, container))
    await host.teardown(lease)
    assert container not in lab.docker("ps", "-aq", "--no-trunc")


async def test_where_layers_have_no_disk_of_their_own_they_are_walked(
    lab: Lab, host: DockerHost, lease_of: Leases
) -> None:
    """A sparse file of 1 GB holds nothing; a volume holds what is in it, not its size."""
    host._enclosure.works, lease = False, lease_of(1)
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
