"""A file system of a hard size in a sparse file, mounted by loop: a quota on any kernel. ``statvfs`` tells in a
microsecond what is held, deleted-but-open files included (a walk cannot see those).

The image file is the truth: after a reboot ``attach`` brings back what it says.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from dockage.domain.errors import Unavailable

from .command import Run, must

MAKE = "mkfs.ext4 -q -F -m 0 -E lazy_itable_init=1,lazy_journal_init=1".split()
OPTIONS = "loop,nodev,noatime,discard,noinit_itable"
"""discard punches holes into the image: what a tenant deletes is free again on the machine."""


class LoopDisk(NamedTuple):
    image: Path
    mount: Path


async def make(run: Run, image: Path, size: int, *options: str) -> None:
    """*options* are mkfs.ext4's."""
    image.parent.mkdir(exist_ok=True, mode=0o700)
    fresh = image.with_suffix(".new")
    with fresh.open("wb") as file:
        file.truncate(size)
    try:
        await must(run, [*MAKE, *options, str(fresh)])
        fresh.replace(image)  # a crash before this leaves a .new, which nobody mounts
    finally:
        fresh.unlink(missing_ok=True)


async def attach(run: Run, disk: LoopDisk) -> None:
    if not is_mounted(disk.mount):
        disk.mount.mkdir(parents=True, exist_ok=True)
        await must(run, ["mount", "-t", "ext4", "-o", OPTIONS, str(disk.image), str(disk.mount)])
    with contextlib.suppress(OSError):  # databases refuse to start in a folder that is not empty
        (disk.mount / "lost+found").rmdir()


async def detach(run: Run, mount: Path) -> None:
    """Lazily when it is busy: the loop device then goes with the last user."""
    if is_mounted(mount) and (await run(["umount", str(mount)])).code:
        await must(run, ["umount", "-l", str(mount)])
    _drop_folder(mount)


def held(mount: Path) -> int:
    """Bytes in blocks that are taken now."""
    try:
        state = os.statvfs(mount)
    except OSError as error:
        raise Unavailable("volume.lost", f"the disk at {mount} cannot be read: {error}") from error
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def is_mounted(mount: Path) -> bool:
    return os.path.ismount(mount)


def _drop_folder(mount: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        mount.rmdir()
