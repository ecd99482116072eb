"""An event loop whose time passes at once when nobody has anything to do: an hour of waiting costs nothing.

Only with in-memory fakes: time would jump over a real socket. Work for threads is done on the spot, or time would
run away while a thread writes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

from dockage.domain.units import SECOND, Instant

from .clock import START


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Give it to anyio's plugin: ``("asyncio", {"loop_factory": VirtualClockLoop})``."""

    _virtual_time = 0.0
    _ready: Any
    _scheduled: Any
    _timer_cancelled_count: int

    def time(self) -> float:
        return self._virtual_time

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():  # time goes to what will happen
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready and self._scheduled:
            self._virtual_time = max(self._virtual_time, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


class LoopClock:
    """A Clock that goes with the running loop's time."""

    def now(self) -> Instant:
        return Instant(START + round(asyncio.get_running_loop().time() * SECOND))
