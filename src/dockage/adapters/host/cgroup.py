"""One parent cgroup per lease: its limits bind there, and its totals outlive every container in it.

Its counterpart is ``HostConfig.CgroupParent`` in the Engine API filter. Never read a container's own group: it
is gone 10 ms after the exit, before any event comes. Files and formulas: kernel Documentation/admin-guide,
cgroup-v1/{cpuacct,memory,pids}.rst and cgroup-v2.rst; working set as in cAdvisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.resources import Resources

PERIOD_US = 100_000
PIDS_MAX = 4096
"""Processes and threads of a whole lease; a fork bomb ends there."""
REMOVE_PATIENCE = 5.0
"""Seconds until killed processes have left a group."""


class Sample(NamedTuple):
    cpu_ns: int
    working_set: int
    """usage - inactive_file, bytes."""
    containers: int


class Gauge:
    """The kept-open files of one group. ``pread`` on them costs 2-12 us, opening them anew five times that."""

    def __init__(self, cpu: Path, usage: Path, stat: Path, inactive: bytes, cpu_key: bytes) -> None:
        self._inactive, self._cpu_key = inactive, cpu_key
        self._fds: list[int] = []
        try:
            for path in (cpu, usage, stat, cpu.parent):
                self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def read(self) -> Sample:
        """Raises OSError (ENODEV) once the group has been removed."""
        cpu, usage, stat, folder = self._fds
        held = int(os.pread(usage, 64, 0)) - _field(os.pread(stat, 16384, 0), self._inactive)
        # a cgroup folder has two links and one for each child: a running container each
        return Sample(
            self._cpu_ns(os.pread(cpu, 4096, 0)), max(0, held), max(0, os.fstat(folder).st_nlink - 2)
        )

    def _cpu_ns(self, text: bytes) -> int:
        return _field(text, self._cpu_key) * 1000 if self._cpu_key else int(text)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _field(text: bytes, key: bytes) -> int:
    """``key value`` in a flat-keyed file, where *key* starts a line."""
    start = text.find(b"\n" + key + b" ")
    at = 0 if text.startswith(key + b" ") else start + 1
    if at == 0 and start == -1 and not text.startswith(key + b" "):
        raise Unavailable("cgroup.strange", f"the kernel's file has no {key.decode()} line")
    return int(text[at + len(key) + 1 :].split(b"\n", 1)[0])


class Layout(Protocol):
    """Where a group lies in this kernel's hierarchies, and how its limits are written."""

    version: int

    def make(self, name: str, limits: Resources) -> None: ...

    def thaw(self, name: str) -> None:
        """Whatever is frozen in the group goes on, also what the engine does not know to be: an exec that began while
        its container was paused. No signal ends a frozen process on v1."""

    async def remove(self, name: str) -> None: ...

    def gauge(self, name: str) -> Gauge:
        """Raises OSError if there is no such group."""


def detect(root: Path = Path("/sys/fs/cgroup")) -> Layout:
    """v2 if it is mounted there; a hybrid system counts as v1, as it does for the engine."""
    if (root / "cgroup.controllers").exists():
        return V2(root)
    if (root / "cpuacct").is_dir() and (root / "memory").is_dir():
        return V1(root)
    raise Unavailable(
        "cgroup.missing", f"no cgroup file system at {root}; mount it, or run on the machine itself"
    )


class V1:
    version = 1
    LIMITED = ("cpu", "cpuacct", "memory", "pids")

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self, name: str, limits: Resources) -> None:
        for controller in self.LIMITED:
            _make_folder(self._root / controller / name)
        _write(self._root / "cpu" / name / "cpu.cfs_period_us", PERIOD_US)
        _write(self._root / "cpu" / name / "cpu.cfs_quota_us", _quota_us(limits) or -1)
        _write(self._root / "cpu" / name / "cpu.shares", _shares(limits))
        self._limit_memory(self._root / "memory" / name, limits.memory_bytes or -1)
        _write(
            self._root / "memory" / name / "memory.soft_limit_in_bytes", limits.reserved.memory_bytes or -1
        )
        _write(self._root / "pids" / name / "pids.max", PIDS_MAX)

    def _limit_memory(self, group: Path, limit: int) -> None:
        """memory <= memory+swap holds at every moment, so growing starts with the other one."""
        both = [group / "memory.limit_in_bytes", group / "memory.memsw.limit_in_bytes"]
        files = [path for path in both if path.exists()]
        now = int(files[0].read_text())
        for path in reversed(files) if limit == -1 or limit > now else files:
            _write(path, limit)

    def thaw(self, name: str) -> None:
        _thaw(self._root / "freezer" / name, "freezer.state", "THAWED")

    async def remove(self, name: str) -> None:
        """In every hierarchy: the engine's runtime made the parent there too, and never removes it."""
        await _remove_all(folder / name for folder in sorted(self._root.iterdir()) if not folder.is_symlink())

    def gauge(self, name: str) -> Gauge:
        memory = self._root / "memory" / name
        return Gauge(
            self._root / "cpuacct" / name / "cpuacct.usage",
            memory / "memory.usage_in_bytes",
            memory / "memory.stat",
            b"total_inactive_file",
            b"",
        )


