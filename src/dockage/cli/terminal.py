"""A terminal taken over for a while, and given back as it was however the program ends.

Ctrl-C, a signal, a suspension by Ctrl-Z and an exception all leave by the same door.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "[C": "right",
    "[D": "left",
    "OA": "up",
    "OB": "down",
    "OC": "right",
    "OD": "left",
    "[5~": "pageup",
    "[6~": "pagedown",
    "[H": "home",
    "[F": "end",
    "[1~": "home",
    "[4~": "end",
    "OH": "home",
    "OF": "end",
}
ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"
"""The alternate screen, without a cursor, empty (xterm; every terminal of today)."""
LEAVE = "\x1b[?25h\x1b[?1049l"
ESCAPE_SEC = 0.05
"""The rest of a key's sequence comes at once; what does not is the Escape key."""


class Terminal:
    """Made by ``taken``."""

    def __init__(self, descriptor: int, wakes: int) -> None:
        self._in, self._wakes = descriptor, wakes

    def key(self, seconds: float) -> str:
        """The next key: a character, ``up``, ``pagedown``, ``escape``, ...; "" after *seconds*, or when the size
        changed."""
        ready, _, _ = select.select([self._in, self._wakes], [], [], seconds)
        if self._wakes in ready:
            with suppress(BlockingIOError):
                os.read(self._wakes, 1024)
        if self._in not in ready:
            return ""
        data = os.read(self._in, 64)
        if not data:
            return "q"  # whoever typed is gone
        if data == b"\x1b" and select.select([self._in], [], [], ESCAPE_SEC)[0]:
            data += os.read(self._in, 16)
        text = data.decode(errors="replace")
        return _SEQUENCES.get(text[1:], "escape") if text[0] == "\x1b" else text[0]

    def size(self) -> tuple[int, int]:
        """(width, height); something usable where the terminal does not know."""
        found = os.get_terminal_size(sys.stdout.fileno())
        return found.columns or 80, found.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Over what is there, without a flicker."""
        picture = "\r\n".join(f"{line}\x1b[0m\x1b[K" for line in lines)
        sys.stdout.write(f"\x1b[H{picture}\x1b[J")
        sys.stdout.flush()


@contextmanager
def taken() -> Iterator[Terminal]:
    """stdin and stdout are the terminal. SIGTERM and SIGHUP raise SystemExit inside."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def enter() -> None:
        tty.setcbreak(descriptor)
        _write(ENTER)

    def leave() -> None:
        _write(LEAVE)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    waking = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signals = _handled(enter, leave)
    try:
        enter()
        yield Terminal(descriptor, read)
    finally:
        leave()
        for number, handler in signals.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(waking)
        os.close(read)
        os.close(write)


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal is gone: there is nothing to give back
        sys.stdout.write(text)
        sys.stdout.flush()


def _handled(enter: Callable[[], None], leave: Callable[[], None]) -> dict[int, Any]:
    """What was there before, to be put back."""

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(number: int, _: FrameType | None) -> None:
        leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # here it stops, until it is continued
        signal.signal(number, suspend)
        enter()

    handlers: dict[int, Any] = {
        signal.SIGTERM: stop,
        signal.SIGHUP: stop,
        signal.SIGTSTP: suspend,
        signal.SIGWINCH: lambda *_: None,  # it only wakes ``key``
    }
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}
