"""Our questions to market nodes: one stream each, and operations driven to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from dockage.domain.errors import PeerError, Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant
from dockage.ports.peers import Address, Stream
from dockage.protocol.dht_messages import ANSWER_MAX, Answer, Request, decode_answer, encode
from dockage.protocol.dht_node import DhtNode
from dockage.protocol.dht_operations import Operation, Question
from dockage.protocol.kademlia import SOFT
from dockage.wire.ahead import Ahead
from dockage.wire.frames import read_frame, write_frame

from .limits import Limits

OpenStream = Callable[[NodeKey], Awaitable[Stream]]
Learn = Callable[[NodeKey, Address], None]
Seen = Callable[[NodeKey], str]


def ticks() -> Instant:
    """The loop's steady clock in ns: for silences, never for expiry."""
    return Instant(int(asyncio.get_running_loop().time() * SECOND))


class Asker:
    def __init__(
        self, node: DhtNode, open_stream: OpenStream, learn: Learn, seen: Seen, limits: Limits
    ) -> None:
        self._node, self._limits = node, limits
        self._open_stream, self._learn, self._seen = open_stream, learn, seen
        self._room = asyncio.Semaphore(limits.questions)

    async def drive(self, operation: Operation) -> None:
        """Run *operation* to its end, for at most ``limits.lookup_sec``. Peers that have not answered then are let
        go: a lookup is done without the slow ones."""
        changed = asyncio.Event()

        waiting: dict[Question, Instant] = {}

        async def ask(question: Question) -> None:
            waiting[question] = ticks()
            answer = await self._ask(question)
            del waiting[question]
            if answer is None:
                operation.failed(question, ticks())
            else:
                operation.answered(question, answer, ticks())
            changed.set()

        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.lookup_sec), asyncio.TaskGroup() as tasks:
                asking: set[asyncio.Task[None]] = set()
                while True:
                    asking |= {tasks.create_task(ask(question)) for question in operation.next(ticks())}
                    if operation.is_done(ticks()):
                        break
                    changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(SOFT / SECOND / 2):
                            await changed.wait()
                    asking = {task for task in asking if not task.done()}
                for task in asking:
                    task.cancel()
                for question, since in waiting.items():
                    if ticks() - since >= SOFT:
                        self._node.unheard(question)

    async def _ask(self, question: Question) -> Answer | None:
        """None: no answer, or a wrong one; the contact is then avoided for a while."""
        contact = self._node.table.find(question.contact.key) or question.contact  # experience beats hearsay
        question = question._replace(contact=contact)
        self._learn(contact.key, Address(contact.relay, (contact.address,)))
        async with self._room:
            try:
                async with asyncio.timeout(self._limits.question_sec):
                    answer = await self._exchange(contact.key, question.request)
            except PeerError as error:
                self._node.blame(contact.key, error.code, ticks())
                return None
            except (Unavailable, TimeoutError):
                self._node.silent(question, ticks())
                return None
        return answer if self._node.took(question, answer, self._seen(contact.key), ticks()) else None

    async def _exchange(self, peer: NodeKey, request: Request) -> Answer:
        stream = await self._open_stream(peer)
        try:
            await write_frame(stream, encode(request))
            await stream.finish()
            return decode_answer(await read_frame(Ahead(stream), ANSWER_MAX))
        finally:
            stream.abort()
