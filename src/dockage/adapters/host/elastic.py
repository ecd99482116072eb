"""A disk whose size can change while it is used: a sparse file system of many times the size, and in it one file that
holds all that the lease has not rented. Blocks that were never written take no room on the machine.

Not ``resize2fs``: growing a mounted ext4 wants CAP_SYS_RESOURCE, which containers and some machines withhold, and none
shrinks.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dockage.domain.errors import UsageError
from dockage.domain.units import MIB

from . import loopdisk
from .command import Run
from .loopdisk import LoopDisk

GROWTH = 32
"""Times its first size that a disk can grow to."""
SIZE_MIN = 8 * MIB
OPTIONS = ("-J", "size=8", "-i", "65536", "-O", "^resize_inode")
"""A small journal, for its blocks are the machine's; one inode for each 2 KiB of the first size."""
WITHHELD = ".withheld"


async def make(run: Run, disk: LoopDisk, size: int) -> None:
    """At most *size* bytes, made, mounted or changed as needed. Raises UsageError("lease.shrink" or "lease.grow")."""
    size = max(SIZE_MIN, size)
    if not disk.image.exists():
        await loopdisk.make(run, disk.image, size * GROWTH, *OPTIONS)
    await loopdisk.attach(run, disk)
    await asyncio.to_thread(_limit, disk.mount, size)


def _limit(mount: Path, size: int) -> None:
    state, file = os.statvfs(mount), os.open(mount / WITHHELD, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        before = os.fstat(file).st_size
        withheld = state.f_bavail * state.f_frsize + before + held(mount) - size
        if withheld < 0:
            raise UsageError("lease.grow", "the lease's disk cannot grow that far; take another lease")
        if withheld < before:
            os.truncate(file, withheld)
        elif withheld > before:
            _withhold(file, before, withheld)
    finally:
        os.close(file)


def _withhold(file: int, before: int, after: int) -> None:
    try:
        os.posix_fallocate(file, before, after - before)
    except OSError as error:
        os.truncate(file, before)
        why = "the lease's containers hold more disk than that; remove files or containers first"
        raise UsageError("lease.shrink", why) from error


def held(mount: Path) -> int:
    """Bytes in blocks that are taken now, without what is withheld."""
    try:
        withheld = os.stat(mount / WITHHELD).st_blocks * 512
    except FileNotFoundError:
        withheld = 0
    return max(0, loopdisk.held(mount) - withheld)
