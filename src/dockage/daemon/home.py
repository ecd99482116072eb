"""The folder of a node belongs to one process at a time. Counterpart: ``cli/process.py``, which looks for the lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dockage.domain.errors import UsageError


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Two daemons with one key would fight for every connection; two writers would spoil the journal."""
    path = home / "daemon.pid"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError("home.in-use", f"a dockage daemon already runs in {home}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
