"""Published ports: they listen on the tenant's machine and end in a container on the lease."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from dockage.adapters.host import DockerHost
from frontlab import LIMITS, SITE, Tenant, closed, fetch, free_port, serves, until
from hostlab import IMAGE, Lab


async def test_a_published_port_is_reached_shown_and_closed(tenant: Tenant) -> None:
    port = free_port()
    await tenant.run("--name", "web", "-p", f"{port}:80", IMAGE, "sh", "-c", SITE)
    await until(lambda: serves(port))
    assert await tenant.docker("port", "web") == f"80/tcp -> 127.0.0.1:{port}"
    assert f"127.0.0.1:{port}->80/tcp" in await tenant.docker("ps", "--format", "{{.Ports}}")
    assert await tenant.docker("ps", "-q", "--filter", f"publish={port}") != ""
    for _ in range(4):  # no more at once than busybox queues
        answers = await asyncio.gather(*(fetch(port) for _ in range(8)))
        assert [answer for answer in answers if "hello" not in answer] == []
    await tenant.docker("stop", "-t", "1", "web")
    assert await closed(port)
    assert await tenant.docker("port", "web") == ""
    await tenant.docker("start", "web")
    await until(lambda: serves(port))
    await tenant.docker("kill", "web")
    await until(lambda: closed(port))


async def test_a_port_of_its_own_choice(tenant: Tenant) -> None:
    await tenant.run("--name", "web", "-p", "80", IMAGE, "sh", "-c", SITE)
    port = int((await tenant.docker("port", "web", "80")).rpartition(":")[2])
    await until(lambda: serves(port))
    await tenant.docker("rm", "-f", "web")
    assert await closed(port)


async def test_a_busy_port_is_refused_in_dockers_words(tenant: Tenant) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = await tenant.refused(
            "run", "-d", "--name", "web", *LIMITS, "-p", f"{port}:80", IMAGE, "sleep", "9"
        )
    assert "driver failed programming external connectivity" in message
    assert "address already in use" in message
    assert (await tenant.inspect("web"))["State"]["Status"] == "created"
    await tenant.docker("start", "web")


UDP_ECHO = """
import socket
ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ours.bind(("0.0.0.0", 7))
while True:
    data, address = ours.recvfrom(65535)
    for _ in range(1 + data.startswith(b"twice")):
        ours.sendto(data, address)
