"""Market nodes found through a BitTorrent DHT on loopback: real libtorrent nodes, and liars among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from dockage.adapters.mainline import MainlineSquare
from dockage.adapters.mainline.introductions import Responder, ask
from dockage.adapters.mainline.session import PEERS_MAX, dht_session
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.protocol import whois
from dockage.protocol.whois import Introduction
from dockage.testing.keys import MemoryKeys

HOST, NETWORK = "127.0.0.1", "test"
TOPIC = whois.topic(NETWORK)
ME, OTHER = MemoryKeys(1).node, MemoryKeys(2).node


@asynccontextmanager
async def mainline(size: int = 3) -> AsyncIterator[str]:
    """Where it is entered."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(dht_session(HOST, ["127.0.0.1:1"], read_only=False))
        nodes = [f"{HOST}:{first._session.listen_port()}"]
        others = [
            await stack.enter_async_context(dht_session(HOST, nodes, read_only=False))
            for _ in range(size - 1)
        ]
        async with asyncio.timeout(20):
            while not all(other.has_entered() for other in others):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # the session says it in no other way
        yield nodes[0]


def square(entry: str, key: NodeKey, port: int = 4711) -> MainlineSquare:
    return MainlineSquare(NETWORK, [entry], key, lambda: port, HOST, 0, announce_every=1.0)


@asynccontextmanager
async def standing(*squares: MainlineSquare) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one.stand()) for one in squares]
        yield
        for task in running:
            task.cancel()


async def test_who_stands_there_is_found_with_key_and_address() -> None:
    async with mainline() as entry:
        async with standing(square(entry, ME, 4711), square(entry, OTHER, 4712)):
            found: dict[NodeKey, Address] = {}
            async with asyncio.timeout(30):
                while len(found) < 2:
                    found = dict(await square(entry, MemoryKeys(3).node).find(10))
        assert found == {
            ME: Address("", (f"{HOST}:4711",)),
            OTHER: Address("", (f"{HOST}:4712",)),
        }


async def test_where_nobody_has_announced_himself_the_search_ends_in_time() -> None:
    async with mainline(2) as entry:
        async with asyncio.timeout(8):
            assert list(await square(entry, ME).find(1.0)) == []


# -- who are you? ----------------------------------------------------------------------------------------
@asynccontextmanager
async def answering(make: Callable[[], asyncio.DatagramProtocol]) -> AsyncIterator[tuple[str, int]]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(make, local_addr=(HOST, 0))
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()


class Liar(asyncio.DatagramProtocol):
    """Answers every question with *lie*, made from the question's nonce."""

    def __init__(self, lie: Callable[[bytes], bytes]) -> None:
        self._lie = lie

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        with suppress(ValueError):
            self._transport.sendto(self._lie(data[8:24]), addr)


LIES: dict[str, Callable[[bytes], bytes]] = {
    "of another question": lambda nonce: whois.answer(TOPIC, bytes(16), Introduction(ME, 4711)),
    "of another market": lambda nonce: whois.answer(whois.topic("other"), nonce, Introduction(ME, 4711)),
    "no port": lambda nonce: whois.answer(TOPIC, nonce, Introduction(ME, 0)),
    "too long": lambda nonce: whois.answer(TOPIC, nonce, Introduction(ME, 4711)) + b"x",
    "huge": lambda nonce: b"x" * 60_000,
    "empty": lambda nonce: b"",
}


async def test_no_lie_is_an_answer_and_an_honest_one_is_heard_beside_them() -> None:
    async with AsyncExitStack() as stack:
        asked = [
            await stack.enter_async_context(answering(lambda lie=lie: Liar(lie)))  # type: ignore[misc]
            for lie in LIES.values()
        ]
        asked.append(await stack.enter_async_context(answering(lambda: Responder(TOPIC, lambda: None))))
        honest = Responder(TOPIC, lambda: Introduction(OTHER, 4712))
        asked.append(await stack.enter_async_context(answering(lambda: honest)))
        found = await ask(HOST, TOPIC, asked, patience=0.3)
    assert dict(found) == {OTHER: Address("", (f"{HOST}:4712",))}


async def test_a_flood_of_questions_gets_a_bounded_number_of_answers() -> None:
    got: list[bytes] = []

    class Flood(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            got.append(data)

    async with answering(lambda: Responder(TOPIC, lambda: Introduction(ME, 4711))) as where:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Flood, local_addr=(HOST, 0))
        for _ in range(500):
            transport.sendto(whois.question(TOPIC, bytes(16)), where)
        await asyncio.sleep(0.3)
        transport.close()
    assert 50 <= len(got) <= 200


def test_addresses_from_the_public_dht_lead_nowhere_private() -> None:
    public = MainlineSquare(NETWORK, ["dht.example.org:25401"], ME, lambda: 0, HOST, 0)
    texts = ["8.8.8.8:53", "192.168.1.1:80", "127.0.0.1:80", "8.8.8.8:0", "[::1]:80", "169.254.169.254:80"]
    assert [public._where(text) for text in texts] == [("8.8.8.8", 53), None, None, None, None, None]
    assert PEERS_MAX <= 64
