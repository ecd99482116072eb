"""What a connection's task sleeps through, short questions and answers, and what it is woken for at odd moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from contract.test_links import BundledLink
from dockage.adapters.gateway import line, visit
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.ports.peers import AcceptStream, Stream
from dockage.testing.link import MemoryNetwork, refuse
from dockage.wire.connection import Connection
from dockage.wire.splice import SocketStream
from gateway.lab import HOST, INGRESS, FakeReplica, Lab, lab

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PATIENT = 30
Reply = Callable[[FakeReplica, bytes, Stream], Awaitable[None]]


@pytest.fixture(params=["memory", "bundles", "tcp"])
async def here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """All three kinds of streams that can be asked without a task."""
    monkeypatch.setattr(line, "AGAIN_SEC", 0.0)
    async with lab() as here:
        ways = {"bundles": ByBundles, "tcp": ByTcp}.get(request.param)
        way = ways(here) if ways else None
        if way is not None:
            here.host.connect(way)
        yield here
        if isinstance(way, ByTcp):
            await way.end()


class ByBundles:
    def __init__(self, here: Lab) -> None:
        self.here, self.network = here, MemoryNetwork()
        self.mine = self.link(NodeKey(b"G" * 32), refuse)

    def link(self, node: NodeKey, accept: AcceptStream) -> BundledLink:
        made = BundledLink(self.network, node, f"127.0.0.1:{len(self.network.links) + 1}")
        self.network.links[node] = made
        self.here.running.append(self.here.tasks.create_task(made.serve(accept)))
        return made

    async def __call__(self, peer: NodeKey, timeout: float) -> Stream:
        if peer not in self.network.links:
            replica = next(r for r in self.here.replicas if r.key == peer)
            self.mine.learn(peer, self.link(peer, replica.accept).address())
        return await self.mine.open(peer, timeout)


class ByTcp:
    def __init__(self, here: Lab) -> None:
        self.here, self.servers, self.made = here, dict[NodeKey, asyncio.Server](), list[Connection]()
        self.over = False

    async def __call__(self, peer: NodeKey, timeout: float) -> Stream:
        if self.over:
            raise Unavailable("peer.unreachable", "over")
        if peer not in self.servers:
            replica = next(r for r in self.here.replicas if r.key == peer)
            self.servers[peer] = await asyncio.start_server(
                lambda reader, writer: replica.accept(peer, SocketStream(reader, writer)), "127.0.0.1", 0
            )
        port = self.servers[peer].sockets[0].getsockname()[1]
        _, stream = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        self.made.append(stream)
        return stream

    async def end(self) -> None:
        """In real life they end with their link."""
        self.over = True
        for server in self.servers.values():
            server.close()
        for stream in self.made:
            stream.cut()
        for replica in self.here.replicas:
            replica.cut("gone")
            replica.speaks.set()
        await until(lambda: not any(replica.open for replica in self.here.replicas))
        await asyncio.sleep(0.01)


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Targets of the requests for which a task was needed."""
    found = list[bytes]()
    search = visit.Visit._search

    async def noted(self, way, request, *more):  # type: ignore[no-untyped-def]
        found.append(request.target)
        return await search(self, way, request, *more)

    monkeypatch.setattr(visit.Visit, "_search", noted)
    return found


def replying(reply: Reply) -> Callable[[FakeReplica, Stream], Awaitable[None]]:
    """A replica that answers each request by hand; health checks, and what comes first, with ``OK``."""

    async def serve(replica: FakeReplica, stream: Stream) -> None:
        head = b""
        while piece := await stream.read(1 << 16):
            head += piece
            while b"\r\n\r\n" in head:
                one, _, head = head.partition(b"\r\n\r\n")
                target = one.split(b" ")[1]
                replica.requests[target.decode()] += 1
                await (stream.write(OK) if target == b"/" else reply(replica, target, stream))
        await stream.finish()

    return serve


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, target: str, method: str = "GET", more: str = "", body: str = "") -> None:
        self.writer.write(f"{method} {target} HTTP/1.1\r\nhost: {HOST}\r\n{more}\r\n{body}".encode())

    async def get(self, target: str, method: str = "GET", more: str = "") -> tuple[int, bytes]:
        self.ask(target, method, more)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(PATIENT):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            return int(head.split(b" ")[1]), await self.reader.readexactly(size)


@asynccontextmanager
async def client(here: Lab) -> AsyncIterator[Client]:
    """One whose first request, which opens the way to the replica, is done."""
    made = Client(*await asyncio.open_connection("127.0.0.1", here.port))
    try:
        assert await made.get("/") == (200, b"ok")
        yield made
    finally:
        made.writer.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def busy(here: Lab) -> int:
    signs = here.host.signs(INGRESS)
    assert signs is not None
    return signs.sites[0].in_flight


def misses(here: Lab) -> list[int]:
    signs = here.host.signs(INGRESS)
    assert signs is not None
    return [x.misses for x in signs.replicas]


