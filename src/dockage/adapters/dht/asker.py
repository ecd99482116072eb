"""Our questions to market nodes: one stream each, and what their answers do to the routing table."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant
from dockage.ports import Address, Stream
from dockage.protocol.dht_messages import ANSWER_MAX, Answer, Listing, Request, Taken, decode_answer, encode
from dockage.protocol.kademlia import SOFT, Contact, Lookup, RoutingTable, Space
from dockage.wire.frames import read_frame, write_frame

from .limits import Limits

OpenStream = Callable[[NodeKey], Awaitable[Stream]]
Learn = Callable[[NodeKey, Address], None]
Seen = Callable[[NodeKey], str]
A = TypeVar("A", Listing, Taken)


def ticks() -> Instant:
    """The loop's steady clock in ns: for silences, never for expiry."""
    return Instant(int(asyncio.get_running_loop().time() * SECOND))


class Asker:
    def __init__(
        self,
        table: RoutingTable,
        space: Space,
        open_stream: OpenStream,
        learn: Learn,
        seen: Seen,
        limits: Limits,
    ) -> None:
        self._table, self._space, self._limits = table, space, limits
        self._open_stream, self._learn, self._seen = open_stream, learn, seen
        self._room = asyncio.Semaphore(limits.questions)
        self.refused: Counter[str] = Counter()
        """What peers did wrong, by code."""

    async def ask(self, contact: Contact, request: Request, expected: type[A]) -> A | None:
        """None: no answer, or a wrong one; the contact is then avoided for a while."""
        contact = self._table.find(contact.key) or contact  # our own experience beats hearsay
        self._learn(contact.key, Address(contact.relay, (contact.address,)))
        async with self._room:
            try:
                async with asyncio.timeout(self._limits.question_sec):
                    answer = await self._exchange(contact.key, request)
                self._check(contact, answer, expected)
            except PeerError as error:
                self.blame(contact.key, error.code)
                return None
            except (Unavailable, TimeoutError):
                self._table.failed(contact.key, ticks())
                return None
        self._table.add(contact)
        return answer if isinstance(answer, expected) else None

    def blame(self, key: NodeKey, code: str) -> None:
        self.refused[code] += 1
        self._table.failed(key, ticks())

    def avoids(self, key: NodeKey) -> bool:
        return self._table.is_dead(key, ticks())

    async def _exchange(self, peer: NodeKey, request: Request) -> Answer:
        stream = await self._open_stream(peer)
        try:
            await write_frame(stream, encode(request))
            await stream.finish()
            return decode_answer(await read_frame(stream, ANSWER_MAX))
        finally:
            stream.abort()

    def _check(self, contact: Contact, answer: Answer, expected: type[A]) -> None:
        if not isinstance(answer, expected):
            raise PeerError(
                "dht.out-of-turn", f"a {type(answer).__name__} where a {expected.__name__} was due"
            )
        if not self._space.confirms(contact, self._seen(contact.key)):
            raise PeerError("dht.address", "a market node whose address is not the one its id comes from")


async def drive(
    lookup: Lookup,
    ask: Callable[[Contact], Awaitable[Listing | None]],
    rest: Callable[[Contact, Listing], Awaitable[None]] | None = None,
) -> None:
    """Run *lookup* to its end. *rest* goes on with a peer after its first answer and is waited for; peers that
    have not answered at all when the lookup is done are let go."""
    changed = asyncio.Event()
    asking: dict[NodeKey, asyncio.Task[None]] = {}

    async def question(contact: Contact) -> None:
        answer = await ask(contact)
        asking.pop(contact.key, None)
        changed.set()
        if answer is None:
            return lookup.failed(contact.key)
        lookup.answered(contact.key, answer.contacts)
        if rest is not None:
            await rest(contact, answer)

    async with asyncio.TaskGroup() as tasks:
        while True:
            now = ticks()
            for contact in lookup.next(now):
                asking[contact.key] = tasks.create_task(question(contact))
            if lookup.is_done(now):
                break
            changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(SOFT / SECOND / 2):
                    await changed.wait()
        for task in asking.values():
            task.cancel()


async def together(work: Sequence[Awaitable[None]], limit: float) -> None:
    """All of *work* at once, for at most *limit* seconds: what is not done then is dropped."""

    async def run(one: Awaitable[None]) -> None:
        await one

    with suppress(TimeoutError):
        async with asyncio.timeout(limit), asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(run(one))
