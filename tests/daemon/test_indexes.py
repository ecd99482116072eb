"""Indexes of the market: how one learns, what it answers, and every way in which it can lie to a searcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import CONFIG, FREE_POLICY, NEED, Peer, World, until
from dockage.daemon import indexing
from dockage.daemon.queries import SETTLED, Answer
from dockage.domain.errors import Unavailable
from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish
from dockage.domain.query import Query, Rank
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MINUTE, Duration, Instant, Msat
from dockage.ports.peers import Stream
from dockage.protocol import streams
from dockage.protocol.index_messages import Announce, Ask, Selection, Taken, decode_answer, encode
from dockage.protocol.records import LIFETIME, IndexBody, indexes_topic, seal
from dockage.testing.directory import sealed_offer
from dockage.testing.keys import MemoryKeys
from dockage.wire.frames import read_frame, write_frame

INDEX = replace(CONFIG, node=replace(CONFIG.node, index=True))
SMALL = replace(FREE_POLICY, capacity=Resources(500, GIB, 10 * GIB))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def index(world: World, number: int = 50) -> Peer:
    peer = world.peer(number, config=INDEX, wallet=False)
    peer.start()
    await until(lambda: peer.node.indexer and not peer.node.indexer.refused)
    await asyncio.sleep(1)
    return peer


def wish(tenant: Peer, **more: Any) -> Wish:
    return replace(Wish(tenant.keys.node, NEED), **more)


async def ask(tenant: Peer, **how: Any) -> Answer:
    query = {name: how.pop(name) for name in ("near", "per_net") if name in how}
    return await tenant.node.renting.queries.ask(Query(wish(tenant, **how), **query))


def providers(answer: Answer) -> list[NodeKey]:
    return [x.offer.provider for x in answer.found]


# -- learning and answering ----------------------------------------------------------------------------
async def test_an_index_hears_of_an_offer_at_once_and_of_its_withdrawal(world: World) -> None:
    directory = await index(world)
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    assert directory.node.indexer is not None
    assert len(directory.node.indexer.book) == 1
    answer = await ask(tenant)
    assert (providers(answer), answer.indexes) == ([provider.keys.node], (directory.keys.node,))
    assert (answer.fitting, answer.known) == (1, 1)
    assert provider.node.notice is not None
    await provider.node.notice.leave()
    assert providers(await ask(tenant)) == []


async def test_an_index_reads_what_stood_on_the_board_before_it_came(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    await index(world)
    tenant = await world.tenant(coins=(), wallet=False)
    assert providers(await ask(tenant)) == [provider.keys.node]


async def test_a_lease_is_rented_by_way_of_an_index(world: World) -> None:
    await index(world)
    await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    assert tenant.rented(await tenant.rent()).state == "running"


@pytest.mark.parametrize("many", [indexing.MANY, 1])
async def test_what_does_not_fit_comes_last_and_only_if_asked_for(
    world: World, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the book is so large that a thread ranks it, or not."""
    monkeypatch.setattr(indexing, "MANY", many)
    await index(world)
    small, large = await world.provider(1, SMALL), await world.provider(3, FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    assert providers(await ask(tenant)) == [large.keys.node]
    near = await ask(tenant, near=True)
    assert providers(near) == [large.keys.node, small.keys.node]
    assert (near.fitting, near.known) == (1, 2)


async def test_without_an_index_the_board_answers_the_same(world: World) -> None:
    small, large = await world.provider(1, SMALL), await world.provider(3, FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    answer = await ask(tenant, near=True)
    assert providers(answer) == [large.keys.node, small.keys.node]
    assert (answer.fitting, answer.known, answer.indexes) == (1, 2, ())


async def test_an_index_named_in_the_config_is_asked_first(world: World) -> None:
    directory = await index(world)
    await world.provider(policy=FREE_POLICY)
    where = f"{directory.keys.node.hex()}@{directory.node.link.address().direct[0]}"
    named = replace(CONFIG, node=replace(CONFIG.node, indexes=(where,)))
    tenant = await world.tenant(coins=(), wallet=False, config=named)
    assert (await ask(tenant)).indexes == (directory.keys.node,)


# -- lies --------------------------------------------------------------------------------------------
Reply = Callable[[Stream], Awaitable[None]]


async def liar(world: World, reply: Reply, number: int = 60) -> Peer:
    """On the board as an index; answers what *reply* writes."""
    peer = world.peer(number, wallet=False)
    peer.start()
    now = world.clock.now()
    here = peer.node.link.address()
    body = IndexBody(now, Instant(now + LIFETIME), "earth", here.relay, here.direct)
    await world.board.publish(indexes_topic("earth"), seal("index", peer.keys.node, body, peer.keys.sign))

    async def serve(_peer: NodeKey, _header: Any, stream: Stream) -> None:
        try:
            await read_frame(stream, 1 << 20)
            await reply(stream)
            await stream.finish()
        except Unavailable:
            stream.abort()

    peer.node.reception.serve_kind(streams.Index, serve)
    return peer


def says(records: Sequence[bytes], *, more: bool = False, last: Rank | None = None, known: int = 9) -> Reply:
    async def reply(stream: Stream) -> None:
        await write_frame(stream, encode(Selection(tuple(records), more, last, len(records), known)))

    return reply


async def silence(_: Stream) -> None:
    await asyncio.sleep(3600)


async def too_much(stream: Stream) -> None:
    await write_frame(stream, bytes(1 << 18))


async def garbage(stream: Stream) -> None:
    await write_frame(stream, b"\xc1")


async def beside_the_point(stream: Stream) -> None:
    await write_frame(stream, encode(Taken((True,))))


def an_offer(world: World, number: int = 70, **how: Any) -> bytes:
    """Free to nobody in particular: does not fit a tenant without a wallet."""
    return sealed_offer(MemoryKeys(number), world.clock.now(), "earth", **how)[1]


async def caught(world: World, reply: Reply, code: str) -> None:
    """The searcher finds the offer all the same, and does not ask that index again."""
    provider = await world.provider(policy=FREE_POLICY)
    lying = await liar(world, reply)
    tenant = await world.tenant(coins=(), wallet=False)
    answer = await ask(tenant)
    assert (providers(answer), answer.indexes) == ([provider.keys.node], ())
    indexes = tenant.node.renting.queries._indexes
    assert indexes.refused == {code: 1}
    assert lying.keys.node not in await indexes.of("earth")


async def test_a_forged_offer(world: World) -> None:
    await caught(world, says([an_offer(world).replace(b"x86_64", b"x86_65")]), "record.signature")


async def test_an_offer_that_was_not_asked_for(world: World) -> None:
    await caught(world, says([an_offer(world)]), "index.unasked")


async def test_a_record_that_is_no_offer(world: World) -> None:
    keys, now = MemoryKeys(70), world.clock.now()
    body = IndexBody(now, Instant(now + MINUTE), "earth", "", ())
    await caught(world, says([seal("index", keys.node, body, keys.sign)]), "index.unasked")


async def test_more_offers_than_were_asked_for(world: World) -> None:
    await caught(world, says([b"x"] * 65, known=99), "index.unasked")


async def test_a_page_without_end(world: World) -> None:
    """Each says that there is more, and begins where the one before it did."""
    last = Rank(0, Msat(0), NodeKey(bytes(32)))
    await caught(world, says([], more=True, last=last), "index.stuck")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (silence, "index.silent"),
        (too_much, "frame.oversized"),
        (garbage, "index.malformed"),
        (beside_the_point, "index.out-of-turn"),
        (says([b"x" * 4000]), "index.out-of-range"),
    ],
)
async def test_no_answer_or_none_that_can_be_read(world: World, reply: Reply, code: str) -> None:
    await caught(world, reply, code)


