"""The same parent groups when systemd owns the tree (the usual thing on cgroup v2): one slice per lease.

The engine's systemd driver takes only a slice as CgroupParent. A unit file under /run keeps it, with its
counters, while it is empty; transient ones are collected. Source: systemd.slice(5), systemd.resource-control(5).
"""

from __future__ import annotations

from pathlib import Path

from dockage.domain.resources import Resources

from .cgroup import PIDS_MAX, weight
from .command import Run, must

UNITS = Path("/run/systemd/system")


def unit_text(limits: Resources) -> str:
    lines = ["[Unit]", "Description=dockage lease", "[Slice]", "CPUAccounting=yes", "MemoryAccounting=yes"]
    if limits.cpu_milli:
        lines += [f"CPUQuota={limits.cpu_milli / 10:.1f}%", f"CPUWeight={weight(limits)}"]
    if limits.memory_bytes:
        lines += [f"MemoryMax={limits.memory_bytes}", "MemorySwapMax=0", f"MemoryLimit={limits.memory_bytes}"]
        lines.append(f"MemoryLow={limits.reserved.memory_bytes}")
    return "\n".join([*lines, f"TasksMax={PIDS_MAX}", ""])


class Slices:
    """Makes and removes the unit; reading the group stays the layout's work."""

    def __init__(self, run: Run, units: Path = UNITS) -> None:
        self._run, self._units = run, units

    @staticmethod
    def group(unit: str) -> str:
        return f"dockage.slice/{unit}"

    async def make(self, unit: str, limits: Resources) -> None:
        path, text = self._units / unit, unit_text(limits)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            await must(self._run, ["systemctl", "daemon-reload"])
        await must(self._run, ["systemctl", "start", unit])

    async def remove(self, unit: str) -> None:
        path = self._units / unit
        if path.exists():
            await must(self._run, ["systemctl", "stop", unit])
            path.unlink()
            await must(self._run, ["systemctl", "daemon-reload"])
