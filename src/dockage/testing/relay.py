"""A relay in memory with its toll, the links of those who use it, and the contract that it and the real one both keep.

Traffic is what a test says passes; both sides count it as the real ones do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import INGRESS
from dockage.domain.units import MILLISECOND, Duration
from dockage.wire.tolls import TollHost


class RelayedLink:
    """A NatLink around another link: what was sent and came through a relay is what the relay in memory says."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.relays: list[str] = []
        self.through: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def advertise(self, address: str) -> None: ...

    async def withdraw(self, address: str) -> None: ...

    async def use_relay(self, url: str) -> None:
        self.relays.append(url)

    async def leave_relay(self, url: str) -> None:
        self.relays.remove(url)

    def relayed(self, url: str) -> tuple[int, int]:
        sent, received = self.through.setdefault(url, [0, 0])
        return sent, received


class MemoryRelay:
    def __init__(self, url: str, tolls: TollHost | None = None) -> None:
        self.url, self.tolls = url, tolls
        self.links: dict[NodeKey, RelayedLink] = {}
        self.is_up, self.drops = True, False
        """*drops*: it takes what it is given, and bills it."""

    async def probe(self, key: NodeKey) -> Duration:
        if not self.is_up:
            raise Unavailable("relay.silent", "the relay does not answer")
        if self.tolls is not None and self.tolls.objection(key):
            raise Unavailable("relay.unpaid", self.tolls.objection(key))
        return MILLISECOND

    def carry(self, sender: NodeKey, to: NodeKey, size: int) -> bool:
        """Whether it arrives."""
        self._count(sender, 0, size)
        count = self.tolls.charge(sender, to) if self.tolls else len
        if not self.is_up or count is None:
            return False
        if self.tolls:
            count(size)  # type: ignore[arg-type]
        if not self.drops:
            self._count(to, 1, size)
        return not self.drops

    def _count(self, key: NodeKey, way: int, size: int) -> None:
        link = self.links.get(key)
        if link is not None:
            link.through.setdefault(self.url, [0, 0])[way] += size


class Stage(NamedTuple):
    tolls: TollHost
    """Of a relay that three clients have entered."""
    keys: tuple[NodeKey, NodeKey, NodeKey]
    carry: Callable[[int, int, int], Awaitable[bool]]
    """From the first client to the second, by number, a datagram of so many bytes; whether it came."""
    told: Callable[[int], Awaitable[str]]
    """What that client hears when it asks whether anything is passed on for it; "" if it is."""


class RelayContract:
    """What every relay that is paid keeps."""

    @pytest.fixture
    def stage(self) -> Stage:
        raise NotImplementedError

    async def lease(self, stage: Stage, number: int, client: int) -> LeaseId:
        lease = LeaseId(bytes([number]) * 16)
        self.of = {**getattr(self, "of", {}), lease: stage.keys[client]}
        stage.tolls.connect(self.of.get)
        await stage.tolls.prepare(lease, INGRESS)
        return lease

    async def test_without_a_lease_nothing_passes_and_the_client_is_told(self, stage: Stage) -> None:
        assert not await stage.carry(0, 1, 100)
        assert "no lease" in await stage.told(0)

    async def test_who_has_a_lease_is_reached_by_all_and_reaches_all(self, stage: Stage) -> None:
        lease = await self.lease(stage, 1, 0)
        assert await stage.told(0) == ""
        assert await stage.carry(1, 0, 100)
        assert await stage.carry(0, 1, 30)
        assert await stage.carry(2, 0, 5)
        assert not await stage.carry(1, 2, 100), "another's lease is of no use to two strangers"
        assert stage.tolls.count(lease) == (30, 105)
        reading = await stage.tolls.read(lease)
        assert (reading.tunnel_in_bytes, reading.tunnel_out_bytes) == (30, 105)

    async def test_between_two_leases_each_byte_is_one_s(self, stage: Stage) -> None:
        one, two = await self.lease(stage, 1, 0), await self.lease(stage, 2, 1)
        assert await stage.carry(0, 1, 100)
        assert await stage.carry(1, 0, 30)
        assert await stage.carry(1, 2, 7)
        assert stage.tolls.count(one) == (0, 30)
        assert stage.tolls.count(two) == (7, 100)

    async def test_two_leases_of_one_key_are_not_both_charged(self, stage: Stage) -> None:
        one, two = await self.lease(stage, 1, 0), await self.lease(stage, 2, 0)
        assert await stage.carry(1, 0, 100)
        assert [stage.tolls.count(x) for x in (one, two)] == [(0, 100), (0, 0)]
        await stage.tolls.teardown(one)
        assert await stage.carry(1, 0, 100)
        assert stage.tolls.count(two) == (0, 100)

    async def test_a_frozen_lease_passes_nothing_until_it_is_thawed(self, stage: Stage) -> None:
        lease = await self.lease(stage, 1, 0)
        assert await stage.carry(1, 0, 100)
        for _ in range(2):
            await stage.tolls.pause(lease)
            assert not await stage.carry(1, 0, 100)
            assert not await stage.carry(0, 1, 100)
            assert "frozen" in await stage.told(0)
        await stage.tolls.thaw(lease)
        assert await stage.carry(1, 0, 10)
        assert stage.tolls.count(lease) == (0, 110)

    async def test_an_ended_lease_passes_nothing_more(self, stage: Stage) -> None:
        lease = await self.lease(stage, 1, 0)
        assert await stage.carry(1, 0, 100)
        for _ in range(2):
            await stage.tolls.teardown(lease)
            assert not await stage.carry(1, 0, 100)
        assert "no lease" in await stage.told(0)
        assert await stage.tolls.present() == frozenset()
