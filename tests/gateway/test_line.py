"""When a replica is slow, full or gone: nobody is cut while there is nobody else to ask, and who waits gets the next
one that is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dockage.adapters.gateway import line, live
from dockage.adapters.gateway.live import Backend, Count, Live
from dockage.domain.deployment import Document, Replica
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import Instant
from dockage.protocol.streams import Tunnel
from dockage.wire.http import HttpServer, Request
from gateway.lab import HOST, INGRESS, TENANT, WEB, FakeReplica, Lab, lab

PATIENCE = 60


@pytest.fixture
async def here() -> AsyncIterator[Lab]:
    async with lab() as here:
        yield here


async def until(lab: Lab, asked: int, *replicas: FakeReplica) -> None:
    """Of the replicas, so many requests were heard."""
    async with asyncio.timeout(PATIENCE):
        while sum(r.requests["GET"] for r in replicas) < asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def state(here: Lab, number: int = 0) -> tuple[Live, Backend]:
    found = here.host.served.at(INGRESS)
    assert found is not None
    return found, [*found.backends.values()][number]


def miss(here: Lab, number: int, times: int) -> None:
    """What checks that hear nothing say."""
    found, backend = state(here, number)
    now = asyncio.get_running_loop().time()
    for _ in range(times):
        found.missed(backend, now, now)
        now += 1e-6


class Slow:
    """Takes a request and answers once it may."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, server: HttpServer, request: Request) -> None:
        if request.method == "GET":
            await self.go.wait()
        await server.answer(200, [], b"done")


async def test_the_last_replica_is_not_cut_for_being_slow(here: Lab) -> None:
    """Under overload two checks in a row are late; to cut all that waits there would fail every request."""
    slow = Slow()
    replica = here.add(slow)
    await here.publish()
    waiting = [asyncio.ensure_future(here.get()) for _ in range(20)]
    await until(here, 20, replica)
    miss(here, 0, live.CUT_AT + 1)
    slow.go.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
    assert replica.requests["GET"] == 20, "each was asked once"


async def test_the_last_but_one_died_and_the_last_is_slow(here: Lab) -> None:
    slow = Slow()
    dead, last = here.add(slow), here.add(slow)
    await here.publish()
    waiting = [asyncio.ensure_future(here.get()) for _ in range(20)]
    await until(here, 20, dead, last)
    dead.cut("gone")
    miss(here, 1, 1)
    miss(here, 0, live.CUT_AT)
    miss(here, 1, live.CUT_AT)
    slow.go.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


@pytest.mark.parametrize("stays", [True, False])
async def test_what_waits_at_a_dead_replica_moves_to_the_one_that_comes(here: Lab, stays: bool) -> None:
    """The standby, once the tenant says so; whether or not the dead one is still in the document."""
    dead, standby = here.add(Slow()), here.add()
    await here.publish(replicas=(dead.replica(), standby.replica(state="standby")))
    waiting = asyncio.ensure_future(here.get())
    await until(here, 1, dead)
    dead.mute()
    miss(here, 0, live.CUT_AT)
    kept = (dead.replica(),) if stays else ()
    await here.publish(epoch=2, replicas=(*kept, standby.replica()))
    assert (await waiting).status == 200
    assert standby.requests["GET"] == 1
    if stays:
        assert state(here)[1].misses == live.CUT_AT, "that we let go is no miss of the replica"


async def test_a_request_outlives_the_crash_of_the_only_container(here: Lab) -> None:
    replica = here.add(Slow())
    await here.publish()
    waiting = asyncio.ensure_future(here.get())
    await until(here, 1, replica)
    replica.serve = here.add().serve
    replica.cut("shut")
    async with asyncio.timeout(PATIENCE):
        while not state(here)[1].down:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    replica.state = "up"
    assert (await waiting).status == 200


async def test_what_kills_its_replica_is_asked_twice_at_most(here: Lab) -> None:
    asked = 0

    async def die(server: HttpServer, request: Request) -> None:
        nonlocal asked
        if request.method == "HEAD":
            return await server.answer(200, [], b"")
        asked += 1
        server.raw().abort()

    here.add(die)
    await here.publish()
    assert (await here.get()).status == 502
    assert asked == 2


async def test_who_breaks_one_stream_and_answers_others_is_asked_again_at_once(here: Lab) -> None:
    times = 0

    async def once(server: HttpServer, request: Request) -> None:
        nonlocal times
        times += request.method == "GET"
        if request.method == "GET" and times == 1:
            found, backend = state(here)
            found.answered(backend, asyncio.get_running_loop().time())
            server.raw().abort()
        else:
            await server.answer(200, [], b"")

    here.add(once)
    await here.publish()
    assert (await here.get()).status == 200
    assert not state(here)[1].down


