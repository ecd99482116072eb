"""What is changed where it is may first finish what it has begun, and not for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dockage.daemon.updating import DRAIN_MAX, Updating
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.spread import Place
from dockage.domain.units import Msat
from dockage.node import controller as acting
from dockage.node import controller_words as say
from dockage.node.kept import Controller, Goal
from dockage.node.signs import is_busy
from dockage.testing.loop import LoopClock

LEASE, GATEWAY = LeaseId(b"l" * 16), NodeKey(b"g" * 32)


class Keeping:
    """A controller with one replica, of which one gateway gives its word."""

    def __init__(self) -> None:
        self.clock, self.state = LoopClock(), Controller(NodeKey(b"m" * 32))
        place = Place(NodeKey(b"p" * 32))
        self.hear(say.Wanted("web", Goal(recipe="r", ready=True), LEASE, place, Msat(1)))

    def hear(self, event: Any) -> None:
        self.state, _ = acting.step(self.state, event, self.clock.now())

    def saw(self, in_flight: int) -> None:
        self.hear(say.GatewaySaw(LEASE, GATEWAY, 0, in_flight))

    def is_busy(self, lease: LeaseId) -> bool:
        return is_busy(self.state.deployments["web"].replicas[lease].signs, self.clock.now())

    async def seconds(self, count: int, in_flight: int) -> None:
        for _ in range(count):
            self.saw(in_flight)
            await asyncio.sleep(1)


async def drains(*busy: int) -> float:
    """How long it takes where each of *busy* is what the gateway waits for, a second long; the last one for ever."""
    keeping, loop = Keeping(), asyncio.get_running_loop()
    updating: Any = Updating(SimpleNamespace(is_busy=keeping.is_busy))  # type: ignore[arg-type]
    begun = loop.time()
    draining = asyncio.create_task(updating.drained(LEASE))
    for each in busy:
        await keeping.seconds(1, each)
    while not draining.done():
        await keeping.seconds(1, busy[-1])
    return loop.time() - begun


async def test_it_waits_for_what_gateways_wait_for_there() -> None:
    assert await drains(0) <= 3
    assert 9 <= await drains(*[2] * 9, 0) <= 12


async def test_a_connection_without_an_end_is_cut_before_those_that_are_held() -> None:
    assert DRAIN_MAX <= await drains(1) <= DRAIN_MAX + 3 < 30


@pytest.mark.parametrize("shared", [False, True])
async def test_what_was_kept_for_a_change_only_is_let_go_after_it_unless_a_deputy_asks_for_it(
    shared: bool,
) -> None:
    keeping = Keeping()

    async def tell(event: Any) -> None:
        keeping.hear(event)

    updating = Updating(SimpleNamespace(state=keeping.state, tell=tell))  # type: ignore[arg-type]
    updating._borrowed.add("web")
    keeping.hear(say.Shared("web", shared=shared))
    updating._keeping.state = keeping.state  # type: ignore[misc]
    await updating.let_go()
    assert ("web" in keeping.state.deployments) is shared
    assert not updating._borrowed
