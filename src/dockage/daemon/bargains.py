"""Looks on the market for what would be cheaper, for deployments that may move for it.

Counterpart: ``node/controller_saving.py``, which decides. An offer is only a hint: the new lease may cost no more than
the threshold leaves, whatever its provider asks for then.
"""

from __future__ import annotations

import asyncio

import structlog

from dockage.domain.errors import DockageError
from dockage.node import controller_words as say
from dockage.node.kept import Deployment

from .keeping import Keeping

log = structlog.get_logger("dockage.bargains")

EVERY = 60.0


class Bargains:
    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            for of in list(self._keeping.state.deployments.values()):
                if of.goal.saving.percent is None or not of.serving:
                    continue
                try:
                    await self._look(of)
                except DockageError as error:  # nothing fits: then nothing is cheaper
                    log.debug("bargains.none", deployment=of.name, code=error.code)

    async def _look(self, of: Deployment) -> None:
        provider, cost = await self._keeping.hands.cheapest(of)
        await self._keeping.tell(say.CheaperSeen(of.name, provider, cost))