async def test_who_finds_all_full_waits_for_a_place(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IN_FLIGHT_MAX", 2)
    slow = Slow()
    replica = here.add(slow)
    await here.publish()
    waiting = [asyncio.ensure_future(here.get()) for _ in range(12)]
    await until(here, 2, replica)
    async with asyncio.timeout(PATIENCE):
        while len(state(here)[0].line) < 10:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not here.host.signs(INGRESS).wanted, "one serves"  # type: ignore[union-attr]
    slow.go.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
    assert not state(here)[0].line


async def test_who_leaves_the_line_leaves_nothing_and_who_waits_too_long_is_told(here: Lab) -> None:
    replica = here.add()
    await here.publish(replicas=(replica.replica(state="standby"),))
    _, gone = await asyncio.open_connection("127.0.0.1", here.port)
    gone.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
    waiting = asyncio.ensure_future(here.get())
    places = state(here)[0].line
    async with asyncio.timeout(PATIENCE):
        while len(places) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        gone.close()
        while len(places) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for door in here.doors.open:
            if door.upstream in places:
                door.within(0)
        assert (await waiting).status == 503
    assert not places


async def test_a_line_has_an_end(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "LINE_MAX", 0)
    replica = here.add()
    await here.publish(replicas=(replica.replica(state="standby"),))
    assert (await here.get()).status == 503


# -- what counts as a miss -----------------------------------------------------------------------------
class Waits:
    """A stream on which nothing came yet."""

    cut = False

    def abort(self) -> None:
        self.cut = True


def two() -> tuple[Live, Backend, Backend, Waits]:
    """A deployment with two replicas, and a request that waits at the first."""
    replicas = tuple(
        Replica(NodeKey(bytes([n]) * 32), LeaseId(bytes([n]) * 16), (("web", "ab" * 32),), b"")
        for n in (1, 2)
    )
    made = Live(INGRESS, Document(TENANT, "shop", 1, Instant(0), (WEB,), replicas, ()), Count())
    one, other = made.backends.values()
    one.waiting.add(waits := Waits())  # type: ignore[arg-type]
    return made, one, other, waits


def test_what_breaks_together_is_one_miss() -> None:
    made, one, _, waits = two()
    for broke_at in range(10, 110):
        made.missed(one, 5.0 + broke_at / 100, broke_at)
    assert one.misses == 1
    assert not waits.cut
    made.missed(one, 120.0, 121.0)
    assert one.misses == 2
    assert waits.cut


def test_a_check_that_is_late_is_no_miss_of_who_answered_others_meanwhile() -> None:
    made, one, _, _ = two()
    made.answered(one, 10.5)
    made.missed(one, 10.0, 11.0)
    assert not one.down
    made.missed(one, 10.5, 11.5)
    assert one.down


def test_nobody_is_cut_before_there_is_somebody_else() -> None:
    made, one, other, waits = two()
    made.missed(other, 0.0, 1.0)
    for at in (1.0, 2.0, 3.0):
        made.missed(one, at, at)
    assert not waits.cut
    made.answered(other, 4.0)
    assert waits.cut
    assert one.misses == 3


# -- several containers of a service -------------------------------------------------------------------
async def test_containers_of_one_service_share_its_requests_and_stand_in_for_each_other(here: Lab) -> None:
    """``deploy.replicas`` within one lease."""
    replica = here.add()
    one, other = "01" * 32, "0f" * 32
    await here.publish(replicas=(replica.replica(services=(("web", one), ("web", other))),))
    assert {(await here.get()).status for _ in range(20)} == {200}
    assert asked(replica) == {one, other}

    replica.shut = {one}
    replica.cut("up")
    replica.headers.clear()
    assert {(await here.get()).status for _ in range(20)} == {200}
    signs = here.host.signs(INGRESS)
    assert signs is not None
    assert [sign.misses for sign in signs.replicas] == [0], "the replica as a whole is well"
    await here.publish(epoch=2, replicas=(replica.replica(services=(("web", other),)),))
    replica.headers.clear()
    assert (await here.get()).status == 200
    assert asked(replica) == {other}


def asked(replica: FakeReplica) -> set[str]:
    return {header.container for header in replica.headers if isinstance(header, Tunnel)}
