"""What the public gets from a gateway: an answer as long as any replica can give one, and never half of one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from dockage.adapters.gateway import line
from dockage.domain.deployment import Site
from dockage.domain.errors import UsageError
from dockage.domain.identity import LeaseId
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.wire.http import HttpServer, Request
from gateway.lab import HOST, INGRESS, WEB, Answer, FakeReplica, Lab, ask, echo, echo_body, lab, raw


@pytest.fixture
async def here() -> AsyncIterator[Lab]:
    async with lab() as here:
        yield here


@pytest.fixture
def hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what fell out."""
    monkeypatch.setattr(line, "AGAIN_SEC", 0.0)


async def test_a_request_reaches_a_container_with_the_tenants_grant(here: Lab) -> None:
    replica = here.add()
    await here.publish()
    answer = await here.get("/path?q=1", cookie="a=b")
    assert answer.status == 200
    assert b"cookie: a=b" in answer.body
    assert b"x-forwarded-for: 127.0.0.1" in answer.body
    assert replica.headers[0] == streams.Tunnel(replica.lease, "01" * 32, 80, b"grant 1")
    assert b"via" not in answer.head
    assert b"x-app: yes" in answer.head


async def test_bytes_are_counted_for_the_ingress_lease(here: Lab) -> None:
    here.add()
    await here.publish()
    before = await here.host.read(INGRESS)
    answer = await here.get()
    after = await here.host.read(INGRESS)
    assert after.tunnel_in_bytes - before.tunnel_in_bytes > 50
    assert after.tunnel_out_bytes - before.tunnel_out_bytes >= len(answer.body)


async def test_many_requests_share_a_connection_and_its_tunnel(here: Lab) -> None:
    replica = here.add()
    await here.publish()
    request = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    last = request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    answers = await raw(here.port, request * 4 + last)
    assert answers.count(b"HTTP/1.1 200") == 5
    assert replica.requests["GET"] == 5
    assert len([h for h in replica.headers if isinstance(h, streams.Tunnel)]) <= 2, "a health check at most"


