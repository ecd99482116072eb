"""What a lease's containers write lies on a disk of the lease's own: its end is the tenant's ENOSPC, not our full disk.

overlay2 mounts a container's ``diff`` and ``work`` folders; between creation and first start both are moved onto the
lease's ``elastic`` disk and links are left behind. The engine follows them at each start, also after its own restart,
and its removal takes only the links: what nobody points at any more is swept at the next reading.
Where the engine stores layers otherwise, there is no hard limit (``disk.py`` then looks, and the provider's mind
stops what grows beyond).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.wire.engine import EngineClient

from . import elastic, loopdisk
from .command import Run, must
from .ledger import Ledger
from .loopdisk import LoopDisk

MOVED = ("diff", "work")
BOX = re.compile("[0-9a-f]{64}")
"""One folder a container on the lease's disk, named by its id."""
BARE_MAX = 32
"""Folders that are made one by one instead of by ``cp``."""
LAYER = "layer"
"""In it: a link to the engine's own folder of that layer, to see that it is gone."""


class Enclosure:
    def __init__(self, ledger: Ledger, client: EngineClient, run: Run) -> None:
        self._ledger, self._client, self._run = ledger, client, run
        self._sweeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dockage-sweep")
        self._leaving: set[Path] = set()
        self.works = False
        """Whether this engine's layers can be moved; ``look`` decides it from what the engine says of itself."""

    def look(self, info: dict[str, Any]) -> None:
        layers = Path(info.get("DockerRootDir") or "/nowhere") / "overlay2"
        self.works = info.get("Driver") == "overlay2" and os.access(layers, os.W_OK)

    async def prepare(self, lease: LeaseId) -> None:
        """Also after a reboot, and with new limits."""
        if self.works:
            await elastic.make(self._run, self._disk(lease), self._ledger.limits(lease).disk_bytes)

    async def enclose(self, lease: LeaseId, container: str) -> None:
        """Before its first start. Doing it again, or where a crash interrupted it, is fine."""
        if not self.works:
            return
        found = await self._client.must("GET", f"/containers/{container}/json")
        upper = Path((found["GraphDriver"].get("Data") or {}).get("UpperDir") or "/nowhere/diff")
        if not upper.parent.is_dir():
            raise Unavailable("host.layers", f"the engine's folder {upper.parent} is not to be seen here")
        await self._move(upper.parent, self._disk(lease).mount / found["Id"])

    async def _move(self, layer: Path, box: Path) -> None:
        if not loopdisk.is_mounted(box.parent):
            raise Unavailable("lease.unprepared", f"{box.parent} is not mounted; prepare the lease again")
        _open_box(layer, box)
        if left := _still_inside(layer):
            await self._copy(left, box)
        _link(layer, box)

    async def _copy(self, left: list[Path], box: Path) -> None:
        """With every mark that the overlay makes on files. Before a first start there are hardly ever any, and folders
        are made faster than a process is."""
        found = [entry for place in left for entry in os.walk(place)]
        links = sum(len(folders) for _, folders, _ in found) > len(found) - len(left)
        if links or any(files for _, _, files in found) or len(found) > BARE_MAX:
            await must(self._run, ["cp", "-a", "--", *map(str, left), f"{box}/"])
            return
        for folder, _, _ in found:
            _make_alike(Path(folder), box / Path(folder).relative_to(left[0].parent))

    async def written(self, lease: LeaseId, container: str) -> int | None:
        """What the engine would call ``SizeRw``; it sees only the links."""
        layer = self._disk(lease).mount / container / MOVED[0]
        return await asyncio.to_thread(_size, layer) if self.works and layer.is_dir() else None

    def held(self, lease: LeaseId) -> int:
        """Bytes in blocks, of what containers wrote and of what of theirs is still open."""
        mount = self._disk(lease).mount
        if not self.works or not loopdisk.is_mounted(mount):
            return 0
        for name in os.listdir(mount):
            if BOX.fullmatch(name) and (box := mount / name) not in self._leaving and _is_orphan(box):
                self._leaving.add(box)
                self._sweeper.submit(self._sweep, box)
        return elastic.held(mount)

    def _sweep(self, box: Path) -> None:
        shutil.rmtree(box, ignore_errors=True)
        self._leaving.discard(box)

    async def remove(self, lease: LeaseId) -> None:
        disk = self._disk(lease)
        if disk.mount.exists():
            await loopdisk.detach(self._run, disk.mount)
        disk.image.unlink(missing_ok=True)

    def close(self) -> None:
        self._sweeper.shutdown(cancel_futures=True)

    def _disk(self, lease: LeaseId) -> LoopDisk:
        folder = self._ledger.folder(lease)
        return LoopDisk(folder / "writable.img", folder / "writable")


def _size(layer: Path) -> int:
    """As the engine counts: every file by its length, a hard-linked one once."""
    sizes: dict[int, int] = {}
    for folder, _, names in os.walk(layer):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(Path(folder, name))
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def _open_box(layer: Path, box: Path) -> None:
    box.mkdir(exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        (box / LAYER).symlink_to(layer)


def _make_alike(folder: Path, new: Path) -> None:
    new.mkdir(exist_ok=True)
    owner = folder.stat()
    os.chown(new, owner.st_uid, owner.st_gid)
    shutil.copystat(folder, new)


def _still_inside(layer: Path) -> list[Path]:
    places = [layer / name for name in MOVED]
    return [place for place in places if place.is_dir() and not place.is_symlink()]


def _link(layer: Path, box: Path) -> None:
    for place in _still_inside(layer):
        place.rename(place.with_suffix(".own"))  # goes with the layer
    for name in MOVED:
        if not (layer / name).is_symlink():
            (layer / name).symlink_to(box / name)


def _is_orphan(box: Path) -> bool:
    """The engine has removed the layer. Where its whole store is not to be seen, nothing is said."""
    try:
        layer = Path(os.readlink(box / LAYER))
    except FileNotFoundError:
        return True  # half swept
    return not layer.exists() and layer.parent.is_dir()
