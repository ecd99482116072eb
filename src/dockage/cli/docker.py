"""The user's own ``docker`` program, pointed at our socket. The rule: what it prints and how it ends, is shown."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from .errors import Unavailable, UsageError

QUICK_SEC = 60.0
"""For what answers without a container being made."""
_OTHER_ENGINE = ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
"""What would point docker elsewhere, or speak TLS to a unix socket."""


def environment(socket: str = "") -> dict[str, str]:
    """Ours, with docker pointed at *socket*, or as it is without one."""
    ours = dict(os.environ)
    if socket:
        ours = {name: value for name, value in ours.items() if name not in _OTHER_ENGINE}
        ours["DOCKER_HOST"] = f"unix://{socket}"
    return ours


def program() -> str:
    found = shutil.which("docker")
    if found is None:
        raise UsageError(
            "docker.missing", "there is no docker program here: install Docker's CLI (no daemon is needed)"
        )
    return found


def ask(words: Sequence[str], env: Mapping[str, str]) -> str:
    """What ``docker words...`` prints. Raises UsageError("docker.failed") with what it said, or Unavailable."""
    try:
        done = subprocess.run(
            [program(), *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=QUICK_SEC,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable("docker.slow", f"docker {words[0]} did not answer within {QUICK_SEC:g} s") from None
    if done.returncode:
        raise _why(words, done.stderr)
    return done.stdout


def _why(words: Sequence[str], said: str) -> UsageError:
    """Without its compose plugin, docker takes ``compose`` for something else and says the oddest things."""
    if words[0] == "compose" and (
        "is not a docker command" in said or ("unknown" in said and "Usage:" in said)
    ):
        return UsageError(
            "compose.missing", "this docker has no compose: install Docker's compose plugin (v2)"
        )
    lines = [line for line in said.strip().splitlines() if line] or ["it failed without a word"]
    return UsageError("docker.failed", f"docker {words[0]}: {' '.join(lines[-5:])}")


def run(words: Sequence[str], env: Mapping[str, str], *, quiet: bool = False) -> int:
    """Run in this terminal; returns the exit code. With *quiet* stdout is left for our own answer."""
    with _child_gets_ctrl_c():
        return subprocess.run([program(), *words], env=env, stdout=2 if quiet else None).returncode


@contextmanager
def _child_gets_ctrl_c() -> Iterator[None]:
    """The terminal sends Ctrl-C to both; docker ends in its own time and we wait for it. (Not SIG_IGN: a child
    would inherit that.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
