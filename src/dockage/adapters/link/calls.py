"""Drives the binding's calls without a trip through the event loop where the answer is there at once.

The generated code polls a Rust future, and even when that future is ready already (most writes, half of the reads)
its callback wakes the loop through a pipe: 100 us of CPU for a call of 10. Here a callback that comes from inside the
poll is taken as the answer; one from another thread wakes the loop as before. A tunnelled request takes eight calls,
and each of them two or three plain ones, for which the generated code makes two structures that say "no error"; here
those are used again.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from itertools import count
from typing import Any

from iroh import iroh_ffi

from . import frees

READY = 0
FAIR = 16
"""Of so many answers that were there at once, one waits for its turn all the same: a pump between two fast streams
would otherwise keep everybody else out of the loop."""
PARTS = (
    "_uniffi_rust_call_async",
    "_uniffi_rust_call_with_error",
    "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK",
    "_UNIFFI_RUST_FUTURE_POLL_READY",
    "_UniffiRustCallStatus",
    "_uniffi_check_call_status",
)
ARGUMENTS = ("rust_future", "ffi_poll", "ffi_complete", "ffi_free", "lift_func", "error_ffi_converter")


class _Poll:
    """One poll: answered from inside it (``code``), or later through ``future``."""

    __slots__ = ("code", "future", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.thread = loop, threading.get_ident()
        self.code: int | None = None
        self.future: asyncio.Future[int] | None = None

    def answer(self, code: int) -> None:
        """From any thread."""
        if threading.get_ident() == self.thread and self.future is None:
            self.code = code
        else:
            try:
                self.loop.call_soon_threadsafe(self._resolve, code)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

    def _resolve(self, code: int) -> None:
        if self.future is None:
            self.code = code  # it came between the poll and the wait
        elif not self.future.done():
            self.future.set_result(code)

    @property
    def is_answered(self) -> bool:
        """From inside the poll, and nobody else has waited for too long."""
        return self.code is not None and next(_turns) % FAIR != 0

    async def wait(self) -> int:
        self.future = self.loop.create_future()
        if self.code is not None:
            self.loop.call_soon(self._resolve, self.code)
        return await self.future


_polls: dict[int, _Poll] = {}
_handles, _turns = count(1), count(1)


def _continue(handle: int, code: int) -> None:
    frees.enter()
    poll = _polls.pop(handle)
    try:
        poll.answer(code)
    finally:
        frees.leave(poll.loop)


async def _call(
    rust_future: Any,
    ffi_poll: Any,
    ffi_complete: Any,
    ffi_free: Any,
    lift_func: Any,
    error_ffi_converter: Any,
) -> Any:
    loop = asyncio.get_running_loop()
    try:
        while True:
            poll, handle = _Poll(loop), next(_handles)
            _polls[handle] = poll
            ffi_poll(rust_future, _callback, handle)
            if (poll.code if poll.is_answered else await poll.wait()) == READY:
                break
        return lift_func(_plain(error_ffi_converter, ffi_complete, rust_future))
    finally:
        ffi_free(rust_future)


_spare: list[tuple[Any, Any]] = []
"""Statuses that say "no error", and references to them. Rust writes into one only when there is an error."""


def _plain(error_ffi_converter: Any, fn: Any, *args: Any) -> Any:
    """A call that is no future, from any thread; another may begin inside it, when garbage is collected."""
    try:
        status, reference = _spare.pop()
    except IndexError:
        status = iroh_ffi._UniffiRustCallStatus.default()
        reference = ctypes.byref(status)
    result = fn(*args, reference)
    if status.code:
        iroh_ffi._uniffi_check_call_status(error_ffi_converter, status)
    _spare.append((status, reference))
    return result


_callback: Any = None


def fits(binding: Any) -> bool:
    """Whether the binding is as it was when this was written; another one is left alone."""
    if any(not hasattr(binding, name) for name in PARTS):
        return False
    code, plain = (
        binding._uniffi_rust_call_async.__code__,
        binding._uniffi_rust_call_with_error.__code__,
    )
    same = code.co_varnames[: code.co_argcount] == ARGUMENTS
    same = same and plain.co_varnames[: plain.co_argcount + 1] == (ARGUMENTS[-1], "fn", "args")
    return same and bool(binding._UNIFFI_RUST_FUTURE_POLL_READY == READY)


def apply() -> bool:
    """Returns whether it was done. Safe to call again."""
    global _callback
    if _callback is not None or not fits(iroh_ffi):
        return False
    _callback = iroh_ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(_continue)
    iroh_ffi._uniffi_rust_call_async, iroh_ffi._uniffi_rust_call_with_error = _call, _plain
    return True
