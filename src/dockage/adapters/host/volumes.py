"""Named volumes: a ``loopdisk`` each, whose sizes together stay inside the lease's disk."""

from __future__ import annotations

import re
from pathlib import Path

from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import MIB

from . import loopdisk
from .command import Run
from .ledger import Ledger
from .loopdisk import LoopDisk

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
SIZE_MIN = 8 * MIB
"""Below this ext4's own tables take a tenth."""


class Volumes:
    def __init__(self, ledger: Ledger, run: Run) -> None:
        self._ledger, self._run = ledger, run
        self._mounted: dict[LeaseId, dict[str, Path]] = {}

    async def create(self, lease: LeaseId, name: str, size: int) -> Path:
        image, mount = self._disk(lease, name)
        if not image.exists():
            self._check_room(lease, size)
            await loopdisk.make(self._run, image, size)
        await self._mount(lease, name)
        return mount

    def _check_room(self, lease: LeaseId, size: int) -> None:
        """Sizes are promises, so their sum stays inside the lease's disk."""
        if size < SIZE_MIN:
            raise UsageError("volume.small", f"a volume has at least {SIZE_MIN} bytes, not {size}")
        limit = self._ledger.limits(lease).disk_bytes
        promised = sum(path.stat().st_size for path in self._images(lease))
        if promised + size > limit:
            why = f"the lease has {limit} bytes of disk and {promised} are promised to volumes; ask for a larger disk"
            raise UsageError("volume.space", f"no room for a volume of {size} bytes: {why}")

    async def mount_all(self, lease: LeaseId) -> None:
        self._mounted.setdefault(lease, {})
        for image in self._images(lease):
            await self._mount(lease, image.stem)

    async def _mount(self, lease: LeaseId, name: str) -> None:
        disk = self._disk(lease, name)
        await loopdisk.attach(self._run, disk)
        self._mounted.setdefault(lease, {})[name] = disk.mount

    async def remove(self, lease: LeaseId, name: str) -> None:
        image, mount = self._disk(lease, name)
        await loopdisk.detach(self._run, mount)
        self._mounted.get(lease, {}).pop(name, None)
        image.unlink(missing_ok=True)

    async def remove_all(self, lease: LeaseId) -> None:
        mounts = self._ledger.folder(lease) / "mnt"
        for mount in sorted(mounts.iterdir()) if mounts.is_dir() else []:
            await loopdisk.detach(self._run, mount)
        for image in self._images(lease):
            image.unlink()
        self._mounted.pop(lease, None)

    def mounts(self, lease: LeaseId) -> dict[str, str]:
        return {name: str(path) for name, path in self._mounted.get(lease, {}).items()}

    def sizes(self, lease: LeaseId) -> dict[str, int]:
        """Bytes in blocks that are taken now, of each."""
        return {name: loopdisk.held(path) for name, path in self._mounted.get(lease, {}).items()}

    def held(self, lease: LeaseId) -> int:
        return sum(self.sizes(lease).values())

    def _images(self, lease: LeaseId) -> list[Path]:
        return sorted((self._ledger.folder(lease) / "volumes").glob("*.img"))

    def _disk(self, lease: LeaseId, name: str) -> LoopDisk:
        """Raises UsageError("volume.name"): the name becomes a path."""
        if not NAME.fullmatch(name):
            raise UsageError(
                "volume.name", f"{name[:40]!r} is no volume name; use letters, digits, and _ . -"
            )
        folder = self._ledger.folder(lease)
        return LoopDisk(folder / "volumes" / f"{name}.img", folder / "mnt" / name)
