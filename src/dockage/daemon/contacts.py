"""How the node gets into the market and back into it: seeds of the config, nodes met before, nodes found just now.

The one place for whoever finds market nodes (mDNS, the Mainline DHT, a paired machine): call ``found``. What is found
is hearsay and only tried; what answers is kept on disk (protocol/contact_book.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from dockage.domain.identity import NodeKey
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.peers import Address
from dockage.protocol.contact_book import ContactBook
from dockage.protocol.kademlia import Contact, Space

from .ondisk import on_disk
from .tasks import every

log = structlog.get_logger("dockage.contacts")

KIND = "contacts"
"""Of the row in the journal."""
TRIED = 32
"""Nodes of the book that are tried at a start: some are gone, few suffice."""
REMEMBER_EVERY = 60.0

Bootstrap = Callable[[Sequence[tuple[NodeKey, Address]], str], Awaitable[int]]
Live = Callable[[], Sequence[tuple[NodeKey, Address]]]


class Contacts:
    """*bootstrap* and *live* are ``KademliaDirectory.bootstrap`` and ``contacts``."""

    def __init__(
        self,
        rows: Sequence[Row],
        journal: Journal,
        clock: Clock,
        bootstrap: Bootstrap,
        live: Live,
        seeds: Sequence[tuple[NodeKey, Address]],
        *,
        bound: bool,
    ) -> None:
        self._journal, self._clock = journal, clock
        self._bootstrap, self.live, self._seeds = bootstrap, live, seeds
        kept = next((row.value for row in rows if row.kind == KIND), b"\x90")
        self._book = ContactBook.load(kept, Space(bound))
        self._saved = kept

    def told(self, source: str) -> Sequence[tuple[NodeKey, Address]]:
        """``config``: the seeds; ``book``: the best of those who answered before."""
        if source == "config":
            return self._seeds
        return [(c.key, Address(c.relay, (c.address,))) for c in self._book.best(TRIED)]

    async def enter(self, source: str) -> int:
        """Through those of *source*, at the start. Returns how many market nodes we know then."""
        return await self._enter_by(self.told(source), source)

    async def found(self, nodes: Sequence[tuple[NodeKey, Address]], source: str) -> int:
        """*source* (``lan``, ``mainline``, ...) tells of *nodes*, true or not: they are tried now, and again whenever
        we know nobody. Each source has room for so many and pushes out only its own. Returns how many market nodes
        we know then; takes up to 30 s where nobody answers."""
        count = await self._enter_by(nodes, source)
        log.info("contacts.found", source=source, told=len(nodes), known=count)
        await self.remember()
        return count

    async def _enter_by(self, nodes: Sequence[tuple[NodeKey, Address]], source: str) -> int:
        return await self._bootstrap(nodes, source)

    async def remember(self) -> None:
        now = self._clock.now()
        for key, address in self.live():
            for direct in address.direct[:1]:
                self._book.answered(Contact(key, direct, address.relay), now)
        if (blob := self._book.dump()) != self._saved:
            await on_disk(self._journal.write, [Row(KIND, b"", blob)])
            self._saved = blob

    async def keep_up(self) -> None:
        await every(REMEMBER_EVERY, self.remember, "contacts")
