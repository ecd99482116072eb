"""What this machine is: asked of the engine once, told in the offer, printed by ``dockage provide``."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.domain.resources import Resources
from dockage.ports.hosting import HostFacts
from dockage.wire.engine import EngineClient

ENGINE_OLDEST = (20, 10)
LAYERED = ("overlay2", "fuse-overlayfs")
"""Storage drivers that show a container's writable layer as a folder."""


async def ask(client: EngineClient, home: Path, warnings: Sequence[str]) -> tuple[HostFacts, dict[str, Any]]:
    """And all that the engine said. Raises Unavailable("engine.unreachable" or "engine.old")."""
    info: dict[str, Any] = await client.must("GET", "/info")
    version = str(info["ServerVersion"])
    _check_version(version)
    folders = [home, Path(info.get("DockerRootDir") or "/")]
    facts = HostFacts(
        engine_version=version,
        cgroup_version=int(info.get("CgroupVersion") or 1),
        cgroup_driver=str(info.get("CgroupDriver") or "cgroupfs"),
        architecture=str(info.get("Architecture") or platform.machine()),
        capacity=Resources(int(info["NCPU"]) * 1000, int(info["MemTotal"]), min(map(_free, folders))),
        warnings=(*warnings, *_complaints(info)),
    )
    return facts, info


def _check_version(version: str) -> None:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    if major.isdigit() and minor.isdigit() and (int(major), int(minor)) < ENGINE_OLDEST:
        raise Unavailable("engine.old", f"Docker Engine {version} is too old; install 20.10 or newer")


def _free(folder: Path) -> int:
    try:
        state = os.statvfs(folder)
    except OSError:
        return 1 << 60  # the engine's folder as it sees it is not always there for us; home decides then
    return state.f_bavail * state.f_frsize


def _complaints(info: dict[str, Any]) -> list[str]:
    complaints = []
    if (driver := info.get("Driver")) != "overlay2":
        billed = "have no hard limit" if driver in LAYERED else "are not limited and not billed"
        how = f"its containers' writable layers {billed}; use overlay2"
        complaints.append(f"the engine stores images with {driver}: {how}")
    if os.geteuid() != 0:
        complaints.append("not running as root: cgroups, firewall and volumes cannot be made")
    return complaints
