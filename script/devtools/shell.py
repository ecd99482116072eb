"""Running commands and waiting, for the scripts beside this folder. Standard library only: they run
before there is a virtual environment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


class Failed(Exception):
    """A sentence for the person who ran the script."""


def run(*command: str, check: bool = True, seconds: float = 60) -> str:
    """The command's output; Failed with its last words if it does not succeed in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is missing: run script/setup") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)} did not end within {seconds:g} s") from None
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def works(*command: str, seconds: float = 60) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def wait_until(true: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    limit = time.monotonic() + seconds
    while not true():
        if time.monotonic() > limit:
            return False
        time.sleep(pause)
    return True
