"""The relay on loopback: between real links, and against clients that lie, flood, stall or come in crowds."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockage.adapters.link import IrohLink
from dockage.adapters.relay import Relay
from dockage.domain.identity import NodeKey
from dockage.ports.peers import Address
from dockage.protocol import relaying
from dockage.testing.link import call, echo, refuse, serving
from dockage.wire.keys import verify
from dockage.wire.limits import RelayLimits

SEEDS = [hashlib.sha256(b"relayed %d" % number).digest() for number in range(4)]
LIMITS = RelayLimits(handshake_sec=1.0)


class Running:
    def __init__(self, relay: Relay, port: int) -> None:
        self.relay, self.address = relay, f"127.0.0.1:{port}"
        self.url = f"http://{self.address}/"


@asynccontextmanager
async def running(
    limits: RelayLimits = LIMITS, admits: Callable[[NodeKey], bool] = lambda _: True
) -> AsyncIterator[Running]:
    listening = socket.create_server(("127.0.0.1", 0))
    relay = Relay(verify, limits, admits)
    async with asyncio.TaskGroup() as tasks:
        serving_ = tasks.create_task(relay.serve(listening))
        yield Running(relay, listening.getsockname()[1])
        serving_.cancel()


class Raw:
    """A client that says what it is told to."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, seed: bytes) -> None:
        self.ws, self._key = ws, Ed25519PrivateKey.from_private_bytes(seed)
        self.node = NodeKey(self._key.public_key().public_bytes_raw())

    def auth(self, challenge: bytes, node: NodeKey | None = None) -> bytes:
        signed = blake3(challenge[1:], derive_key_context=relaying.CONTEXT).digest()
        return b"\x01" + (node or self.node) + b"\x40" + self._key.sign(signed)

    async def enter(self) -> bytes:
        await self.ws.send_bytes(self.auth(await self.ws.receive_bytes()))
        return await self.ws.receive_bytes()

    async def ended(self) -> bool:
        """Whether the relay closes it; frames before that are skipped."""
        async with asyncio.timeout(10):
            while (said := await self.ws.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        return said.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)


@asynccontextmanager
async def raw(at: Running, number: int = 0, version: str = "iroh-relay-v2") -> AsyncIterator[Raw]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(at.url + "relay", protocols=[version], compress=0) as ws,
    ):
        yield Raw(ws, SEEDS[number])


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


# -- with real links ---------------------------------------------------------------------------------
async def test_two_links_that_know_only_a_relay_and_a_key_reach_each_other() -> None:
    async with running() as at, joined(at, 0) as one, joined(at, 1) as two:
        one.learn(two.node, Address(at.url, ()))
        async with serving(one, refuse), serving(two, echo):
            assert await call(one, two.node, b"over it") == b"over it" + one.node
        figures = at.relay.figures()
        assert figures.clients == 2
        assert figures.passed_bytes > 1000
        assert not figures.refused


@asynccontextmanager
async def joined(at: Running, number: int) -> AsyncIterator[IrohLink]:
    link = await IrohLink.create(SEEDS[number], relayed=True)
    await link.use_relay(at.url)
    await until(lambda: link.address().relay == at.url)
    yield link
    await link.close()


# -- against those that lie ----------------------------------------------------------------------------
async def test_a_key_is_only_believed_with_its_signature() -> None:
    async with running() as at, raw(at) as liar:
        victim = Raw(liar.ws, SEEDS[1]).node
        await liar.ws.send_bytes(liar.auth(await liar.ws.receive_bytes(), victim))
        assert await liar.ws.receive_bytes() == relaying.denied("signature invalid")
        assert await liar.ended()
        assert at.relay.figures().refused == {"forged": 1}


async def test_a_signature_of_another_challenge_is_worth_nothing() -> None:
    async with running() as at, raw(at) as liar:
        await liar.ws.receive_bytes()
        await liar.ws.send_bytes(liar.auth(relaying.challenge(bytes(16))))
        assert (await liar.ws.receive_bytes())[0] == relaying.DENIED


