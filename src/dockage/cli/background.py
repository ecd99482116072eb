"""What ``--detach`` starts: ``python -m dockage.cli.background HOME``, with the overrides as JSON on stdin.

Its stdout and stderr are HOME/daemon.log, to the end of the file. The rule: that never takes more than twice LOG_MAX.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

from .errors import guarded
from .process import LOG

LOG_MAX = 16 << 20
"""Bytes; the one before is kept as daemon.log.1."""
LOOK_SEC = 10.0


def keep_small(log: Path, limit: int = LOG_MAX) -> None:
    """Emptied, not replaced: what we started (a gateway's Caddy) writes to the same open file."""
    if os.fstat(sys.stdout.fileno()).st_size < limit:
        return
    with suppress(OSError):  # the disk is full: all the more
        shutil.copy(log, log.with_name(f"{log.name}.1"))
    os.ftruncate(sys.stdout.fileno(), 0)


def _watch(log: Path, over: threading.Event) -> None:
    """In a thread: a node that hangs, or says the same for ever, must not fill the disk either."""
    while not over.wait(LOOK_SEC):
        keep_small(log)


def run() -> None:
    from dockage.daemon import memory

    with memory.importing():
        from dockage.daemon import system

    home, over = Path(sys.argv[1]), threading.Event()
    threading.Thread(target=_watch, args=(home / LOG, over), name="dockage-log", daemon=True).start()
    try:
        system.main(home, json.load(sys.stdin))
    finally:
        over.set()


def main() -> int:
    return guarded(run, as_json=False)


if __name__ == "__main__":
    sys.exit(main())
