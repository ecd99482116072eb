"""cgroup v2 as a real kernel has it: on this machine, where it is v2, and else in the guest of ``script/guest``, which
runs this file with a bare interpreter. So it imports what reads and writes groups and nothing that takes long, and
touches little memory: a page costs the guest a third of a millisecond.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockage.adapters.host import cgroup
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, MILLISECOND, SECOND

ROOT = Path(__file__).resolve().parents[2]
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
INSIDE = UNIFIED and os.geteuid() == 0 and os.access("/sys/fs/cgroup", os.W_OK)

inside = pytest.mark.skipif(not INSIDE, reason="this machine's cgroups are v1: see the test of the guest")
NAME = f"dockage/{os.getpid():032x}"
PYTEST = (
    "-qx --color=no --noconftest -c /dev/null --rootdir . -p no:cacheprovider --import-mode=importlib".split()
)


@pytest.mark.skipif(UNIFIED, reason="this machine's own cgroups are v2")
@pytest.mark.timeout(300)
def test_in_a_guest_with_v2_all_of_this_holds() -> None:
    guest = ROOT / "script" / "guest"
    if subprocess.run([guest, "ready"]).returncode:
        pytest.fail("no guest: run script/setup, or script/guest build")
    alone = ["/usr/bin/env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", ".venv/bin/python", "-B", "-m", "pytest"]
    here = str(Path(__file__).relative_to(ROOT))
    command = [guest, "run", *alone, *PYTEST, "-k", "not guest", here]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


# -- what runs there -------------------------------------------------------------------------------------
@pytest.fixture
def layout() -> Iterator[cgroup.Layout]:
    found = cgroup.detect()
    found.make(NAME, Resources(cpu_milli=500, memory_bytes=24 * MIB))
    leaf().mkdir()
    yield found
    (group() / "cgroup.kill").write_text("1")
    asyncio.run(found.remove(NAME))
    asyncio.run(found.remove(NAME))
    assert not group().exists()


def group() -> Path:
    return Path("/sys/fs/cgroup") / NAME


def leaf() -> Path:
    """A container's own group, as the engine makes it."""
    return group() / "container"


def in_lease(work: Callable[[], object]) -> int:
    """The pid of a process that has joined the lease, does *work*, and tells its end by its exit code."""
    joined, join = os.pipe()
    if pid := os.fork():
        os.close(join)
        os.read(joined, 1)
        os.close(joined)
        return pid
    try:
        (leaf() / "cgroup.procs").write_text("0")
        os.close(join)
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def burn(seconds: float = 0.5) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def hold(size: int) -> None:
    held = bytearray(size)
    for page in range(0, size, 4096):
        held[page] = 1
    time.sleep(60)


@inside
def test_the_kernel_takes_the_limits(layout: cgroup.Layout) -> None:
    assert layout.version == 2
    names = ("cpu.max", "cpu.weight", "memory.max", "memory.low", "pids.max")
    said = {name: (group() / name).read_text().strip() for name in names}
    assert said == {
        "cpu.weight": "20",
        "memory.low": str(24 * MIB),
        "cpu.max": "50000 100000",
        "memory.max": str(24 * MIB),
        "pids.max": str(cgroup.PIDS_MAX),
    }
    assert {"cpu", "memory", "pids"} <= set((group() / "cgroup.subtree_control").read_text().split())
    layout.make(NAME, Resources(cpu_milli=1000, memory_bytes=16 * MIB))
    assert (group() / "memory.max").read_text().strip() == str(16 * MIB)


@inside
def test_work_is_counted_exactly_and_outlives_its_container(layout: cgroup.Layout) -> None:
    gauge = layout.gauge(NAME)
    before, began = gauge.read(), time.monotonic_ns()
    assert before.containers == 1
    _, code, told = os.wait4(in_lease(burn), 0)
    assert code == 0
    leaf().rmdir()
    after = gauge.read()
    gauge.close()
    assert after.containers == 0
    used = after.cpu_ns - before.cpu_ns
    # the process tells what it did before it joined, too; the kernel's two counts end at different moments
    assert 500 * MILLISECOND <= used <= (told.ru_utime + told.ru_stime) * SECOND + 20 * MILLISECOND
    assert used <= (time.monotonic_ns() - began) // 2 + 100 * MILLISECOND  # half a core


@inside
def test_memory_is_the_working_set_and_ends_at_the_leases_limit(layout: cgroup.Layout) -> None:
    gauge = layout.gauge(NAME)
    pid = in_lease(lambda: hold(12 * MIB))
    for _ in range(400):
        if (held := gauge.read().working_set) >= 12 * MIB:
            break
        time.sleep(0.05)
    assert 12 * MIB <= held < 20 * MIB
    os.kill(pid, signal.SIGKILL)
    assert code_of(pid) == -signal.SIGKILL
    assert gauge.read().working_set < 5 * MIB
    assert code_of(in_lease(lambda: hold(32 * MIB))) == -signal.SIGKILL
    gauge.close()
    assert "oom_kill 1" in (group() / "memory.events").read_text()


@inside
def test_a_frozen_lease_uses_nothing(layout: cgroup.Layout) -> None:
    gauge, pid = layout.gauge(NAME), in_lease(lambda: burn(60))
    (leaf() / "cgroup.freeze").write_text("1")
    while "frozen 1" not in (leaf() / "cgroup.events").read_text():
        time.sleep(0.01)
    frozen = gauge.read().cpu_ns
    time.sleep(0.5)
    assert gauge.read().cpu_ns == frozen
    (leaf() / "cgroup.freeze").write_text("0")
    time.sleep(0.5)
    assert gauge.read().cpu_ns > frozen
    os.kill(pid, signal.SIGKILL)
    assert code_of(pid) == -signal.SIGKILL
    gauge.close()


@inside
def test_a_group_that_is_gone_is_an_error_and_not_a_number(layout: cgroup.Layout) -> None:
    gauge = layout.gauge(NAME)
    asyncio.run(layout.remove(NAME))
    with pytest.raises(OSError, match="No such device"):
        gauge.read()
    gauge.close()
    layout.make(NAME, Resources())
    leaf().mkdir()
