"""The order in which a node looks for the market, and what it says when it finds nobody.

First who answered before and the seeds of the config (``contacts.py``); while there is nobody, the other ways, each
only if our user wants it: linked machines, the local network, the BitTorrent DHT. Each has a limit of time and of
nodes; what it tells is a hint, and only an answer counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from dockage.domain.errors import DockageError
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address

from .contacts import Contacts

log = structlog.get_logger("dockage.market")

SOON, AGAIN = 5.0, 60.0
"""Seconds between the first two looks, while we know nobody, and later at most: others may start just now, too."""
HINTS_MAX = 32
"""Tried of one way at a time."""
NAMES = {
    "book": "nodes met before",
    "config": "seeds",
    "machines": "linked machines",
    "lan": "the local network",
    "mainline": "the BitTorrent DHT",
}
"""Of the ways, for people, in their order."""


class Way(NamedTuple):
    name: str
    find: Callable[[], Awaitable[Sequence[tuple[NodeKey, Address]]]]
    limit: float
    """Seconds."""


class Entrance:
    def __init__(
        self, contacts: Contacts, ways: Sequence[Way], entered: asyncio.Event, *, is_market: bool
    ) -> None:
        """*entered* is set once the market was looked for, found or not."""
        self._contacts, self._ways, self._entered, self._is_market = contacts, ways, entered, is_market
        self.asked: dict[str, int] = {}
        """How many nodes each way has told of."""
        self.found_by = ""
        self._complained = False

    @property
    def nodes(self) -> int:
        """Market nodes that answer us."""
        return len(self._contacts.live())

    async def run(self) -> None:
        for source in ("book", "config"):
            # Both, always: a book that liars have filled must not keep us from the seeds that our user trusts.
            told = self._contacts.told(source)
            self._note(source, len(told), await self._contacts.enter(source) if told else 0)
            if self.found_by:
                self._entered.set()
        pause = SOON
        while True:
            if not self.nodes:
                await self._look()
            self._entered.set()
            await asyncio.sleep(AGAIN if self.nodes else pause)
            pause = min(AGAIN, 2 * pause)

    async def _look(self) -> None:
        for way in self._ways:
            nodes = await self._ask(way)
            self._note(way.name, len(nodes), await self._contacts.found(nodes, way.name) if nodes else 0)
            if self.nodes:
                return
        if not self._is_market:
            (log.debug if self._complained else log.warning)("market.nobody", why=self.why())
            self._complained = True

    async def _ask(self, way: Way) -> Sequence[tuple[NodeKey, Address]]:
        try:
            async with asyncio.timeout(way.limit):
                return (await way.find())[:HINTS_MAX]
        except (DockageError, TimeoutError) as error:
            log.info("market.way-failed", way=way.name, why=str(error) or f"not done within {way.limit:g} s")
            return ()

    def _note(self, way: str, told: int, known: int) -> None:
        self.asked[way] = told
        if known and not self.found_by:
            self.found_by = way
            log.info("market.entered", by=NAMES[way], nodes=known)

    def why(self) -> str:
        """ "" while we know somebody, or are a market node that others are to find; else what to do now, once we have
        looked for the first time."""
        if self.nodes or self._is_market:
            return ""
        if not self._entered.is_set():
            return "it is being looked for"
        asked = [f"{NAMES[way]} ({count})" for way, count in self.asked.items() if count]
        empty = [NAMES[way] for way, count in self.asked.items() if not count and way in _LOOKED_AT]
        tried = f"asked without an answer: {', '.join(asked)}. " if asked else ""
        silent = f"Nobody was found by {' and '.join(empty)}. " if empty else ""
        return (
            f"no market node is known. {tried}{silent}Name one with --seed KEY@ip:port, look on the local network with "
            "--lan, or in the BitTorrent DHT with --mainline; your own machines need none (dockage link)"
        )


_LOOKED_AT = ("lan", "mainline")
