"""In which order a node looks for the market, how much of it, and what it says when there is nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from dockage.daemon.contacts import Contacts
from dockage.daemon.entrance import AGAIN, HINTS_MAX, Entrance, Way
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.testing.clock import ManualClock
from dockage.testing.journal import MemoryJournal
from dockage.testing.keys import MemoryKeys

Nodes = Sequence[tuple[NodeKey, Address]]


def node(number: int) -> tuple[NodeKey, Address]:
    return MemoryKeys(number).node, Address("", (f"127.0.0.1:{3000 + number}",))


class Board:
    """Which nodes live, and in which order they were tried."""

    def __init__(self, *live: int) -> None:
        self.living = {node(number)[0] for number in live}
        self.met: dict[NodeKey, Address] = {}
        self.tried: list[tuple[str, int]] = []

    async def bootstrap(self, nodes: Nodes, source: str) -> int:
        self.tried.append((source, len(nodes)))
        await asyncio.sleep(2)
        self.met |= {key: address for key, address in nodes if key in self.living}
        return len(self.met)

    def contacts(self) -> Nodes:
        return list(self.met.items())


def entrance(
    board: Board, *ways: Way, seeds: Nodes = (), is_market: bool = False
) -> tuple[Entrance, asyncio.Event]:
    entered = asyncio.Event()
    contacts = Contacts(
        [], MemoryJournal(), ManualClock(), board.bootstrap, board.contacts, seeds, bound=False
    )
    return Entrance(contacts, ways, entered, is_market=is_market), entered


def way(name: str, *numbers: int, after: float = 0, limit: float = 10, fails: bool = False) -> Way:
    async def find() -> Nodes:
        await asyncio.sleep(after)
        if fails:
            raise Unavailable("lan.silent", "no network")
        return [node(number) for number in numbers]

    return Way(name, find, limit)


async def look(one: Entrance, seconds: float, until: Callable[[], Any] = lambda: False) -> None:
    running = asyncio.get_running_loop().create_task(one.run())
    try:
        for _ in range(int(seconds * 4)):
            if until():
                return
            await asyncio.sleep(0.25)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_seed_that_answers_is_enough_and_nobody_else_is_asked() -> None:
    board = Board(1)
    one, entered = entrance(board, way("lan", 2), way("mainline", 3), seeds=[node(1)])
    await look(one, 30)
    assert entered.is_set()
    assert board.tried == [("config", 1)]
    assert (one.found_by, one.nodes, one.why()) == ("config", 1, "")


async def test_the_ways_follow_each_other_until_somebody_answers() -> None:
    board = Board(3)
    one, _ = entrance(
        board, way("machines", 5), way("lan", 2), way("mainline", 3, 4), way("never", 9), seeds=[node(1)]
    )
    await look(one, 30)
    assert [source for source, _ in board.tried] == ["config", "machines", "lan", "mainline"]
    assert one.found_by == "mainline"


async def test_a_way_that_fails_or_takes_too_long_does_not_stop_the_next() -> None:
    board = Board(3)
    one, _ = entrance(
        board, way("machines", fails=True), way("lan", 2, after=100, limit=5), way("mainline", 3)
    )
    await look(one, 30)
    assert board.tried == [("mainline", 1)]
    assert one.found_by == "mainline"


async def test_a_flood_of_hints_is_cut() -> None:
    board = Board()
    one, _ = entrance(board, way("lan", *range(100, 400)))
    await look(one, 5)
    assert board.tried == [("lan", HINTS_MAX)]


async def test_with_nobody_it_says_whom_it_asked_and_what_to_do_and_tries_again() -> None:
    board = Board()
    one, entered = entrance(board, way("lan"), seeds=[node(1), node(2)])
    await look(one, 30)
    assert entered.is_set(), "whoever waits for the market must not wait for ever"
    why = one.why()
    assert "asked without an answer: seeds (2)" in why
    assert "Nobody was found by the local network" in why
    assert "--seed KEY@ip:port" in why
    assert "dockage link" in why
    board.living.add(node(7)[0])
    one._ways = [way("lan", 7)]
    await look(one, 3 * AGAIN, lambda: one.nodes)
    assert one.found_by == "lan"
    assert one.why() == ""


async def test_the_first_market_node_of_all_is_not_told_that_it_is_alone() -> None:
    one, entered = entrance(Board(), is_market=True)
    await look(one, 30)
    assert entered.is_set()
    assert one.why() == ""


async def test_a_book_full_of_liars_does_not_keep_us_from_the_seeds() -> None:
    board = Board(1, 50)
    contacts = Contacts(
        [], MemoryJournal(), ManualClock(), board.bootstrap, board.contacts, [node(1)], bound=False
    )
    board.met = dict([node(50)])
    await contacts.remember()
    one = Entrance(contacts, (), asyncio.Event(), is_market=False)
    await look(one, 30)
    assert [source for source, _ in board.tried] == ["book", "config"]
    assert node(1)[0] in board.met
