"""The market among our user's own machines: each asks the others what they sell to it, and needs no board for it.

So an offer for one's own machines is shown to nobody else, and the first two machines work before they have found any
market. It also keeps their addresses: whoever moved says so at its first question or answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from dockage.domain.errors import DockageError, PeerError, Unavailable
from dockage.domain.identity import NodeKey, short
from dockage.domain.offer import Offer
from dockage.domain.pricing import Tariff
from dockage.domain.units import Instant, Sat, after
from dockage.ports.machine import Clock, Keys
from dockage.ports.peers import Address, PeerLink, Stream
from dockage.protocol import own as said
from dockage.protocol import streams
from dockage.protocol.own import MarketNode, Told
from dockage.protocol.records import LIFETIME, NodeBody, OfferBody, open_record, seal
from dockage.wire.frames import read_frame, write_frame

from .machines import Machines
from .peers import Opener

log = structlog.get_logger("dockage.machines")

ASK_EVERY = 10.0
"""Seconds; also how long one that did not answer is left alone by whoever searches."""
ANSWER = 3.0
DIRECT_MAX = 8

Known = Callable[[], Sequence[tuple[NodeKey, Address]]]


class Seen(NamedTuple):
    at: Instant
    """When it answered last; 0 = never since our start."""
    linked: bool
    """It says that we are linked."""
    sells: bool


NEVER = Seen(Instant(0), linked=True, sells=False)


class OwnMarket:
    """*offer* is what we sell now, if anything; *market* the nodes of the market that we know."""

    def __init__(
        self,
        machines: Machines,
        link: PeerLink,
        open_stream: Opener,
        keys: Keys,
        clock: Clock,
        offer: Callable[[], Offer | None],
        market: Known,
    ) -> None:
        self._machines, self._link, self._open = machines, link, open_stream
        self._keys, self._clock, self._offer, self._market = keys, clock, offer, market
        self._seen: dict[NodeKey, Seen] = {}
        self._failed: dict[NodeKey, float] = {}
        self._hints: dict[NodeKey, Sequence[MarketNode]] = {}

    def seen(self, key: NodeKey) -> Seen:
        return self._seen.get(key, NEVER)

    def hints(self) -> Sequence[tuple[NodeKey, Address]]:
        """Nodes of the market that our machines know, and the machines themselves."""
        told = [x for nodes in self._hints.values() for x in nodes]
        return [
            *((NodeKey(x.key), Address("", x.direct)) for x in told),
            *((machine.key, machine.address) for machine in self._machines),
        ]

    async def run(self) -> None:
        while True:
            await self._ask_all(list(self._machines.keys))
            await asyncio.sleep(ASK_EVERY)

    async def offers(self) -> Sequence[bytes]:
        """What they sell to us, as sealed records; takes three seconds at most."""
        now = asyncio.get_running_loop().time()
        return await self._ask_all(
            [x for x in self._machines.keys if now - self._failed.get(x, -ASK_EVERY) >= ASK_EVERY]
        )

    async def _ask_all(self, keys: Sequence[NodeKey]) -> Sequence[bytes]:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask(key)) for key in keys]
        return [x for task in asked if (x := task.result()) is not None]

    async def _ask(self, key: NodeKey) -> bytes | None:
        try:
            async with asyncio.timeout(ANSWER):
                return await self._take(key, await self._question(key))
        except (DockageError, TimeoutError) as error:
            self._failed[key] = asyncio.get_running_loop().time()
            log.debug("machine.silent", machine=short(key), why=str(error))
            return None

    async def _question(self, key: NodeKey) -> Told:
        stream = await self._open(key, ANSWER)
        try:
            await write_frame(stream, streams.encode_header(streams.Own()))
            await stream.finish()
            return said.decode(await read_frame(stream, said.TOLD_MAX))
        finally:
            stream.abort()

    async def _take(self, key: NodeKey, told: Told) -> bytes | None:
        """Its record, if it is an offer."""
        self._failed.pop(key, None)
        now = self._clock.now()
        self._seen[key] = Seen(now, told.linked, sells=False)
        if not told.linked:
            return None
        record = open_record(told.record, self._keys.verify, now)
        if record.key != key:
            raise PeerError("own.foreign", "a linked machine showed another's record")
        self._hints[key] = told.market
        await self._machines.moved(key, Address(record.body.relay, record.body.direct))
        sells = isinstance(record.body, OfferBody)
        self._seen[key] = Seen(now, linked=True, sells=sells)
        return told.record if sells else None

    # -- what we answer --------------------------------------------------------------------------------
    async def serve(self, peer: NodeKey, _: streams.Own, stream: Stream) -> None:
        told = (
            Told(linked=True, record=self._record(), market=self._nodes())
            if peer in self._machines
            else Told(False)
        )
        try:
            async with asyncio.timeout(ANSWER):
                await write_frame(stream, said.encode(told))
                await stream.finish()
        except TimeoutError:
            raise Unavailable("peer.slow", f"{short(peer)} does not take our answer") from None

    def _record(self) -> bytes:
        now, address, offer = self._clock.now(), self._link.address(), self._offer()
        until, direct = after(now, LIFETIME), address.direct[:DIRECT_MAX]
        if offer is None:
            return seal("node", self._keys.node, NodeBody(now, until, address.relay, direct), self._keys.sign)
        body = OfferBody(now, until, for_own(offer), address.relay, direct)
        return seal("offer", self._keys.node, body, self._keys.sign)

    def _nodes(self) -> tuple[MarketNode, ...]:
        known = list(self._market())[: said.NODES_MAX]
        return tuple(MarketNode(key, address.direct[:DIRECT_MAX]) for key, address in known)


def for_own(offer: Offer) -> Offer:
    """The same without a price, and without the names of those whom it is otherwise for."""
    return replace(offer, tariff=Tariff(), network="", setup_sat=Sat(0), only_for=(), free_for=())