@pytest.mark.parametrize("first", [b"", b"\x04" + bytes(60), b"x" * 70_000])
async def test_whoever_does_not_prove_a_key_is_sent_away(first: bytes) -> None:
    async with running() as at, raw(at) as liar:
        await liar.ws.receive_bytes()
        await liar.ws.send_bytes(first)
        assert await liar.ended()
        assert at.relay.figures().refused == {"auth": 1}


@pytest.mark.parametrize("frame", [b"", b"\x06" + bytes(60), b"\x09", b"\x04" + bytes(80_000)])
async def test_a_client_that_breaks_the_protocol_is_closed(frame: bytes) -> None:
    async with running() as at, raw(at) as liar:
        assert await liar.enter() == relaying.confirmed()
        await liar.ws.send_bytes(frame)
        assert await liar.ended()
        await until(lambda: at.relay.figures().clients == 0)


async def test_silence_at_any_point_of_the_way_in_ends_it() -> None:
    async with running(RelayLimits(handshake_sec=0.3)) as at, raw(at) as silent:
        reader, writer = await asyncio.open_connection(*at.address.split(":"))
        writer.write(b"GET /relay HTTP/1.1\r\nHost: relay\r\nX-Half: ")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        assert await silent.ended()
        assert at.relay.figures().refused == {"silent": 1}


async def test_a_second_client_with_one_key_takes_the_place_of_the_first() -> None:
    async with running() as at, raw(at) as first, raw(at) as second, raw(at, 1) as other:
        for each in (first, second, other):
            await each.enter()
        await other.ws.send_bytes(b"\x04" + first.node + b"\0hello")
        assert await second.ws.receive_bytes() == b"\x06" + other.node + b"\0hello"
        assert await first.ws.receive_bytes() == relaying.status(relaying.SAME_KEY)
        await first.ws.send_bytes(b"\x04" + other.node + b"\0hello")
        await first.ws.send_bytes(relaying.ping(b"12345678"))
        assert await first.ws.receive_bytes() == relaying.pong(b"12345678"), "it stays, and is not heard"
        await other.ws.send_bytes(relaying.ping(b"12345678"))
        assert await other.ws.receive_bytes() == relaying.pong(b"12345678")
        await first.ws.close()
        await other.ws.send_bytes(b"\x04" + first.node + b"\0again")
        assert await second.ws.receive_bytes() == b"\x06" + other.node + b"\0again"


async def test_pings_are_answered_and_the_absent_are_said_to_be_gone() -> None:
    async with running() as at, raw(at, version="iroh-relay-v1") as one:
        await one.enter()
        await one.ws.send_bytes(relaying.ping(b"12345678"))
        assert await one.ws.receive_bytes() == relaying.pong(b"12345678")
        await one.ws.send_bytes(b"\x04" + bytes(32) + b"\0hello")
        assert await one.ws.receive_bytes() == relaying.gone(NodeKey(bytes(32)))


# -- against those that are too many, or too much ------------------------------------------------------
async def test_a_relay_takes_no_more_clients_than_it_may() -> None:
    async with running(RelayLimits(clients=1)) as at, raw(at) as one, raw(at, 1) as two:
        assert await one.enter() == relaying.confirmed()
        assert await two.enter() == relaying.denied("full")
        async with raw(at) as again:
            assert await again.enter() == relaying.confirmed(), "its own place"


