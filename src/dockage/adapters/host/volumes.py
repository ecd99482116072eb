"""Named volumes: one sparse ext4 image each, mounted by loop. A hard size on any kernel, and ``statvfs`` tells
in a microsecond what is held, deleted-but-open files included (a walk cannot see those).

The image file is the truth: after a reboot ``mount_all`` brings back what the files say.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.units import MIB

from .command import Run, must
from .ledger import Ledger

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
SIZE_MIN = 8 * MIB
"""Below this ext4's own tables take a tenth."""
MAKE = "mkfs.ext4 -q -F -m 0 -E lazy_itable_init=1,lazy_journal_init=1".split()
OPTIONS = "loop,nodev,noatime,discard,noinit_itable"
"""discard punches holes into the image: what a tenant deletes is free again on the machine."""


class Volumes:
    def __init__(self, ledger: Ledger, run: Run) -> None:
        self._ledger, self._run = ledger, run
        self._mounted: dict[LeaseId, dict[str, Path]] = {}

    async def create(self, lease: LeaseId, name: str, size: int) -> Path:
        image, mount = self._paths(lease, name)
        if not image.exists():
            self._check_room(lease, size)
            await self._make(image, size)
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

    async def _make(self, image: Path, size: int) -> None:
        image.parent.mkdir(exist_ok=True, mode=0o700)
        fresh = image.with_suffix(".new")
        with fresh.open("wb") as file:
            file.truncate(size)
        try:
            await must(self._run, [*MAKE, str(fresh)])
            fresh.replace(image)  # a crash before this leaves a .new, which nobody mounts
        finally:
            fresh.unlink(missing_ok=True)

    async def mount_all(self, lease: LeaseId) -> None:
        self._mounted.setdefault(lease, {})
        for image in self._images(lease):
            await self._mount(lease, image.stem)

    async def _mount(self, lease: LeaseId, name: str) -> None:
        image, mount = self._paths(lease, name)
        if not _is_mounted(mount):
            mount.mkdir(parents=True, exist_ok=True)
            await must(self._run, ["mount", "-t", "ext4", "-o", OPTIONS, str(image), str(mount)])
        with contextlib.suppress(OSError):  # databases refuse to start in a folder that is not empty
            (mount / "lost+found").rmdir()
        self._mounted.setdefault(lease, {})[name] = mount

    async def remove(self, lease: LeaseId, name: str) -> None:
        image, mount = self._paths(lease, name)
        await self._unmount(mount)
        self._mounted.get(lease, {}).pop(name, None)
        image.unlink(missing_ok=True)

    async def remove_all(self, lease: LeaseId) -> None:
        mounts = self._ledger.folder(lease) / "mnt"
        for mount in sorted(mounts.iterdir()) if mounts.is_dir() else []:
            await self._unmount(mount)
        for image in self._images(lease):
            image.unlink()
        self._mounted.pop(lease, None)

    async def _unmount(self, mount: Path) -> None:
        """Lazily when it is busy: the loop device then goes with the last user."""
        if _is_mounted(mount) and (await self._run(["umount", str(mount)])).code:
            await must(self._run, ["umount", "-l", str(mount)])
        _drop_folder(mount)

    def mounts(self, lease: LeaseId) -> dict[str, str]:
        return {name: str(path) for name, path in self._mounted.get(lease, {}).items()}

    def held(self, lease: LeaseId) -> int:
        """Bytes in blocks that are taken now."""
        total = 0
        for path in self._mounted.get(lease, {}).values():
            try:
                state = os.statvfs(path)
            except OSError as error:
                raise Unavailable("volume.lost", f"the volume at {path} cannot be read: {error}") from error
            total += (state.f_blocks - state.f_bfree) * state.f_frsize
        return total

    def _images(self, lease: LeaseId) -> list[Path]:
        return sorted((self._ledger.folder(lease) / "volumes").glob("*.img"))

    def _paths(self, lease: LeaseId, name: str) -> tuple[Path, Path]:
        """Raises UsageError("volume.name"): the name becomes a path."""
        if not NAME.fullmatch(name):
            raise UsageError(
                "volume.name", f"{name[:40]!r} is no volume name; use letters, digits, and _ . -"
            )
        folder = self._ledger.folder(lease)
        return folder / "volumes" / f"{name}.img", folder / "mnt" / name


def _is_mounted(path: Path) -> bool:
    return os.path.ismount(path)


def _drop_folder(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()
