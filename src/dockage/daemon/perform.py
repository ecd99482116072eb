"""From effects to ports: what performing a wish of either mind has in common. Each may be performed twice.

Counterparts: ``perform_provider.py`` and ``perform_tenant.py``. What the world answers comes back as an event.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from dockage.domain.errors import DockageError
from dockage.domain.identity import ChannelId, short
from dockage.domain.reason import TEXT_MAX, Reason

from .peers import Postman
from .rail import Rail
from .tasks import Jobs


def reason_of(error: DockageError) -> Reason:
    return Reason(error.code[:64], error.message[:TEXT_MAX])


class Performer:
    """The effects that both roles share."""

    def __init__(self, postman: Postman, rail: Rail | None, jobs: Jobs) -> None:
        self._postman, self._rail, self._jobs = postman, rail, jobs
        self._busy: set[tuple[str, bytes]] = set()

    def _once(self, kind: str, channel: bytes, work: Callable[[Rail], Coroutine[Any, Any, None]]) -> None:
        """The minds ask again at every poll; a piece of work that is under way is not begun twice."""
        if self._rail is None or (kind, channel) in self._busy:
            return
        self._busy.add((kind, channel))
        rail = self._rail

        async def run() -> None:
            try:
                await work(rail)
            finally:
                self._busy.discard((kind, channel))

        if not self._jobs.start(run, f"{kind} {short(channel)}"):
            self._busy.discard((kind, channel))

    def _broadcast(self, channel: ChannelId, raw: bytes) -> None:
        async def work(rail: Rail) -> None:
            await rail.chain.broadcast(raw)

        self._once("broadcast", channel, work)
