"""An exchange rate from a command of our user's: it prints what a bitcoin costs, and has a limit on its time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from dockage.domain.errors import Unavailable
from dockage.domain.units import micro

OUTPUT_MAX = 64


class CommandRate:
    """A list of arguments, no shell; what it starts in turn ends with it."""

    def __init__(self, command: Sequence[str], timeout_sec: float) -> None:
        self._command, self._timeout = tuple(command), timeout_sec

    async def micro(self) -> int:
        text = await asyncio.to_thread(self._run)
        try:
            return micro(text)
        except ValueError:
            raise Unavailable(
                "price.rate",
                f"{self._command[0]} printed {text[:OUTPUT_MAX]!r}, which is no rate: 61234.5 is",
            ) from None

    def _run(self) -> str:
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable("price.rate", f"{self._command[0]} cannot be run: {error}") from None
        try:
            said, _ = child.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise Unavailable(
                "price.rate", f"{self._command[0]} printed no rate within {self._timeout:g} s"
            ) from None
        finally:
            _end(child)
        if child.returncode:
            raise Unavailable("price.rate", f"{self._command[0]} ended with code {child.returncode}")
        return said[: 4 * OUTPUT_MAX].decode(errors="replace").strip()


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()
    child.wait()
