"""Asks others where they see us, watches relays, and does what ``node/whereabouts.py`` makes of it.

The other half is ``serve``: what we tell those who ask. Whoever is asked is a market node that our user named or the
market led to; nobody else is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from dockage.domain.errors import DockageError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.domain.reason import Reason
from dockage.domain.units import Duration
from dockage.node import whereabouts as mind
from dockage.ports.machine import Clock
from dockage.ports.peers import Address, NatLink, Stream
from dockage.protocol import streams
from dockage.wire.frames import read_frame, write_frame

log = structlog.get_logger("dockage.whereabouts")

ASKED = 3
"""Observers of a round: enough to tell a symmetric NAT, or a liar, from an ordinary NAT."""
ASK_EVERY = 20.0
ASK_AGAIN = 2.0
"""While nobody answers."""
ASK_SEC = 5.0
LOOK_EVERY = 0.2

Observers = Callable[[], Sequence[tuple[NodeKey, Address]]]
Probe = Callable[[str], Awaitable[Duration]]
"""How far a relay is. Raises Unavailable within a second."""


class Whereabouts:
    def __init__(
        self,
        link: NatLink,
        clock: Clock,
        observers: Observers,
        probe: Probe,
        relays: Sequence[str],
        told: bool,
    ) -> None:
        """*relays* are those that our user named; *told*: whether, without any, those of observers are used."""
        self._link, self._clock, self._observers, self._probe = link, clock, observers, probe
        self.state = mind.begin(tuple(relays), told)
        self.silences: dict[str, Reason] = {}
        """Why a relay is not used, by its URL."""

    async def ask_around(self) -> None:
        """Until cancelled."""
        silent = 0
        while True:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(self._ask(*each)) for each in self._chosen(silent)]
            silent = 0 if any(task.result() for task in asked) else silent + 1
            await asyncio.sleep(ASK_AGAIN if silent else ASK_EVERY)

    def _chosen(self, silent: int) -> Sequence[tuple[NodeKey, Address]]:
        """The first ones; after *silent* rounds without an answer the next ones, in a circle."""
        known = dict(reversed(self._observers()))
        known.pop(self._link.node, None)
        circle = list(reversed(known.items()))
        start = silent * ASKED % max(1, len(circle))
        return [*circle[start:], *circle[:start]][:ASKED]

    async def watch_relays(self) -> None:
        """Until cancelled."""
        while True:
            async with asyncio.TaskGroup() as tasks:
                for url in mind.due(self.state, self._clock.now()):
                    tasks.create_task(self._look_at(url))
            await asyncio.sleep(LOOK_EVERY)

    async def _ask(self, key: NodeKey, address: Address) -> bool:
        """Whether it answered."""
        self._link.learn(key, address)
        try:
            async with asyncio.timeout(ASK_SEC):
                stream = await self._link.open(key, ASK_SEC)
                try:
                    await write_frame(stream, streams.encode_header(streams.Observe()))
                    answer = streams.decode_observed(await read_frame(stream, streams.OBSERVED_MAX))
                finally:
                    stream.abort()
        except (DockageError, TimeoutError) as error:
            log.debug("whereabouts.unanswered", peer=short(key), why=str(error))
            return False
        await self.tell(mind.Observed(key, answer.address, self.relay_at(key, answer.relay_port)))
        return True

    def relay_at(self, key: NodeKey, port: int) -> str:
        """A relay is taken to be where its node is: nobody can send us to a third party's machine."""
        seen = self._link.seen(key)
        return f"http://{seen.rpartition(':')[0]}:{port}/" if seen and port else ""

    async def _look_at(self, url: str) -> None:
        try:
            distance: Duration | None = await self._probe(url)
            self.silences.pop(url, None)
        except Unavailable as error:
            distance = None
            self.silences[url] = Reason(error.code, error.message)
        self.silences = {at: why for at, why in self.silences.items() if at in self.state.relays}
        await self.tell(mind.Probed(url, distance))

    async def tell(self, event: mind.Event) -> None:
        self.state, effects = mind.step(self.state, event, self._clock.now())
        for effect in effects:
            try:
                await self._perform(effect)
            except Unavailable as error:
                log.warning("whereabouts.failed", code=error.code, why=error.message)

    async def _perform(self, effect: mind.Effect) -> None:
        match effect:
            case mind.Advertise(address):
                log.info("whereabouts.seen-as", address=address)
                await self._link.advertise(address)
            case mind.Withdraw(address):
                await self._link.withdraw(address)
            case mind.UseRelay(url):
                log.info("whereabouts.relay", url=url)
                await self._link.use_relay(url)
            case mind.LeaveRelay(url):
                await self._link.leave_relay(url)


def observation_server(
    link: NatLink, relay_port: int
) -> Callable[[NodeKey, streams.Observe, Stream], Awaitable[None]]:
    """Tells a peer the address that we see it at, and the port of the relay that we run, or 0."""

    async def serve(peer: NodeKey, _: streams.Observe, stream: Stream) -> None:
        answer = streams.Observed(link.seen(peer), relay_port)
        await write_frame(stream, streams.encode_observed(answer))
        await stream.finish()

    return serve