class Loaded:
    """Dice that fall on the shard of one provider."""

    def __init__(self, provider: Peer) -> None:
        self._shard = provider.keys.node[0]

    def randrange(self, _: int) -> int:
        return self._shard


@pytest.mark.parametrize("per_net", [0, 1])
async def test_an_offer_that_is_left_out(world: World, per_net: int) -> None:
    """No signature shows it: the shard that is read beside the index does."""
    provider = await world.provider(policy=FREE_POLICY)
    await asyncio.sleep(SETTLED / 1e9 + 1)
    await liar(world, says([]))
    tenant = await world.tenant(coins=(), wallet=False)
    queries = tenant.node.renting.queries
    queries._rand = Loaded(provider)  # type: ignore[assignment]
    answer = await ask(tenant, per_net=per_net)
    assert (providers(answer), answer.indexes) == ([provider.keys.node], ())
    assert queries._indexes.refused == {"index.hides": 1}


async def test_an_index_that_says_there_is_more_and_shows_nothing(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    await asyncio.sleep(SETTLED / 1e9 + 1)
    await liar(world, says([], more=True))
    tenant = await world.tenant(coins=(), wallet=False)
    queries = tenant.node.renting.queries
    queries._rand = Loaded(provider)  # type: ignore[assignment]
    assert providers(await ask(tenant)) == [provider.keys.node]
    assert queries._indexes.refused == {"index.hides": 1}


async def test_an_offer_that_has_run_out(world: World) -> None:
    """Clocks differ, so nobody is blamed; nobody sees it either."""
    old = sealed_offer(MemoryKeys(70), Instant(world.clock.now() - 2 * LIFETIME), "earth")[1]
    await liar(world, says([old]))
    tenant = await world.tenant(coins=(), wallet=False)
    answer = await ask(tenant, near=True)
    assert (providers(answer), len(answer.indexes)) == ([], 1)


async def test_what_one_index_leaves_out_another_shows(world: World) -> None:
    await index(world)
    provider = await world.provider(policy=FREE_POLICY)
    await liar(world, says([]))
    tenant = await world.tenant(coins=(), wallet=False)
    answer = await ask(tenant)
    assert providers(answer) == [provider.keys.node]
    assert len(answer.indexes) == 2


async def test_an_older_offer_in_place_of_the_newest(world: World) -> None:
    """The newest seal counts, wherever it is seen."""
    provider = await world.provider(policy=FREE_POLICY)
    [topic] = [
        t
        for t, held in world.board._store._topics.items()
        if provider.keys.node in held and len(t) == 32 and held[provider.keys.node].kind == "offer"
    ]
    old = world.board._store._topics[topic][provider.keys.node].blob
    tenant = await world.tenant(coins=(), wallet=False)
    await tenant.rent(need=Resources(3000, GIB, GIB))  # what is left fits no more
    await asyncio.sleep(SETTLED / 1e9 + 5)
    await liar(world, says([old]))
    queries = tenant.node.renting.queries
    queries._rand = Loaded(provider)  # type: ignore[assignment]
    assert providers(await ask(tenant, limits=Resources(2000, GIB, GIB))) == []
    assert queries._indexes.refused == {"index.stale": 1}


# -- to the index ------------------------------------------------------------------------------------
async def exchange(peer: Peer, to: Peer, frame: bytes) -> Any:
    stream = await peer.node.link.open(to.keys.node)
    await write_frame(stream, streams.encode_header(streams.Index()))
    await write_frame(stream, frame)
    await stream.finish()
    return decode_answer(await read_frame(stream, 1 << 18))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda world: an_offer(world).replace(b"x86_64", b"x86_65"), "record.signature"),
        (lambda world: sealed_offer(MemoryKeys(7), world.clock.now(), "mars")[1], "index.foreign"),
        (lambda world: an_offer(world, lifetime=Duration(1000)), "record.expired"),
        (lambda _: b"garbage", "record.malformed"),
    ],
)
async def test_what_an_index_does_not_take(world: World, make: Callable[[World], bytes], code: str) -> None:
    directory, other = await index(world), world.peer(9, wallet=False)
    other.start()
    other.node.link.learn(directory.keys.node, directory.node.link.address())
    blob = make(world)
    await asyncio.sleep(1)
    assert await exchange(other, directory, encode(Announce((blob,)))) == Taken((False,))
    assert directory.node.indexer is not None
    assert directory.node.indexer.refused == {code: 1}
    assert len(directory.node.indexer.book) == 0


