"""The daemon as a process of this machine: is there one, start one in the background, stop it.

Counterpart: the lock on ``<home>/daemon.pid`` (``daemon/home.py``). The rule: a number in a file is no proof;
only a process that holds the lock is the daemon, and only that one is ever sent a signal.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .client import Client, Json, check_home
from .errors import USER, NotRunning, Unavailable, UsageError
from .session import Session

LOG = "daemon.log"
START_SEC = 60.0
STOP_SEC = 30.0
POLL_SEC = 0.1
LOG_LINES = 15
LOG_TAIL_BYTES = 64 * 1024

Overrides = dict[str, dict[str, Any]]


def pid_of(home: Path) -> int | None:
    """The daemon's pid, or None if none holds the lock."""
    try:
        file = (home / "daemon.pid").open()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise UsageError("daemon.foreign", f"{home} belongs to another user's daemon") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read(32).strip()
            return int(text) if text.isdecimal() else None
        return None


def refuse_second(home: Path, what_now: str) -> None:
    """Raises UsageError("home.in-use") if a daemon runs at *home*."""
    pid = pid_of(check_home(home))
    if pid is not None:
        raise UsageError("home.in-use", f"a daemon already runs at {home} (process {pid}): {what_now}")


# -- start -------------------------------------------------------------------------------------------
def start(session: Session, overrides: Overrides) -> Json:
    """Run a node in the background; returns its status once it answers. Raises Unavailable with the log's end."""
    home = check_home(session.home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = home / LOG
    began = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        os.chmod(log, 0o600)
        child = subprocess.Popen(
            [sys.executable, "-m", "dockage.cli.background", str(home)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,  # a Ctrl-C of this terminal, or its end, is not the daemon's
        )
    assert child.stdin is not None
    with child.stdin:  # not as arguments: everybody may read those, and a password may be among them
        child.stdin.write(json.dumps(overrides).encode())
    try:
        return _wait_up(session.client, child, log, began)
    except KeyboardInterrupt:
        child.terminate()
        child.wait(STOP_SEC)
        raise


def _wait_up(client: Client, child: subprocess.Popen[bytes], log: Path, began: int) -> Json:
    until = time.monotonic() + START_SEC
    while time.monotonic() < until:
        if child.poll() is not None:
            kind = UsageError if child.returncode == USER else Unavailable
            raise kind("daemon.died", f"the daemon ended at once; {log} says:\n{_tail(log, began)}")
        try:
            return client.get("status", timeout=START_SEC)
        except NotRunning:
            time.sleep(POLL_SEC)
    raise Unavailable(
        "daemon.slow",
        f"the daemon (process {child.pid}) does not answer after {START_SEC:g} s; {log} says:\n{_tail(log, began)}",
    )


def _tail(log: Path, began: int) -> str:
    """The last lines of this start; not those of an earlier one."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(began, size - LOG_TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-LOG_LINES:]) or "  (nothing)"


def ensure(session: Session) -> Json:
    """The status of the daemon, which is started if none runs."""
    try:
        return session.client.get("status")
    except NotRunning:
        if pid_of(session.home) is not None:
            raise
    session.say(f"no daemon runs at {session.home}: starting one (stop it with `dockage daemon --stop`)")
    return start(session, {})


# -- stop --------------------------------------------------------------------------------------------
def stop(home: Path) -> int:
    """SIGTERM, then wait until it has let go of its home. Raises NotRunning or Unavailable."""
    pid = pid_of(home)
    if pid is None:
        raise NotRunning("daemon.not-running", f"no daemon runs at {home}: nothing to stop")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid  # it ended meanwhile
    except PermissionError:
        raise UsageError("daemon.foreign", f"process {pid} belongs to another user") from None
    if not wait_until(lambda: pid_of(home) is None, STOP_SEC):
        raise Unavailable("daemon.stopping", f"the daemon (process {pid}) has not ended after {STOP_SEC:g} s")
    return pid


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SEC)
    return True