class V2:
    version = 2
    CONTROLLERS = ("cpu", "memory", "pids", "io")

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self, name: str, limits: Resources) -> None:
        group = self._root
        for part in Path(name).parts:
            self._delegate(group)
            group = group / part
            _make_folder(group)
        self._delegate(group)
        self.limit(group, limits)

    def limit(self, group: Path, limits: Resources) -> None:
        _write(group / "cpu.max", f"{_quota_us(limits) or 'max'} {PERIOD_US}")
        _write(group / "cpu.weight", weight(limits))
        _write(group / "memory.max", limits.memory_bytes or "max")
        _write(group / "memory.low", limits.reserved.memory_bytes)
        if (group / "memory.swap.max").exists():
            _write(group / "memory.swap.max", 0)
        _write(group / "pids.max", PIDS_MAX)

    def _delegate(self, group: Path) -> None:
        """One at a time: io may be absent, and one bad word would refuse the whole line."""
        for controller in self.CONTROLLERS:
            with contextlib.suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")

    def thaw(self, name: str) -> None:
        _thaw(self._root / name, "cgroup.freeze", "0")

    async def remove(self, name: str) -> None:
        await _remove_all([self._root / name])

    def gauge(self, name: str) -> Gauge:
        group = self._root / name
        return Gauge(
            group / "cpu.stat",
            group / "memory.current",
            group / "memory.stat",
            b"inactive_file",
            b"usage_usec",
        )


def _quota_us(limits: Resources) -> int:
    """Never under the kernel's minimum of 1 ms; 0 means no limit."""
    return max(1000, limits.cpu_milli * PERIOD_US // 1000) if limits.cpu_milli else 0


def weight(limits: Resources) -> int:
    """The same on v2, 1 to 10,000: as the OCI runtime converts it."""
    return 1 + (_shares(limits) - 2) * 9999 // 262142


def _shares(limits: Resources) -> int:
    """Where all want more than there is, each lease gets what it has reserved. 1024 for a core, as the engine's."""
    return min(262144, max(2, limits.reserved.cpu_milli * 1024 // 1000)) if limits.cpu_milli else 1024


def _make_folder(path: Path) -> None:
    for _ in range(3):  # another provider's teardown may take the empty parent away in between
        with contextlib.suppress(FileNotFoundError):
            path.mkdir(parents=True, exist_ok=True)
            return
    raise Unavailable("cgroup.busy", f"{path} cannot be made; trying again may work")


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(str(value))
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EINVAL):
            why = f"{path.name} cannot become {value}: the lease's containers hold or reserve more than that"
            raise UsageError("lease.shrink", why) from error
        raise Unavailable("cgroup.refused", f"{path} cannot be written ({error}); run as root") from error


def _thaw(group: Path, file: str, value: str) -> None:
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):  # it is going away under us
            Path(folder, file).write_text(value)


async def _remove_all(groups: Iterable[Path]) -> None:
    async with asyncio.timeout(REMOVE_PATIENCE * 4):
        for group in groups:
            await _remove(group)


async def _remove(group: Path) -> None:
    """Children first (a crash may have left some), then the group, then ``dockage`` itself if it is empty."""
    waited = 0.0
    while (error := _remove_tree(group)) is not None:
        if waited >= REMOVE_PATIENCE:
            raise Unavailable(
                "cgroup.busy", f"{group} is still in use ({error}); trying again may work"
            ) from error
        await asyncio.sleep(0.05)
        waited += 0.05
    with contextlib.suppress(OSError):
        group.parent.rmdir()


def _remove_tree(group: Path) -> OSError | None:
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except FileNotFoundError:
        return _remove_tree(group)  # the engine removed one at the same time
    except OSError as error:
        return error
    return None
