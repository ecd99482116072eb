"""Nothing of the binding is freed inside one of its callbacks.

A thread of the transport calls us while it holds a connection's lock. If Python collects garbage right there, and a
stream is in it, freeing that wants the same lock: the thread waits for itself, the loop soon for the thread, and nobody
is answered any more (seen under load; tests/link/test_frees.py makes it happen). So what is freed inside a callback
is noted, and freed once the loop comes to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from iroh import iroh_ffi

PREFIXES = ("uniffi_iroh_ffi_fn_free_", "ffi_iroh_ffi_rust_future_free_")

_inside: set[int] = set()
"""Threads that are in a callback."""
_noted: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()


def enter() -> None:
    _inside.add(get_ident())


def leave(loop: asyncio.AbstractEventLoop) -> None:
    """What was noted meanwhile is freed by *loop*; on one that is closed, with the next that is freed anywhere."""
    if _noted:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_free_noted)
    _inside.discard(get_ident())


def _free_noted() -> None:
    while _noted:
        free, arguments = _noted.popleft()
        free(*arguments)


def _kept_outside(free: Any) -> Callable[..., Any]:
    """With a status of its own for later: the one that it came with is on the caller's stack."""

    def careful(handle: Any, *status: Any) -> Any:
        if get_ident() not in _inside:
            return free(handle, *status)
        own = tuple(ctypes.byref(iroh_ffi._UniffiRustCallStatus.default()) for _ in status)
        _noted.append((free, (handle, *own)))
        return None

    return careful


def apply() -> bool:
    """Returns whether it was done. Safe to call again."""
    binding: Any = getattr(iroh_ffi, "_UniffiLib", None)
    if binding is None or not hasattr(iroh_ffi, "_UniffiRustCallStatus"):
        return False
    plain = {name: free for name, free in vars(binding).items() if name.startswith(PREFIXES)}
    plain = {name: free for name, free in plain.items() if not hasattr(free, "__wrapped__")}
    for name, free in plain.items():
        careful: Any = _kept_outside(free)
        careful.__wrapped__ = free
        setattr(binding, name, careful)
    return bool(plain)
