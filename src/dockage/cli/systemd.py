"""The machine's systemd, by way of ``systemctl``: units of the machine for root, of the user for anybody else.

The rule: what systemctl said when it refused is shown; nothing here guesses at it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from . import unit
from .errors import Unavailable, UsageError

BOOTED = Path("/run/systemd/system")
"""There where systemd runs the machine (sd_booted(3))."""
QUICK_SEC = 30.0
START_SEC = 330.0
"""The unit's TimeoutStartSec, and some more."""
STOP_SEC = 90.0
SHOWN = ("ActiveState", "SubState", "UnitFileState", "MainPID", "StatusText", "NRestarts", "Result")


class Manager(NamedTuple):
    """*root*: a folder that will be another machine's ``/``, where nothing runs now."""

    system: bool
    root: Path | None = None

    def file(self, name: str) -> Path:
        if not self.system:
            base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
            return base / "systemd" / "user" / f"{name}.service"
        return (self.root or Path("/")) / "etc" / "systemd" / "system" / f"{name}.service"

    @property
    def works(self) -> bool:
        return self.root is not None or BOOTED.is_dir()

    def do(self, *words: str, limit: float = QUICK_SEC) -> None:
        """Raises UsageError("service.refused") with what systemctl said, or Unavailable."""
        done = self._run(words, limit)
        if done.returncode:
            raise UsageError("service.refused", f"`systemctl {' '.join(words)}`: {_said(done)}")

    def show(self, name: str) -> Mapping[str, str]:
        done = self._run(("show", f"{name}.service", *(f"--property={each}" for each in SHOWN)), QUICK_SEC)
        if done.returncode:
            raise UsageError("service.refused", f"`systemctl show`: {_said(done)}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def start(self, name: str) -> None:
        """Returns once the node is up. Raises Unavailable("service.not-started") with the end of its log."""
        done = self._run(("restart", f"{name}.service"), START_SEC)
        if done.returncode:
            raise Unavailable(
                "service.not-started",
                f"{name} was installed and does not start; `{self.log(name)}` says:\n{self._log_end(name)}",
            )

    def log(self, name: str) -> str:
        return f"journalctl {'' if self.system else '--user '}-u {name}"

    def linger(self) -> bool:
        """Run our user's units without a login. Whether that is so now."""
        done = _finished(["loginctl", "enable-linger"], QUICK_SEC)
        return done is not None and not done.returncode

    def _log_end(self, name: str) -> str:
        done = _finished([*self.log(name).split(), "-n", "15", "--no-pager", "-o", "cat"], QUICK_SEC)
        return "\n".join(f"  {line}" for line in done.stdout.splitlines()) if done else "  (nothing)"

    def _run(self, words: tuple[str, ...], limit: float) -> subprocess.CompletedProcess[str]:
        where = [f"--root={self.root}"] if self.root else [] if self.system else ["--user"]
        done = _finished(["systemctl", *where, *words], limit)
        if done is None:
            raise Unavailable(
                "service.silent", f"`systemctl {' '.join(words)}` did not end within {limit:g} s"
            )
        return done


def manager(root: Path | None) -> Manager:
    """Of who asks."""
    return Manager(root is not None or os.geteuid() == 0, root)


def refuse_without(of: Manager, home: Path, python: str) -> None:
    """Raises UsageError("service.no-systemd"), which says what to do instead."""
    if of.works and shutil.which("systemctl"):
        return
    raise UsageError(
        "service.no-systemd",
        "systemd does not run this machine. Let what starts its services (OpenRC, runit, ...) run this, in the "
        f"foreground, again when it ends:\n  {shlex.join(unit.command(home, python))}\nor let cron start it at every "
        f"boot, by this line in `crontab -e`:\n  {unit.crontab(home, python)}\n",
    )


def _finished(words: list[str], limit: float) -> subprocess.CompletedProcess[str] | None:
    """None if it took too long or is not there."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit
        )
    except (subprocess.TimeoutExpired, FileNotFoundError):
        return None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
