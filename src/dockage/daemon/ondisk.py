"""The journal's own thread.

The common pool is small (six threads on two cores); the tenant's engine writing images out, proofs of work and files
may hold all of it for minutes. A payment that waited behind them would hold up the mind, and with it everybody who asks
the node anything.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_threads: WeakKeyDictionary[AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()
"""One for each loop: a thread of another one may belong to a process that was left behind by a fork."""


async def on_disk(function: Callable[..., T], *arguments: object) -> T:
    """*function* of the journal, after all that were given before it. Raises what it raises."""
    loop = asyncio.get_running_loop()
    thread = _threads.get(loop)
    if thread is None:
        thread = _threads[loop] = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dockage-journal")
    return await loop.run_in_executor(thread, function, *arguments)
