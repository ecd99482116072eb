"""Asking the market again when nobody answered: a busy moment must not cost a user his ``docker compose up``.

The directory itself gives a silent node up after a few seconds, and knows nothing of who waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dockage.domain.errors import Unavailable
from dockage.ports.renting import Progress

T = TypeVar("T")
UNREACHABLE = "market.unreachable"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
SEARCH_PATIENCE = 35.0
"""Seconds. Longer than a suspended machine's connections take to come back (30 s); short enough for a user who has no
network at all, and, with the 20 s that the last question takes, for the CLI's 60."""


async def patiently(
    ask: Callable[[], Awaitable[T]], progress: Progress, patience: float = SEARCH_PATIENCE
) -> T:
    """What *ask* answers. Raises Unavailable("market.unreachable") once nobody has answered for so many seconds, and
    everything else at once."""
    loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
    until = loop.time() + patience
    while True:
        try:
            return await ask()
        except Unavailable as error:
            if error.code != UNREACHABLE or loop.time() + pause >= until:
                raise
        progress(f"the market does not answer; asked again for another {until - loop.time():.0f} s")
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
