"""Asking others where they see us, with a link of our own that notes what it is told to do."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from dockage.daemon.whereabouts import Whereabouts, observation_server
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.units import Duration
from dockage.ports.peers import Address, Stream
from dockage.protocol import streams
from dockage.testing.link import MemoryLink, MemoryNetwork, serving
from dockage.testing.loop import LoopClock
from dockage.wire.frames import read_frame, write_frame

US, A, B = (NodeKey(bytes([n]) * 32) for n in (9, 1, 2))
HOME = "203.0.113.1:4800"


class NattedLink:
    """A link whose peers are seen where the test says."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self.paths: dict[NodeKey, str] = {}
        self.advertised: set[str] = set()
        self.relays: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def seen(self, peer: NodeKey) -> str:
        return self.paths.get(peer, "")

    async def advertise(self, address: str) -> None:
        self.advertised.add(address)

    async def withdraw(self, address: str) -> None:
        self.advertised.discard(address)

    async def use_relay(self, url: str) -> None:
        self.relays.append(url)

    async def leave_relay(self, url: str) -> None:
        self.relays.remove(url)


async def near(_: str) -> Duration:
    return Duration(1_000_000)


async def dead(url: str) -> Duration:
    raise Unavailable("relay.silent", url)


def world() -> tuple[NattedLink, NattedLink, NattedLink]:
    network = MemoryNetwork()
    us, a, b = (NattedLink(network.link(key)) for key in (US, A, B))
    us.paths = {A: "198.51.100.7:4711", B: "198.51.100.8:4711"}
    a.paths = b.paths = {US: HOME}
    return us, a, b


async def ask(us: NattedLink, *observers: NattedLink, probe: Any = near, told: bool = True) -> Whereabouts:
    """Until all have been asked once and relays were looked at."""
    where = Whereabouts(
        us,  # type: ignore[arg-type]
        LoopClock(),
        lambda: [(o.node, o.address()) for o in observers],
        probe,
        (),
        told,
    )
    with suppress(TimeoutError):
        async with asyncio.timeout(1), asyncio.TaskGroup() as tasks:
            tasks.create_task(where.ask_around())
            tasks.create_task(where.watch_relays())
    return where


def answering(link: NattedLink, port: int = 0) -> Any:
    serve = observation_server(link, port)  # type: ignore[arg-type]

    async def accept(peer: NodeKey, stream: Stream) -> None:
        header = streams.decode_header(await read_frame(stream, streams.HEADER_MAX))
        assert isinstance(header, streams.Observe)
        await serve(peer, header, stream)

    return accept


async def test_what_others_see_is_advertised_and_the_relay_that_one_runs_is_used() -> None:
    us, a, b = world()
    async with serving(a, answering(a, 3340)), serving(b, answering(b)):
        await ask(us, a, b)
    assert us.advertised == {HOME}
    assert us.relays == ["http://198.51.100.7:3340/"], "at the address of the one who runs it"


async def test_a_relay_that_does_not_answer_is_not_used() -> None:
    us, a, b = world()
    async with serving(a, answering(a, 3340)), serving(b, answering(b)):
        await ask(us, a, b, probe=dead)
    assert us.relays == []


async def test_who_is_reached_over_a_relay_can_offer_none() -> None:
    us, a, _ = world()
    us.paths = {}
    async with serving(a, answering(a, 3340)):
        await ask(us, a)
    assert us.relays == []


async def test_a_node_that_everybody_reaches_uses_no_relay_that_it_was_told_of() -> None:
    us, a, _ = world()
    async with serving(a, answering(a, 3340)):
        await ask(us, a, told=False)
    assert us.relays == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc0",
        b"\x92\xa1x\xcd\xff\xff\x00",
        b"\x92\xd9\x64" + b"x" * 100 + b"\x00",
        b"\x92\xa1x\x3a\x01",
    ],
)
async def test_an_answer_that_is_none_changes_nothing(answer: bytes) -> None:
    us, a, b = world()

    async def lie(peer: NodeKey, stream: Stream) -> None:
        await read_frame(stream, streams.HEADER_MAX)
        await write_frame(stream, answer)
        await stream.finish()

    async with serving(a, lie), serving(b, answering(b)):
        where = await ask(us, a, b)
    assert us.advertised == {HOME}
    assert set(where.state.sightings) == {B}


async def test_nobody_answers_and_nothing_breaks() -> None:
    us, a, b = world()
    where = await ask(us, a, b)
    assert not where.state.sightings


async def test_behind_seeds_that_are_gone_there_are_others_to_ask() -> None:
    us, a, _ = world()
    gone = [(NodeKey(bytes([n]) * 32), Address("", ())) for n in range(50, 55)]
    us.paths[a.node] = "198.51.100.7:4711"
    known = [*gone, (a.node, a.address()), (US, a.address())]
    where = Whereabouts(us, LoopClock(), lambda: known, near, (), True)  # type: ignore[arg-type]
    assert [len(where._chosen(n)) for n in range(4)] == [3] * 4
    assert {key for n in range(3) for key, _ in where._chosen(n)} == {key for key, _ in known} - {US}
    async with serving(a, answering(a)):
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                await where.ask_around()
    assert us.advertised == {HOME}