@pytest.mark.parametrize("state", ["shut", "gone"])
async def test_no_request_is_lost_while_another_replica_answers(here: Lab, state: str) -> None:
    first, second = here.add(), here.add()
    await here.publish()
    first.cut(state)
    answers = [await here.get() for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert second.requests["GET"] == 10
    signs = here.host.signs(INGRESS)
    assert signs is not None
    assert [sign.misses > 0 for sign in signs.replicas] == [True, False]
    assert signs.sites[0].total >= 10


async def test_a_replica_that_falls_silent_is_left_and_its_requests_are_asked_elsewhere(here: Lab) -> None:
    first, second = here.add(), here.add()
    await here.publish()
    first.mute()
    answers = await asyncio.gather(*(here.get() for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert second.requests["GET"] == 8


@pytest.mark.usefixtures("hopeless")
async def test_it_comes_back_once_it_answers_again(here: Lab) -> None:
    replica = here.add()
    await here.publish()
    replica.cut("shut")
    assert (await here.get()).status == 502
    replica.state = "up"
    async with asyncio.timeout(5):
        while here.host.signs(INGRESS).replicas[0].misses:  # type: ignore[union-attr]
            await here.host.moved(INGRESS, 1.0)
    assert (await here.get()).status == 200


@pytest.mark.usefixtures("hopeless")
async def test_what_may_have_done_something_is_not_asked_twice(here: Lab) -> None:
    async def take_and_die(replica: FakeReplica, stream: Stream) -> None:
        request = await HttpServer(stream).read_request()
        assert request is not None
        replica.requests[request.method] += 1
        stream.abort()

    one, other = here.add(serve=take_and_die), here.add(serve=take_and_die)
    await here.publish()
    assert (await here.get(method="POST", content_length="0")).status == 502
    assert one.requests["POST"] + other.requests["POST"] == 1
    assert (await here.get(method="PUT", content_length="0")).status == 502
    assert one.requests["PUT"] + other.requests["PUT"] == 2


async def test_half_an_answer_is_not_shown_as_a_whole_one(here: Lab) -> None:
    seen = asyncio.Event()

    async def half(server: HttpServer, request: Request) -> None:
        await server.respond(200, [("content-length", "100000")])
        await server.send(b"half")
        await seen.wait()
        server.raw().abort()

    here.add(half)
    here.add(half)
    await here.publish()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    await reader.readuntil(b"half")
    seen.set()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readuntil(b"never")
    writer.close()


async def test_a_short_answer_that_breaks_off_is_asked_for_elsewhere(here: Lab) -> None:
    broke = asyncio.Event()

    async def half(server: HttpServer, request: Request) -> None:
        if request.method == "GET":
            await server.respond(200, [("content-length", "100")])
            await server.send(b"half")
            await asyncio.sleep(0.1)  # it is on its way, or not: to the client it is the same
            broke.set()
        server.raw().abort()

    async def well(server: HttpServer, request: Request) -> None:
        await server.answer(200, [], b"whole")

    one, other = here.add(half), here.add(well)
    await here.publish(replicas=(one.replica(), other.replica(state="standby")))
    asking = asyncio.ensure_future(here.get())
    await broke.wait()
    await here.publish(epoch=2)
    answer = await asking
    assert (answer.status, answer.body) == (200, b"whole")


@pytest.mark.parametrize("chunked", [False, True])
async def test_long_bodies_pass_both_ways(here: Lab, chunked: bool) -> None:
    here.add(echo_body)
    await here.publish()
    body = bytes(range(256)) * 4096
    head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n"
    if chunked:
        pieces = [body[i : i + 50_000] for i in range(0, len(body), 50_000)]
        sent = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        data = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + sent
    else:
        data = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    answer = await raw(here.port, data)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(body)


async def test_an_answer_without_an_end_is_passed_on_as_it_comes_and_ends_with_its_reader(here: Lab) -> None:
    gone = asyncio.Event()

    async def clock(server: HttpServer, request: Request) -> None:
        await server.respond(200)
        await server.send(b"tick")
        await server.gone()
        gone.set()

    here.add(clock)
    await here.publish()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    await reader.readuntil(b"tick")
    writer.close()
    async with asyncio.timeout(5):
        await gone.wait()


async def test_a_client_that_leaves_speaks_against_no_replica(here: Lab) -> None:
    gone = asyncio.Event()

    async def thinking(server: HttpServer, request: Request) -> None:
        await server.gone()
        gone.set()

    one, other = here.add(thinking), here.add(thinking)
    await here.publish()
    _, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    while not one.requests["GET"] + other.requests["GET"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    writer.close()
    async with asyncio.timeout(30):
        await gone.wait()
        while here.host.signs(INGRESS).sites[0].in_flight:  # type: ignore[union-attr] # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert one.requests["GET"] + other.requests["GET"] == 1, "nobody else was asked"


async def test_who_takes_too_long_is_not_waited_for(here: Lab) -> None:
    """The sweep, with the deadlines moved to now: a head that does not end, and an answer that does not begin."""

    async def thinking(server: HttpServer, request: Request) -> None:
        await server.gone()

    here.add(thinking)
    await here.publish()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    _, half = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    half.write(b"GET / HT")
    async with asyncio.timeout(30):
        while len(waiting := [door for door in here.doors.open if door.deadline < math.inf]) < 2 or not any(  # noqa: ASYNC110
            door.upstream for door in waiting
        ):
            await asyncio.sleep(0.01)
        for door in waiting:
            door.within(0)
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 504")
        while here.doors.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for each in (writer, half):
        each.close()


async def test_an_upgrade_becomes_bytes_both_ways(here: Lab) -> None:
    async def shout(replica: FakeReplica, stream: Stream) -> None:
        server = HttpServer(stream)
        request = await server.read_request()
        assert request is not None
        if not request.wants_upgrade:
            return await server.answer(200, [], b"")
        up = await server.upgrade([("x-app", "yes")])
        while piece := await up.read(100):
            await up.write(piece.upper())
        await up.write(b"bye")
        await up.finish()

    here.add(serve=shout)
    await here.publish()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert b"upgrade: websocket" in head.lower()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"HELLO"
    writer.write_eof()
    assert await reader.read(-1) == b"bye"
    writer.close()


async def test_a_request_waits_for_a_replica_while_none_serves(here: Lab) -> None:
    """Scale to zero: the tenant sees that somebody waits."""
    replica = here.add()
    await here.publish(replicas=(replica.replica(state="standby"),))
    waiting = asyncio.ensure_future(here.get())
    async with asyncio.timeout(5):
        while not here.host.signs(INGRESS).wanted:  # type: ignore[union-attr]
            await here.host.moved(INGRESS, 1.0)
    assert not waiting.done()
    await here.publish(epoch=2)
    assert (await waiting).status == 200
    assert not here.host.signs(INGRESS).wanted  # type: ignore[union-attr]


async def test_a_draining_replica_ends_what_it_began_and_gets_nothing_new(here: Lab) -> None:
    go = asyncio.Event()

    async def slow(server: HttpServer, request: Request) -> None:
        if request.target == "/slow":
            await go.wait()
        await server.answer(200, [], b"done")

    old = here.add(slow)
    await here.publish()
    running = asyncio.ensure_future(here.get("/slow"))
    while not old.requests["GET"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    new = here.add()
    await here.publish(epoch=2, replicas=(old.replica(state="draining"), new.replica()))
    assert {(await here.get()).status for _ in range(5)} == {200}
    assert (old.requests["GET"], new.requests["GET"]) == (1, 5)
    await here.publish(epoch=3, replicas=(new.replica(),))
    go.set()
    assert (await running).body == b"done"


async def test_a_new_document_cuts_no_connection_and_a_new_app_neither(here: Lab) -> None:
    here.add()
    await here.publish()
    reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
    request = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    for epoch in range(2, 5):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await here.publish(epoch=epoch)
        other = replace(WEB, hosts=(f"app{epoch}.example.com",))
        await here.publish(LeaseId(bytes([epoch + 100]) * 16), name=f"app{epoch}", sites=(other,))
    writer.close()


async def test_a_thousand_apps_and_replicas_come_while_connections_stay(here: Lab) -> None:
    """A kept connection, and one that was switched to another protocol: neither is cut, nor made to wait."""

    async def serve(replica: FakeReplica, stream: Stream) -> None:
        server = HttpServer(stream)
        while (request := await server.read_request()) is not None:
            if request.wants_upgrade:
                return await echo(replica, await server.upgrade())
            await server.answer(200, [], b"ok")
        await stream.finish()

    here.add(serve=serve)
    await here.publish()
    plain, switched = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(2)]
    request = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    switched[1].write(request.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"))
    assert (await switched[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    here.add(serve=serve)
    for number in range(1000):
        lease = LeaseId(number.to_bytes(16, "big"))
        site = replace(WEB, hosts=(f"a{number}.example.com",))
        await here.publish(lease, name=f"app{number}", sites=(site,))
        if number % 100 == 0:
            replicas = here.replicas[: 1 + number // 100 % 2]
            await here.publish(epoch=2 + number, replicas=tuple(each.replica() for each in replicas))
            plain[1].write(request)
            await plain[0].readuntil(b"\r\n\r\nok")
            switched[1].write(b"ping")
            assert await switched[0].readexactly(4) == b"ping"
    for _, writer in (plain, switched):
        writer.close()
    assert (await ask(here.port, "/", "a999.example.com")).status == 200


async def test_an_unpaid_lease_answers_nothing(here: Lab) -> None:
    here.add()
    await here.publish()
    await here.host.pause(INGRESS)
    assert (await here.get()).status == 503
    await here.host.thaw(INGRESS)
    assert (await here.get()).status == 200
    await here.host.teardown(INGRESS)
    assert (await here.get()).status == 404


@pytest.mark.usefixtures("hopeless")
async def test_pages_of_ours_name_no_address(here: Lab) -> None:
    replica = here.add()
    await here.publish()
    replica.cut("gone")
    for answer in (await here.get(), await here.get(host="other.example.com")):
        assert answer.status in (404, 502)
        assert b"127." not in answer.raw
        assert replica.key.hex()[:8].encode() not in answer.raw


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a.example.com\r\nhost: b.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: ../../etc\r\n\r\n",
        b"GET http://shop.example.com/ HTTP/1.1\r\nhost: shop.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: +4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nhost: shop.example.com\r\nx : y\r\n\r\n",
        b"GET / HTTP/1.1\nhost: shop.example.com\n\n\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(here: Lab, request_: bytes) -> None:
    replica = here.add()
    await here.publish()
    assert (await raw(here.port, request_)).startswith(b"HTTP/1.1 400")
    assert not replica.requests["GET"]


async def test_a_head_without_end_is_refused(here: Lab) -> None:
    answer = await raw(here.port, b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431") or answer == b"", "the rest may still be on its way: reset"


async def test_hosts_are_compared_in_one_form(here: Lab) -> None:
    here.add()
    await here.publish()
    assert (await ask(here.port, "/", "SHOP.Example.COM.:443")).status == 200


async def test_a_tenant_cannot_have_anothers_name_port_or_the_gateways(here: Lab) -> None:
    here.add()
    await here.publish()
    other = LeaseId(b"o" * 16)
    for sites, code in (
        ((WEB,), "site.taken"),
        ((replace(WEB, hosts=("www.example.net",)),), "site.foreign"),
        ((Site((), 80, "web", "tcp", 19999),), "site.port"),
    ):
        with pytest.raises(UsageError) as caught:
            await here.publish(other, name="other", sites=sites)
        assert caught.value.code == code
    assert (await here.get()).status == 200


async def test_a_deployment_is_at_one_lease_of_a_gateway(here: Lab) -> None:
    here.add()
    await here.publish()
    other = LeaseId(b"o" * 16)
    await here.publish(other, epoch=2)
    assert list(here.host.documents()) == [other]
    await here.publish(other, name="blog", sites=())
    assert [document.name for document in here.host.documents().values()] == ["blog"]
    assert (await here.get()).status == 404


async def test_an_older_word_does_not_count(here: Lab) -> None:
    here.add()
    await here.publish(epoch=5)
    with pytest.raises(UsageError) as caught:
        await here.publish(epoch=4)
    assert caught.value.code == "document.old"


async def test_the_operator_drops_a_name_or_a_tenant(here: Lab) -> None:
    here.add()
    await here.publish()
    for name in (HOST, "74" * 32):
        assert list(here.host.drop([name])) == [INGRESS]
        assert (await here.get()).status == 404
        with pytest.raises(UsageError) as caught:
            await here.publish(epoch=2)
        assert caught.value.code == "document.dropped"
        here.host.drop([])
        await here.publish(epoch=2)
    assert (await here.get()).status == 200


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_a_replica_that_promises_an_answer_for_ever_is_cut(here: Lab, interim: bytes) -> None:
    """What it promises is kept for a client that reads nothing: a gateway would be filled up by its own tenants."""
    ended = asyncio.Event()

    async def promise(_: FakeReplica, stream: Stream) -> None:
        await stream.read(1 << 16)
        try:
            while True:
                await stream.write(interim)
                await asyncio.sleep(0)
        finally:
            ended.set()

    here.add(serve=promise)
    await here.publish()
    answer = await here.get(method="POST")
    assert answer.raw.count(b" 103 ") <= 17
    assert b" 200 " not in answer.raw
    async with asyncio.timeout(30):
        await ended.wait()


@pytest.mark.parametrize("size", [0, 1000, 200_000])
async def test_another_protocol_that_nobody_asked_for_is_no_answer(here: Lab, size: int) -> None:
    async def switch(_: FakeReplica, stream: Stream) -> None:
        await stream.read(1 << 16)
        await stream.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        while await stream.read(1 << 16):
            pass

    here.add(serve=switch)
    await here.publish()
    head = f"POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {size}\r\n\r\n".encode()
    assert Answer(await raw(here.port, head + bytes(size))).status == 502