async def test_short_questions_wake_nobody_and_are_counted(here: Lab, woken: list[bytes]) -> None:
    async def reply(_: FakeReplica, target: bytes, stream: Stream) -> None:
        await stream.write(b"HTTP/1.1 200 OK\r\nvia: 1.1 home\r\ncontent-length: 5\r\n\r\n" + target.ljust(5))

    here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        del woken[:]
        before = await here.host.read(INGRESS)
        for n in range(20):
            assert await one.get(f"/{n}") == (200, f"/{n}".encode().ljust(5))
        after = await here.host.read(INGRESS)
        assert woken == []
        assert busy(here) == 0
        assert after.tunnel_in_bytes - before.tunnel_in_bytes >= 20 * 40
        assert after.tunnel_out_bytes - before.tunnel_out_bytes >= 20 * 50
        one.ask("/20")
        assert b"via" not in (await one.reader.readuntil(b"\r\n\r\n")).lower()


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 4\r\n\r\nabcd"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab", b"cd"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nabcd",),
    ],
)
async def test_what_does_not_come_in_one_piece_comes_all_the_same(
    here: Lab, pieces: tuple[bytes, ...]
) -> None:
    async def reply(_: FakeReplica, target: bytes, stream: Stream) -> None:
        for piece in pieces:
            await stream.write(piece)
            await asyncio.sleep(0.01)

    here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        for target in ("/a", "/b", "/"):
            status, body = await one.get(target)
            while status < 200:
                status, body = await one.answer()
            assert (status, body) == (200, b"ok" if target == "/" else b"abcd")
        assert busy(here) == 0


async def test_a_replica_that_dies_over_the_question_is_left_for_another(here: Lab) -> None:
    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        if replica.number == 1:
            return replica.cut("shut")
        await stream.write(OK)

    here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        here.add(serve=replying(reply))
        await here.publish(epoch=2)
        first, second = here.replicas
        for n in range(6):
            assert await one.get(f"/{n}") == (200, b"ok")
        assert sum(second.requests[f"/{n}"] for n in range(6)) == 6
        assert sum(first.requests.values()) >= 1
        assert busy(here) == 0


async def test_a_question_that_nobody_answers_is_asked_elsewhere_once_somebody_is_up(here: Lab) -> None:
    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        if replica.number == 1:
            replica.mute()  # this one is never answered, nor are the checks that come now
        else:
            await stream.write(OK)

    first = here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        one.ask("/x")
        await until(lambda: first.requests["/x"])
        second = here.add(serve=replying(reply))
        await here.publish(epoch=2)
        assert await one.answer() == (200, b"ok")
        assert second.requests["/x"] == 1
        assert busy(here) == 0


async def test_who_leaves_over_a_question_ends_it_and_speaks_against_nobody(here: Lab) -> None:
    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        assert not await stream.read(1)

    replica = here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        one.ask("/x")
        await until(lambda: replica.requests["/x"])
        assert busy(here) == 1
    await until(lambda: busy(here) == 0)
    assert misses(here) == [0]


async def test_requests_in_a_row_are_answered_in_that_order(here: Lab) -> None:
    go = asyncio.Event()

    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        await go.wait()
        await stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + target)

    replica = here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        one.ask("/1")
        await until(lambda: replica.requests["/1"])
        one.ask("/2")
        one.ask("/3")
        await asyncio.sleep(0.02)
        go.set()
        assert [await one.answer() for _ in range(3)] == [(200, b"/1"), (200, b"/2"), (200, b"/3")]
        assert await one.get("/4") == (200, b"/4")


async def test_who_takes_too_long_over_it_is_not_waited_for(here: Lab) -> None:
    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        await stream.read(1)

    replica = here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        one.ask("/x")
        await until(lambda: replica.requests["/x"])
        [door] = [door for door in here.doors.open if door.upstream is not None]
        door.within(0)
        assert (await one.answer())[0] == 504
    assert busy(here) == 0


@pytest.mark.parametrize("body", ["", "ab"])
async def test_what_a_replica_says_unasked_is_nobodys_answer(here: Lab, body: str) -> None:
    """It would be the next client's, who is another one: the connection on which it came is not asked again."""
    said = asyncio.Event()

    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        if target != b"/twice":
            return await stream.write(OK)
        await stream.write(OK)
        await asyncio.sleep(0.02)
        await stream.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        said.set()

    here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one, client(here) as other:
        assert await one.get("/twice") == (200, b"ok")
        await said.wait()
        for each in (other, one) * 3:
            each.ask("/next", "PUT", f"content-length: {len(body)}\r\n", body)
            assert await each.answer() == (200, b"ok")


async def test_what_is_no_question_or_asks_for_more_is_the_tasks(here: Lab, woken: list[bytes]) -> None:
    async def reply(replica: FakeReplica, target: bytes, stream: Stream) -> None:
        await stream.write(OK)

    replica = here.add(serve=replying(reply))
    await here.publish()
    async with client(here) as one:
        del woken[:]
        assert await one.get("/post", "POST", "content-length: 0\r\n") == (200, b"ok")
        assert woken == [b"/post"]
        assert (await one.get("/x", more="content-length: 1\r\ntransfer-encoding: chunked\r\n"))[0] == 400
    assert replica.requests["/x"] == 0
    async with client(here) as one:
        assert (await one.get("/x", more="connection: close\r\n"))[0] == 200
        assert await one.reader.read(-1) == b""
