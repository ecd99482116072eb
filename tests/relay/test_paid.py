"""The real relay with a price: the contract, with clients that speak iroh's protocol, and real links."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from dockage.adapters.relay import Relay, RelayProbe
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId
from dockage.domain.resources import INGRESS
from dockage.ports.peers import Address
from dockage.protocol import relaying
from dockage.testing.link import call, echo, refuse, serving
from dockage.testing.relay import RelayContract, Stage
from dockage.wire.keys import verify
from dockage.wire.tolls import TollHost
from relay.test_relay import LIMITS, Raw, Running, joined, raw

LEASE = LeaseId(b"at a paid relay!")


@pytest.fixture
async def at() -> AsyncIterator[tuple[Running, TollHost]]:
    listening, tolls = socket.create_server(("127.0.0.1", 0)), TollHost("run", "x86_64")
    relay = Relay(verify, LIMITS, tolls=tolls)
    async with asyncio.TaskGroup() as tasks:
        serving_ = tasks.create_task(relay.serve(listening))
        yield Running(relay, listening.getsockname()[1]), tolls
        serving_.cancel()


class TestRelay(RelayContract):
    @pytest.fixture
    async def stage(self, at: tuple[Running, TollHost]) -> AsyncIterator[Stage]:
        running, tolls = at
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw(running, number)) for number in range(3)]
            for client in clients:
                assert await client.enter() == relaying.confirmed()
            probes = [RelayProbe(client.node) for client in clients]
            for probe in probes:
                stack.push_async_callback(probe.close)

            async def carry(sender: int, to: int, size: int) -> bool:
                await clients[sender].ws.send_bytes(b"\x04" + clients[to].node + b"\0" + bytes(size))
                return await came(clients[sender], clients[to], size)

            async def told(client: int) -> str:
                try:
                    await probes[client](running.url)
                except Unavailable as error:
                    return error.message
                return ""

            yield Stage(tolls, (clients[0].node, clients[1].node, clients[2].node), carry, told)


async def came(sender: Raw, to: Raw, size: int) -> bool:
    """Either it arrives, or its sender hears that nobody is there."""
    async with asyncio.timeout(30):
        tasks = [asyncio.ensure_future(x.ws.receive_bytes()) for x in (sender, to)]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.wait(tasks)
    frame = done.pop().result()
    assert frame in (relaying.gone(to.node), b"\x06" + sender.node + b"\0" + bytes(size))
    return frame[0] == relaying.PASSED


async def test_what_is_for_an_absent_one_is_nobody_s_bill(at: tuple[Running, TollHost]) -> None:
    running, tolls = at
    async with raw(running) as client:
        await client.enter()
        tolls.connect(lambda _: client.node)
        await tolls.prepare(LEASE, INGRESS)
        await client.ws.send_bytes(b"\x04" + bytes(32) + b"\0hello")
        assert await client.ws.receive_bytes() == relaying.gone(bytes(32))
        assert tolls.count(LEASE) == (0, 0)
        assert running.relay.figures().unpaid_frames == 0


async def test_a_batch_is_counted_without_its_heads(at: tuple[Running, TollHost]) -> None:
    running, tolls = at
    async with raw(running) as one, raw(running, 1) as two:
        await one.enter()
        await two.enter()
        tolls.connect(lambda _: two.node)
        await tolls.prepare(LEASE, INGRESS)
        await one.ws.send_bytes(b"\x05" + two.node + b"\0\0\x64" + bytes(300))
        assert await two.ws.receive_bytes() == b"\x07" + one.node + b"\0\0\x64" + bytes(300)
        assert tolls.count(LEASE) == (0, 300)


async def test_both_ends_of_a_real_connection_count_alike(at: tuple[Running, TollHost]) -> None:
    """The payer's own count is never less than what is stated of it, but for what the allowance is for."""
    running, tolls = at
    async with joined(running, 0) as one, joined(running, 1) as two:
        tolls.connect(lambda _: two.node)
        await tolls.prepare(LEASE, INGRESS)
        assert two.relayed(running.url) == (0, 0)
        one.learn(two.node, Address(running.url, ()))
        async with serving(one, refuse), serving(two, echo):
            assert await call(one, two.node, b"over it") == b"over it" + one.node
            sent, received = two.relayed(running.url)
            into, out = tolls.count(LEASE)
        assert into > 1000
        assert out > 1000
        assert abs(sent - into) < 16_384
        assert abs(received - out) < 16_384
        one_more = two.relayed(running.url)
        assert one_more >= (sent, received), "what a line that has ended carried is not forgotten"