async def test_an_older_announcement_replaces_nothing(world: World) -> None:
    directory, other = await index(world), world.peer(9, wallet=False)
    other.start()
    other.node.link.learn(directory.keys.node, directory.node.link.address())
    old = an_offer(world, cpu=1000)
    await asyncio.sleep(1)
    new = an_offer(world, cpu=2000)
    assert await exchange(other, directory, encode(Announce((new, old)))) == Taken((True, False))


@pytest.mark.parametrize("frame", [b"", b"\xc1", bytes(1 << 15), encode(Announce(()))])
async def test_garbage_ends_its_stream_and_nothing_else(world: World, frame: bytes) -> None:
    directory, other = await index(world), world.peer(9, wallet=False)
    other.start()
    other.node.link.learn(directory.keys.node, directory.node.link.address())
    with pytest.raises(Unavailable):
        await exchange(other, directory, frame)
    query = Query(Wish(other.keys.node, NEED))
    assert isinstance(await exchange(other, directory, encode(Ask(query))), Selection)


async def test_a_flood_of_questions_is_cut_off(world: World) -> None:
    directory, other = await index(world), world.peer(9, wallet=False)
    other.start()
    other.node.link.learn(directory.keys.node, directory.node.link.address())
    frame = encode(Ask(Query(Wish(other.keys.node, NEED))))
    for _ in range(60):
        await exchange(other, directory, frame)
    with pytest.raises(Unavailable):
        await exchange(other, directory, frame)
    assert directory.node.indexer is not None
    assert directory.node.indexer.refused == {"index.flood": 1}
