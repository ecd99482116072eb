"""What this node says on the local network, and what it makes of what it hears there.

By itself it says and hears nothing: only where our user wants it (``node.lan``), or for as long as a code is shown or
typed (``linking.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from dockage.domain.errors import Unavailable, UsageError
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address, Neighbours, PeerLink
from dockage.protocol.adverts import Advert

from .machines import Machines

log = structlog.get_logger("dockage.lan")

EVERY = 10.0
"""Seconds between two looks at who is there and where we are."""
LOOK = 0.25


class Presence:
    """*always*: also while nobody is being linked; *neighbours* makes the port, None where the extra is missing."""

    def __init__(
        self,
        neighbours: Callable[[], Neighbours] | None,
        link: PeerLink,
        machines: Machines,
        *,
        network: str,
        market: bool,
        always: bool,
    ) -> None:
        self._make, self._link, self._machines = neighbours, link, machines
        self._made: Neighbours | None = None
        self._network, self._market, self._always = network, market, always
        self._pairing = ""

    @property
    def is_possible(self) -> bool:
        return self._make is not None

    async def run(self) -> None:
        if not self._always:
            return
        complained = False
        while True:
            try:
                async with self._needed().use():
                    while True:
                        await self._announce()
                        await self._learn()
                        complained = False
                        await asyncio.sleep(EVERY)
            except Unavailable as error:
                (log.debug if complained else log.warning)("lan.failed", code=error.code, why=error.message)
                complained = True
            await asyncio.sleep(EVERY)

    @asynccontextmanager
    async def showing(self, number: str) -> AsyncIterator[None]:
        """Anybody on the network sees that a code with this number is shown here."""
        async with self._needed().use():
            self._pairing = number
            try:
                await self._announce()
                yield
            finally:
                self._pairing = ""
                await self._announce()

    async def look(self, fits: Callable[[Advert], bool], within: float) -> Sequence[Advert]:
        """Those of our market who are heard within *within* seconds, as soon as there are any that fit."""
        neighbours, found = self._needed(), list[Advert]()
        async with neighbours.use():
            try:
                async with asyncio.timeout(within):
                    while not found:
                        await asyncio.sleep(LOOK)
                        found = [x for x in await self._others() if fits(x)]
                    await asyncio.sleep(2 * LOOK)  # whoever else says the same is heard as well
                    return [x for x in await self._others() if fits(x)] or found
            except TimeoutError:
                return found

    async def market_nodes(self, within: float) -> Sequence[tuple[NodeKey, Address]]:
        heard = await self.look(lambda advert: advert.market, within)
        return [(advert.key, Address("", advert.direct)) for advert in heard]

    # -- inside ----------------------------------------------------------------------------------------
    def _needed(self) -> Neighbours:
        if self._make is None:
            raise lan_missing()
        if self._made is None:
            self._made = self._make()
        return self._made

    async def _others(self) -> Sequence[Advert]:
        heard = await self._needed().heard()
        return [x for x in heard if x.network == self._network and x.key != self._link.node]

    async def _announce(self) -> None:
        """With neither reason to say anything, nothing is said."""
        mine: Advert | None = None
        if self._always or self._pairing:
            direct, market = self._link.address().direct, self._market and self._always
            mine = Advert(self._link.node, self._network, direct, market, self._pairing)
        await self._needed().announce(mine)

    async def _learn(self) -> None:
        """Where our own machines are now; a false address costs a dial, the handshake proves the key."""
        for advert in await self._others():
            if advert.key in self._machines and advert.direct:
                self._link.learn(advert.key, Address("", advert.direct))


def lan_missing() -> UsageError:
    return UsageError(
        "lan.missing",
        "the local network is looked at by the extra `lan`, which is not installed: pip install 'dockage[lan]'",
    )
