"""The journal's own thread.

The common pool is small (six threads on two cores); the tenant's engine writing images out, proofs of work and files
may hold all of it for minutes. A payment that waited behind them would hold up the mind, and with it everybody who asks
the node anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dockage-journal")


async def on_disk(function: Callable[..., T], *arguments: object) -> T:
    """*function* of the journal, after all that were given before it. Raises what it raises."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, function, *arguments)