"""
WS_ECHO = """
from aiohttp import web
async def echo(request):
    ws = web.WebSocketResponse(max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        await ws.send_bytes(message.data)
    return ws
app = web.Application()
app.router.add_get("/", echo)
web.run_app(app, port=8, print=None)
"""


@pytest.fixture
async def beside(tenant: Tenant, lab: Lab) -> AsyncIterator[Callable[[str, str], Awaitable[None]]]:
    """Runs a Python program in the network of a container: the image has no Python."""
    running = []

    async def start(container: str, program: str) -> None:
        id_ = (await tenant.inspect(container))["Id"]
        pid = await asyncio.to_thread(lab.docker, "inspect", "-f", "{{.State.Pid}}", id_)
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", program]
        running.append(await asyncio.create_subprocess_exec(*argv))

    yield start
    for process in running:
        process.kill()
        await process.wait()


async def test_a_published_udp_port(
    tenant: Tenant, beside: Callable[[str, str], Awaitable[None]], host: DockerHost
) -> None:
    await tenant.run("--name", "echo", "-p", "7/udp", IMAGE, "sleep", "60")
    port = int((await tenant.docker("port", "echo", "7/udp")).rpartition(":")[2])
    assert f"127.0.0.1:{port}->7/udp" in await tenant.docker("ps", "--format", "{{.Ports}}")
    await beside("echo", UDP_ECHO)
    clients = [await udp_client(port) for _ in range(3)]
    await until(lambda: clients[0].answers(b"ready"))
    [info] = tenant.leases.all()
    before = await host.read(info.id)
    for number, client in enumerate(clients):
        for size in (0, 1, 1400, 9000, 65_507):  # the largest that IPv4 carries
            data = bytes([number]) * size
            assert await client.ask(data) == data
    clients[1].send(b"twice")
    assert [await clients[1].next(), await clients[1].next()] == [b"twice", b"twice"]
    after = await host.read(info.id)
    payload = 3 * (1 + 1400 + 9000 + 65_507 + 5 * 4) + 5 + 4
    assert after.tunnel_in_bytes - before.tunnel_in_bytes == payload
    assert after.tunnel_out_bytes - before.tunnel_out_bytes == payload + 5 + 4
    message = await tenant.refused("run", "-d", *LIMITS, "-p", f"{port}:7/udp", IMAGE, "true")
    assert f"listen udp4 127.0.0.1:{port}: bind: address already in use" in message
    await tenant.docker("rm", "-f", "echo")
    await until(lambda: udp_is_free(port))
    for client in clients:
        client.close()


class UdpClient:
    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    async def next(self, patience: float = 5) -> bytes:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self._socket, 65535), patience)

    async def ask(self, data: bytes) -> bytes:
        self.send(data)
        return await self.next()

    async def answers(self, data: bytes) -> bool:
        self.send(data)
        try:
            return await self.next(0.3) == data
        except (TimeoutError, OSError):
            return False

    def close(self) -> None:
        self._socket.close()


async def udp_client(port: int) -> UdpClient:
    return UdpClient(port)


def udp_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def test_a_websocket_through_the_tunnel(
    tenant: Tenant, beside: Callable[[str, str], Awaitable[None]], host: DockerHost
) -> None:
    port = free_port()
    await tenant.run("--name", "ws", "-p", f"{port}:8", IMAGE, "sleep", "60")
    await beside("ws", WS_ECHO)
    async with aiohttp.ClientSession() as session:

        async def answers() -> bool:
            try:
                async with session.ws_connect(f"http://127.0.0.1:{port}/") as probe:
                    await probe.send_bytes(b"?")
                    return await probe.receive_bytes() == b"?"
            except (OSError, aiohttp.ClientError):
                return False

        await until(answers)
        async with session.ws_connect(f"http://127.0.0.1:{port}/", max_msg_size=0) as ws:
            for size in (1, 70_000, 3_000_000):
                await ws.send_bytes(b"x" * size)
                assert len(await ws.receive_bytes(timeout=10)) == size


async def test_many_connections_at_once_are_all_served(tenant: Tenant) -> None:
    """All of them open before the first says a word."""
    port = free_port()
    await tenant.run("-p", f"{port}:80", IMAGE, "sh", "-c", SITE)
    await until(lambda: serves(port))
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(100)))

    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        return answer

    for answer in await asyncio.gather(*(asks(*pair) for pair in opened)):
        assert answer.endswith(b"hello\n")


async def test_a_container_that_does_not_read_stops_who_writes(tenant: Tenant) -> None:
    """What is under way is bounded all along the way: nobody holds what nobody takes."""
    port, bound = free_port(), 64 << 20
    await tenant.run("-p", f"{port}:9", IMAGE, "nc", "-l", "-p", "9", "-e", "sleep", "600")
    sent = 0

    async def held_up() -> bool:
        """Not before the container listens: until then a connection ends at once."""
        nonlocal sent
        try:
            sent = await asyncio.to_thread(push, port, bound)
        except OSError:
            return False
        return True

    await until(held_up)
    assert sent < bound


def push(port: int, most: int) -> int:
    """How many bytes were taken before there was no room for two seconds. Raises OSError if the connection ends."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), 30) as sender, contextlib.suppress(TimeoutError):
        sender.settimeout(2)
        while sent < most:
            sent += sender.send(bytes(1 << 16))
    return sent


async def test_much_data_passes_whole(tenant: Tenant) -> None:
    port = free_port()
    await tenant.run(
        "--name", "sink", "-p", f"{port}:9", IMAGE, "sh", "-c", "while :; do nc -l -p 9 -e wc -c; done"
    )
    await asyncio.sleep(1)

    async def counted() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x" * 20_000_000)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
        except OSError:
            return False
        return answer.strip() == b"20000000"

    await until(counted)


async def test_a_restarting_container_keeps_its_port(tenant: Tenant) -> None:
    port = free_port()
    script = SITE.replace("exec httpd", "httpd").replace("-f ", "") + "; sleep 1.5; rm -r /www; exit 1"
    await tenant.run("--name", "web", "--restart", "always", "-p", f"{port}:80", IMAGE, "sh", "-c", script)
    await until(lambda: serves(port))

    async def restarted() -> bool:
        return (await tenant.inspect("web"))["RestartCount"] > 0

    await until(restarted)
    await until(lambda: serves(port))
