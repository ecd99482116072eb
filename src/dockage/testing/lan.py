"""A local network in memory, and the contract that it and multicast DNS both keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from dockage.domain.identity import NodeKey
from dockage.ports.peers import Neighbours
from dockage.protocol.adverts import Advert


class MemoryLan:
    def __init__(self) -> None:
        self.said: dict[NodeKey, Advert] = {}

    def neighbour(self) -> MemoryNeighbours:
        return MemoryNeighbours(self)


class MemoryNeighbours:
    def __init__(self, lan: MemoryLan) -> None:
        self._lan, self._users = lan, 0
        self._mine: Advert | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._withdraw()

    async def announce(self, advert: Advert | None) -> None:
        self._withdraw()
        if advert is not None and advert.direct and self._users:
            self._mine = self._lan.said[advert.key] = advert

    async def heard(self) -> Sequence[Advert]:
        return [x for x in self._lan.said.values() if x is not self._mine] if self._users else []

    def _withdraw(self) -> None:
        if self._mine is not None:
            self._lan.said.pop(self._mine.key, None)
            self._mine = None


ADVERT = Advert(NodeKey(bytes(range(32))), "main", ("127.0.0.1:4711", "[::1]:4712"), True)


class NeighboursContract:
    """Subclass with a fixture ``two``: neighbours on one network."""

    async def test_what_one_says_the_other_hears_until_it_is_taken_back(
        self, two: tuple[Neighbours, Neighbours]
    ) -> None:
        one, other = two
        async with other.use():
            async with one.use():
                await one.announce(ADVERT)
                assert await self._until(other, bool) == [ADVERT]
                assert list(await one.heard()) == []
                changed = ADVERT._replace(pairing="742")
                await one.announce(changed)
                assert await self._until(other, lambda heard: heard != [ADVERT]) == [changed]
            assert await self._until(other, lambda heard: not heard) == []

    async def test_nobody_is_heard_or_says_anything_outside_of_a_use(
        self, two: tuple[Neighbours, Neighbours]
    ) -> None:
        one, other = two
        await one.announce(ADVERT)
        async with other.use():
            await asyncio.sleep(0.3)
            assert list(await other.heard()) == []
        assert list(await other.heard()) == []

    async def _until(self, of: Neighbours, ready: Callable[[list[Advert]], bool]) -> list[Advert]:
        async with asyncio.timeout(5):
            while not ready(heard := list(await of.heard())):  # noqa: ASYNC110 - as our callers do
                await asyncio.sleep(0.05)
        return heard