async def test_a_relay_for_some_is_for_nobody_else() -> None:
    async with running(admits=lambda key: key[0] == 0) as at, raw(at) as one:
        assert await one.enter() == relaying.denied("not for you")
        assert at.relay.figures().refused == {"closed": 1}


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (RelayLimits(visitors=2), "crowded"),
        (RelayLimits(visitors_per_source=2), "source-crowded"),
        (RelayLimits(source_burst=2, source_rate=1), "source-rate"),
    ],
)
async def test_a_crowd_is_turned_away_before_a_byte_is_read(limits: RelayLimits, why: str) -> None:
    async with running(limits) as at:
        host, port = at.address.split(":")
        held = [await asyncio.open_connection(host, port) for _ in range(2)]
        reader, writer = await asyncio.open_connection(host, port)
        async with asyncio.timeout(10):
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
        assert at.relay.figures().refused == {why: 1}
        for each in (*(w for _, w in held), writer):
            each.close()


async def test_who_sends_more_than_its_share_is_slowed_down_and_told_once() -> None:
    limits = RelayLimits(rate=20_000, rate_total=1 << 30, rate_source=1 << 30)
    async with running(limits) as at, raw(at) as one, raw(at, 1) as two:
        await one.enter()
        await two.enter()
        for _ in range(5):
            await one.ws.send_bytes(b"\x04" + two.node + b"\0" + bytes(5_000))
        for _ in range(5):
            assert len(await two.ws.receive_bytes()) == 5_034
        assert await one.ws.receive_bytes() == relaying.status(relaying.THROTTLED)
        assert at.relay.figures().throttled_sec > 0.1
        assert at.relay.figures().dropped_frames == 0


@pytest.mark.parametrize("of", ["rate_total", "rate_source"])
async def test_all_clients_together_and_those_of_one_address_have_a_share_too(of: str) -> None:
    limits = replace(RelayLimits(rate=1 << 30, rate_total=1 << 30, rate_source=1 << 30), **{of: 20_000})
    async with running(limits) as at, raw(at) as one, raw(at, 1) as two:
        await one.enter()
        await two.enter()
        for _ in range(5):
            await one.ws.send_bytes(b"\x04" + two.node + b"\0" + bytes(5_000))
        for _ in range(5):
            await two.ws.receive_bytes()
        assert at.relay.figures().throttled_sec > 0.1


async def test_a_reader_that_stalls_costs_a_short_queue_and_then_its_place() -> None:
    limits = RelayLimits(
        write_sec=0.5, queue_frames=16, rate=1 << 30, rate_total=1 << 30, rate_source=1 << 30
    )
    async with running(limits) as at, raw(at) as fast, raw(at, 1) as slow:
        await fast.enter()
        await slow.enter()
        transport = slow.ws._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        async with asyncio.timeout(20):
            while at.relay.figures().clients == 2:
                await fast.ws.send_bytes(b"\x04" + slow.node + b"\0" + bytes(60_000))
                await asyncio.sleep(0.001)
        assert at.relay.figures().dropped_frames > 0
        transport.resume_reading()


async def test_a_client_that_answers_no_pings_is_gone() -> None:
    limits = RelayLimits(ping_sec=0.05, silence_sec=0.2)
    async with running(limits) as at, raw(at) as dead:
        await dead.enter()
        await until(lambda: at.relay.figures().clients == 1)
        assert (await dead.ws.receive_bytes())[0] == relaying.PING
        assert await dead.ended()


async def get(at: Running, path: str, headers: dict[str, str] | None = None) -> aiohttp.ClientResponse:
    async with aiohttp.ClientSession() as session, session.get(at.url + path, headers=headers) as answer:
        return answer


async def test_what_a_client_asks_over_http_is_answered_and_no_header_is_made_of_its_words() -> None:
    ask: Callable[..., Awaitable[aiohttp.ClientResponse]] = get
    async with running() as at:
        assert (await ask(at, "ping")).status == 200
        told = await ask(at, "generate_204", {"X-Iroh-Challenge": "ts_1.example-7"})
        assert (told.status, told.headers.get("X-Iroh-Response")) == (204, "response ts_1.example-7")
        assert "X-Iroh-Response" not in (await ask(at, "generate_204", {"X-Iroh-Challenge": "a b;c"})).headers
        assert (await ask(at, "")).status == 404
        assert (await ask(at, "relay")).status == 426
