"""A container's own files, on both versions of cgroups, as plain files; and what clients make of a line of stats."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from dockage.adapters.host import inside
from dockage.domain.resources import Resources
from dockage.domain.units import MIB, SECOND
from dockage.protocol.docker.stats import ContainerUse, Interface, document

GROUP = "dockage/aa/" + "c" * 64
DEV = """Inter-|   Receive  | Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
 lo:    999  9 0 0 0 0 0 0   999  9 0 0 0 0 0 0
 eth0: 1000 10 1 2 0 0 0 0  2000 20 3 4 0 0 0 0
"""
V1 = {
    "cpuacct/{}/cpuacct.usage": "3000000000\n",
    "cpuacct/{}/cpuacct.stat": "user 200\nsystem 100\n",
    "cpuacct/{}/cgroup.procs": "71\n72\n",
    "cpu/{}/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 700\n",
    "memory/{}/memory.usage_in_bytes": str(30 * MIB),
    "memory/{}/memory.max_usage_in_bytes": str(40 * MIB),
    "memory/{}/memory.limit_in_bytes": "9223372036854771712",
    "memory/{}/memory.failcnt": "0",
    "memory/{}/memory.stat": f"cache 5\ntotal_inactive_file {10 * MIB}\n",
    "pids/{}/pids.current": "2",
    "pids/{}/pids.max": "max",
    "blkio/{}/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4\n8:0 Write 6\n8:16 Read 1\nTotal 11\n",
}
V2 = {
    "{}/cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 5\nnr_throttled 2\n",
    "{}/memory.current": str(30 * MIB),
    "{}/memory.max": str(48 * MIB),
    "{}/memory.stat": f"file 5\ninactive_file {10 * MIB}\n",
    "{}/pids.current": "2",
    "{}/pids.max": "1024",
    "{}/io.stat": "8:0 rbytes=4 wbytes=6 rios=1\n8:16 rbytes=1 wbytes=0\n",
    "{}/cgroup.procs": "71\n72\n",
}
LIMITS = Resources(cpu_milli=1500, memory_bytes=64 * MIB)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name.format(GROUP)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree(tmp_path, {"proc/71/net/dev": DEV})
    monkeypatch.setattr(inside.networks, "__defaults__", (tmp_path / "proc",))
    return tmp_path


@pytest.mark.parametrize(("version", "files", "own_limit"), [(1, V1, 0), (2, V2, 48 * MIB)])
def test_what_one_container_uses(proc: Path, version: int, files: dict[str, str], own_limit: int) -> None:
    use = inside.read(tree(proc / "cgroup", files), version, GROUP)
    assert (use.cpu_ns, use.user_ns, use.kernel_ns) == (3 * SECOND, 2 * SECOND, 1 * SECOND)
    assert (use.periods, use.throttled_periods) == (5, 2)
    assert (use.memory_bytes, use.memory_limit) == (30 * MIB, own_limit)
    assert (use.pids, use.read_bytes, use.written_bytes) == (2, 5, 6)
    assert use.networks == {"eth0": Interface(1000, 10, 1, 2, 2000, 20, 3, 4)}


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_that_does_not_run_has_no_files(tmp_path: Path, version: int) -> None:
    with pytest.raises(FileNotFoundError):
        inside.read(tmp_path, version, GROUP)


def test_a_process_that_ends_meanwhile_lends_nobody_its_network(proc: Path) -> None:
    """Its number may be somebody else's by then."""
    procs = proc / "procs"
    procs.write_text("4711\n")
    assert inside.networks(procs, proc / "proc") == {}

    class Changing:
        def __init__(self) -> None:
            self.answers = ["71\n", "72\n"]

        def read_text(self) -> str:
            return self.answers.pop(0)

    assert inside.networks(cast(Path, Changing()), proc / "proc") == {}


def cpu_percent(line: dict[str, Any]) -> float:
    """As the docker CLI reckons (cli/command/container/stats_helpers.go)."""
    now, before = line["cpu_stats"], line["precpu_stats"]
    own = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    whole = now["system_cpu_usage"] - before["system_cpu_usage"]
    return float(own / whole * now["online_cpus"] * 100)


def use(seconds: int, cpu_ns: int, **more: Any) -> ContainerUse:
    return ContainerUse(
        f"2026-01-01T00:00:0{seconds}.000000000Z", 1000 * SECOND + seconds * SECOND, cpu_ns, **more
    )


@pytest.mark.parametrize("milli", [100, 1000, 1500, 16000])
def test_a_hundred_percent_is_one_core_however_large_the_lease_is(milli: int) -> None:
    line = document("ab", "/web", Resources(cpu_milli=milli), use(2, 4 * SECOND), use(1, 3 * SECOND))
    assert cpu_percent(line) == pytest.approx(100)


def test_memory_is_shown_against_the_tighter_of_both_limits() -> None:
    shown = [
        document("ab", "/web", LIMITS, use(1, 0, memory_bytes=9, memory_limit=own))["memory_stats"]["limit"]
        for own in (0, 32 * MIB, 128 * MIB)
    ]
    assert shown == [64 * MIB, 32 * MIB, 64 * MIB]


def test_a_line_of_a_stopped_container_claims_nothing() -> None:
    line = document("ab", "/web", LIMITS, None)
    assert line["read"] == line["preread"] == "0001-01-01T00:00:00Z"
    assert (line["memory_stats"], line["pids_stats"]) == ({}, {})
    assert "networks" not in line
    assert "system_cpu_usage" not in line["cpu_stats"]
