"""KademliaDirectory: the Directory port over a Kademlia of market nodes.

Each node may search and publish; only *servers* (directly reachable) hold records and are contacts of others. The
daemon hands incoming streams of the kind to ``serve_stream`` and keeps ``run`` going. All that is decided is decided in
protocol/dht_node.py; here is only what moves its bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from random import Random
from typing import TypeVar

from dockage.domain.errors import PeerError, Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.domain.query import Excerpt, Query
from dockage.domain.units import SECOND, Instant
from dockage.ports.machine import Clock
from dockage.ports.peers import Address, Stream
from dockage.protocol.dht_node import RANDOM_ORDERS, DhtNode
from dockage.protocol.dht_operations import Puts, Question, Search
from dockage.protocol.dht_survey import Survey
from dockage.protocol.kademlia import Contact, Space
from dockage.protocol.signed import Verify

from .asker import Asker, Learn, OpenStream, Seen, ticks
from .limits import DEFAULT, Limits
from .server import Server

Looked = TypeVar("Looked", Search, Survey)


class KademliaDirectory:
    """*open_stream* has already written the stream's opening frame when it returns. *address* is what our link
    says of itself; *seen* the ``ip:port`` that a connected peer uses ("" if relayed), needed only if *bound*: in
    the public market, where ids come from addresses. *rand* chooses what to refresh."""

    def __init__(
        self,
        *,
        node: NodeKey,
        verify: Verify,
        clock: Clock,
        open_stream: OpenStream,
        learn: Learn,
        address: Callable[[], Address],
        rand: Random,
        server: bool,
        bound: bool = False,
        seen: Seen = lambda _: "",
        limits: Limits = DEFAULT,
    ) -> None:
        self._clock, self._address, self._limits = clock, address, limits
        self._node = DhtNode(node, Space(bound), verify, rand, server=server, upkeep=limits.upkeep)
        self._asker = Asker(self._node, open_stream, learn, seen, limits)
        self._server = Server(self._node, clock, seen, limits)
        self._moved = Instant(-SECOND)
        self._seeds: dict[str, dict[NodeKey, Contact]] = {}
        self._repairs: deque[Question] = deque(maxlen=limits.repairs)
        self._has_repairs = asyncio.Event()

    # -- the port --------------------------------------------------------------------------------------
    async def publish(self, topic: bytes, record: bytes) -> int:
        """Also raises UsageError("record.*") for a record that no node would take."""
        self._move()
        try:
            operation = self._node.publish(topic, record, self._clock.now(), ticks())
        except PeerError as error:
            raise UsageError(error.code, f"cannot publish: {error.message}") from None
        await self._asker.drive(operation)
        taken = len(operation.holders) + (record in self.holds(topic))
        if not taken:
            raise Unavailable(
                "market.unreachable", "no market node took the record; are any seeds configured?"
            )
        return taken

    async def search(self, topic: bytes) -> Sequence[bytes]:
        """At most 4096 records, in order of publisher. Raises Unavailable("market.unreachable")."""
        search = await self._insist(lambda: self._search(topic))
        return search.found.page(topic, b"", frozenset(), self._clock.now(), 1 << 30).records

    async def select(self, topic: bytes, query: Query) -> Excerpt:
        """Raises Unavailable("market.unreachable")."""
        return (await self._insist(lambda: self._survey(topic, query))).excerpt()

    async def _insist(self, look: Callable[[], Awaitable[Looked]]) -> Looked:
        looked = await look()
        if not looked.has_answers and not self._node.is_server:
            # All were given up at once, as after a suspension: the seeds know who is there.
            await self._enter()
            looked = await look()
            if not looked.has_answers:
                raise Unavailable("market.unreachable", "no market node answers; are any seeds configured?")
        return looked

    # -- the daemon's side -----------------------------------------------------------------------------
    async def serve_stream(self, peer: NodeKey, stream: Stream) -> None:
        """One request of *peer* on *stream*, whose opening frame was read already."""
        if self._node.is_server:
            if ticks() - self._moved >= SECOND:  # the link takes a tenth of an answer to say where we are
                self._move()
            await self._server.serve(peer, stream)
        else:
            stream.abort()

    async def bootstrap(self, contacts: Sequence[tuple[NodeKey, Address]], source: str = "config") -> int:
        """Enter the market through any of *contacts*, remembered as seeds of *source*. Returns how many nodes we know
        now; 0 is no error: ``run`` tries again."""
        seeds = self._seeds.setdefault(source, {})
        for key, address in contacts:
            contact = self._contact(key, address)
            if contact is not None and key != self._node.key:
                seeds.pop(key, None)
                seeds[key] = contact
                if len(seeds) > self._limits.seeds:
                    del seeds[next(iter(seeds))]
        await self._enter(seeds.values())
        return len(self._node.table)

    async def run(self) -> None:
        """Forget what is over, keep the table fresh, tell newcomers and mend holders, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mend())
            while True:
                await asyncio.sleep(self._limits.upkeep_sec)
                await self._upkeep()

    def contacts(self) -> list[tuple[NodeKey, Address]]:
        """Live market nodes, to be kept as seeds for the next start."""
        return [(c.key, Address(c.relay, (c.address,))) for c in self._node.table.all()]

    def holds(self, topic: bytes) -> Sequence[bytes]:
        """The records under *topic* in our own store: for status and tests."""
        return self._node.store.page(topic, b"", frozenset(), self._clock.now(), 1 << 30).records

    @property
    def refused(self) -> Counter[str]:
        """What peers sent that was not taken, by error code."""
        return self._node.refused

    # -- ourselves -------------------------------------------------------------------------------------
    def _contact(self, key: NodeKey, address: Address) -> Contact | None:
        made = (Contact(key, direct, address.relay) for direct in address.direct)
        return next((contact for contact in made if self._node.space.admits(contact)), None)

    def _move(self) -> None:
        self._moved = ticks()
        self._node.move(self._contact(self._node.key, self._address()))

    async def _enter(self, seeds: Iterable[Contact] | None = None) -> None:
        """Through *seeds*, or all that we were ever told of."""
        self._move()
        told = seeds if seeds is not None else chain.from_iterable(x.values() for x in self._seeds.values())
        await self._asker.drive(self._node.enter(told, ticks()))
        if len(self._node.table):
            async with asyncio.TaskGroup() as tasks:
                for order in RANDOM_ORDERS[-2:]:
                    tasks.create_task(self._refresh(order))

    async def _refresh(self, order: int) -> None:
        walk = self._node.refresh(order, ticks())
        await self._asker.drive(walk)
        self._node.refreshed(order, walk, ticks())

    async def _survey(self, topic: bytes, query: Query) -> Survey:
        survey = self._node.survey(topic, query, self._clock.now(), ticks())
        await self._asker.drive(survey)
        return survey

    async def _search(self, topic: bytes) -> Search:
        search = self._node.search(topic, self._clock.now(), ticks())
        await self._asker.drive(search)
        if repairs := search.repairs():
            self._repairs.extend(repairs)
            self._has_repairs.set()
        return search

    async def _upkeep(self) -> None:
        """One bucket at a time: nobody notices a refresh."""
        self._move()
        self._node.store.expire(self._clock.now())
        if not len(self._node.table):
            await self._enter()
        elif (order := self._node.due(ticks())) is not None:
            await self._refresh(order)
        if (puts := self._node.hand_over(self._clock.now())) is not None:
            await self._asker.drive(puts)

    async def _mend(self) -> None:
        """Holders that did not show what they should hold: after the searcher has its answer."""
        while True:
            await self._has_repairs.wait()
            self._has_repairs.clear()
            puts = list(self._repairs)
            self._repairs.clear()
            await self._asker.drive(Puts(puts))
