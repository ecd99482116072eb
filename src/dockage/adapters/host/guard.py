"""Nobody starts a lease's container while its walls are down: not the engine after a reboot, nor its owner by hand.

Every container of a lease binds a folder that is there exactly while the lease is prepared, and lies in memory, so that
a reboot takes it along. Without it no engine starts the container, whatever its restart policy; ``prepare`` makes it
last of all, and starts what the engine could not. Inside, it is behind an empty tmpfs of the engine (a masked path).
"""

from __future__ import annotations

from pathlib import Path

from dockage.domain.identity import LeaseId

from . import names

CANDIDATES = (Path("/run"), Path("/dev/shm"))
FORGETFUL = frozenset({"tmpfs", "ramfs"})


class Guards:
    def __init__(self, root: Path | None = None) -> None:
        self._root = root or folder(Path("/proc/self/mountinfo").read_text())

    @property
    def warning(self) -> str:
        if self._root is not None:
            return ""
        return (
            "neither /run nor /dev/shm is a tmpfs: after a reboot the engine may start containers before their walls "
            "stand"
        )

    def path(self, lease: LeaseId) -> str:
        """What a container of the lease binds; "" where there is no guard."""
        return str(self._root / names.checked(lease)) if self._root is not None else ""

    def set(self, lease: LeaseId) -> bool:
        """Whether it was not there: the first time, and the first time after a reboot."""
        if self._root is None:
            return False
        path = Path(self.path(lease))
        if path.is_dir():
            return False
        path.mkdir(parents=True, mode=0o755)
        return True

    def drop(self, lease: LeaseId) -> None:
        if self._root is not None and (path := Path(self.path(lease))).is_dir():
            path.rmdir()


def folder(mountinfo: str) -> Path | None:
    """Where a folder of ours is gone after a reboot, from ``/proc/self/mountinfo`` (proc(5))."""
    kinds = {}
    for line in mountinfo.splitlines():
        fields = line.split()
        kinds[fields[4]] = fields[fields.index("-") + 1]
    found = next((path for path in CANDIDATES if kinds.get(str(path)) in FORGETFUL), None)
    return found / "dockage-leases" if found else None
