"""cgroup v1 and v2 on trees of plain files: what is written where, and what is read out of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockage.adapters.host import cgroup
from dockage.adapters.host.command import Outcome
from dockage.adapters.host.slices import Slices, unit_text
from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.resources import Resources
from dockage.domain.units import MIB

LIMITS = Resources(cpu_milli=1500, memory_bytes=64 * MIB, disk_bytes=0)
NAME = "dockage/0123"
STAT_V2 = "anon 8192\nfile 99\ninactive_anon 5\nactive_file 7\ninactive_file 4096\n"
CPU_V2 = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n"


def tree(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def text(*parts: object) -> str:
    return Path(*map(str, parts)).read_text()


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids")
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for controller in ("cpu", "cpuacct", "memory", "pids", "freezer"):
        (tmp_path / controller).mkdir()
    group = tmp_path / "memory" / NAME
    group.mkdir(parents=True)
    for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        (group / file).write_text(str(1 << 62))
    return tmp_path


def test_the_version_is_what_is_mounted(v2: Path) -> None:
    assert cgroup.detect(v2).version == 2
    (v2 / "cgroup.controllers").unlink()
    with pytest.raises(Unavailable, match="no cgroup"):
        cgroup.detect(v2)
    for folder in ("cpuacct", "memory"):
        (v2 / folder).mkdir()
    assert cgroup.detect(v2).version == 1


def test_v2_limits_and_reading(v2: Path) -> None:
    layout = cgroup.detect(v2)
    layout.make(NAME, LIMITS)
    assert text(v2, NAME, "cpu.max") == "150000 100000"
    assert text(v2, NAME, "memory.max") == str(64 * MIB)
    assert text(v2, NAME, "pids.max") == str(cgroup.PIDS_MAX)
    assert (v2 / "cgroup.subtree_control").read_text() == "+io"  # the last of the single words
    tree(v2 / NAME, **{"cpu.stat": CPU_V2, "memory.current": "1048576\n", "memory.stat": STAT_V2})
    gauge = layout.gauge(NAME)
    assert gauge.read()[:2] == (1_234_567_000, 1_048_576 - 4096)
    tree(v2 / NAME, **{"memory.current": "100\n"})
    assert gauge.read().working_set == 0  # two files are not read at one moment
    gauge.close()
    gauge.close()


def test_v2_without_limits_says_max(v2: Path) -> None:
    cgroup.detect(v2).make(NAME, Resources())
    assert (text(v2, NAME, "cpu.max"), text(v2, NAME, "memory.max")) == ("max 100000", "max")


def test_v1_limits_and_reading(v1: Path) -> None:
    layout = cgroup.detect(v1)
    layout.make(NAME, LIMITS)
    assert text(v1, "cpu", NAME, "cpu.cfs_quota_us") == "150000"
    assert text(v1, "memory", NAME, "memory.memsw.limit_in_bytes") == str(64 * MIB)
    files = {
        f"cpuacct__{NAME}__cpuacct.usage": "987654321\n",
        f"memory__{NAME}__memory.usage_in_bytes": "5000\n",
        f"memory__{NAME}__memory.stat": "inactive_file 1\ntotal_cache 9\ntotal_inactive_file 2000\n",
    }
    tree(v1, **files)
    gauge = layout.gauge(NAME)
    assert gauge.read()[:2] == (987_654_321, 3000)
    gauge.close()


def test_a_lease_weighs_what_it_has_reserved(v1: Path, tmp_path: Path) -> None:
    """So that it gets that where all want more than there is, and its memory is the last to be taken back."""
    soft = LIMITS.reserving(500, 16 * MIB)
    cgroup.detect(v1).make(NAME, soft)
    assert text(v1, "cpu", NAME, "cpu.shares") == "512"
    assert text(v1, "memory", NAME, "memory.soft_limit_in_bytes") == str(16 * MIB)
    second = tmp_path / "second"
    second.mkdir()
    (second / "cgroup.controllers").write_text("")
    cgroup.detect(second).make(NAME, soft)
    assert text(second, NAME, "cpu.weight") == "20"
    assert text(second, NAME, "memory.low") == str(16 * MIB)
    assert {"CPUQuota=150.0%", "CPUWeight=20", f"MemoryLow={16 * MIB}"} < set(unit_text(soft).splitlines())


@pytest.mark.parametrize(
    ("cpu", "shares"),
    [(Resources(), 1024), (Resources(1000), 1024), (Resources(1), 2), (Resources(1_000_000), 262144)],
)
def test_a_weight_is_always_one_that_the_kernel_takes(v1: Path, cpu: Resources, shares: int) -> None:
    cgroup.detect(v1).make(NAME, cpu)
    assert text(v1, "cpu", NAME, "cpu.shares") == str(shares)
    assert 1 <= cgroup.weight(cpu) <= 10_000


def test_a_tiny_share_is_the_kernels_minimum(v2: Path) -> None:
    cgroup.detect(v2).make(NAME, Resources(cpu_milli=1))
    assert text(v2, NAME, "cpu.max") == "1000 100000"


def test_a_kernel_that_refuses_a_smaller_limit_is_explained(
    v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(path: Path, value: str) -> int:
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(Path, "write_text", busy)
    with pytest.raises(UsageError) as error:
        cgroup.detect(v1).make(NAME, LIMITS)
    assert error.value.code == "lease.shrink"


def test_a_missing_line_is_not_zero(v2: Path) -> None:
    tree(v2 / NAME, **{"cpu.stat": "user_usec 1\n", "memory.current": "1", "memory.stat": STAT_V2})
    gauge = cgroup.detect(v2).gauge(NAME)
    with pytest.raises(Unavailable, match="usage_usec"):
        gauge.read()
    gauge.close()


def test_a_gauge_of_no_group_leaves_no_descriptor(v2: Path) -> None:
    tree(v2 / NAME, **{"cpu.stat": CPU_V2})
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        cgroup.detect(v2).gauge(NAME)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_removal_takes_children_and_the_empty_parent_and_may_be_repeated(v1: Path) -> None:
    for controller in ("cpu", "freezer"):
        (v1 / controller / NAME / "container" / "nested").mkdir(parents=True)
    (v1 / "cpu" / "dockage" / "another").mkdir()
    for file in (v1 / "memory" / NAME).iterdir():
        file.unlink()
    layout = cgroup.detect(v1)
    await layout.remove(NAME)
    await layout.remove(NAME)
    assert os.listdir(v1 / "cpu" / "dockage") == ["another"]
    assert os.listdir(v1 / "freezer") == []


@pytest.mark.parametrize(
    ("layout", "folder", "file", "thawed"),
    [(cgroup.V1, f"freezer/{NAME}", "freezer.state", "THAWED"), (cgroup.V2, NAME, "cgroup.freeze", "0")],
)
def test_all_of_a_lease_is_thawed(
    tmp_path: Path, layout: type[cgroup.Layout], folder: str, file: str, thawed: str
) -> None:
    groups = [tmp_path / folder, tmp_path / folder / "container"]
    groups[1].mkdir(parents=True)
    for group in groups:
        (group / file).write_text("frozen")
    layout(tmp_path).thaw(NAME)  # type: ignore[call-arg]
    layout(tmp_path).thaw("dockage/another")  # type: ignore[call-arg]
    assert [text(group, file) for group in groups] == [thawed, thawed]


async def test_a_slice_is_a_unit_file_that_keeps_its_counters(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    async def record(argv: object, text: str = "") -> Outcome:
        calls.append(list(argv))  # type: ignore[call-overload]
        return Outcome(0, "", "")

    slices = Slices(record, tmp_path)
    unit = "dockage-0123.slice"
    await slices.make(unit, LIMITS)
    assert "CPUQuota=150.0%" in text(tmp_path, unit)
    assert f"MemoryMax={64 * MIB}" in text(tmp_path, unit)
    await slices.make(unit, LIMITS)
    reload, start = ["systemctl", "daemon-reload"], ["systemctl", "start", unit]
    assert calls == [reload, start, start]
    await slices.remove(unit)
    await slices.remove(unit)
    assert calls[3:] == [["systemctl", "stop", unit], reload]
    assert os.listdir(tmp_path) == []
    assert "CPUQuota" not in unit_text(Resources())
