"""Two machines of one user: linked by a code, and a cloud of their own without a market, a wallet or a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import FREE, FREE_POLICY, POLICY, Peer, World, until
from dockage.adapters.pairing import SpakeSide
from dockage.daemon.linking import LIFE, Shown
from dockage.daemon.own import ASK_EVERY
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.lease import LeaseState
from dockage.protocol import own as said
from dockage.protocol import pairing, streams
from dockage.protocol.adverts import Advert
from dockage.protocol.own import Told
from dockage.protocol.records import open_record
from dockage.testing.keys import verify
from dockage.wire.frames import read_frame, write_frame

PRIVATE = replace(POLICY, only_own=True)
"""As ``provide --only-for own`` with the preset fair."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def node(world: World, number: int, policy: Any = None, **how: Any) -> Peer:
    peer = world.peer(number, policy, wallet=False, **how)
    peer.start()
    return peer


async def link(shows: Peer, types: Peer) -> None:
    shown = shows.node.linking.offer()
    await types.node.linking.accept(shown.password)
    await until(lambda: shown.state == "linked", 5)


async def test_the_short_code_makes_each_know_the_other(world: World) -> None:
    desk, laptop = node(world, 1), node(world, 2)
    shown = desk.node.linking.offer()
    machine = await laptop.node.linking.accept(shown.password.upper().replace("-", " "))
    assert (machine.key, machine.name, machine.direct) == (desk.keys.node, "machine-1", ("127.0.0.1:2001",))
    await until(lambda: shown.state == "linked", 5)
    assert [x.key for x in desk.node.machines] == [laptop.keys.node]
    await until(lambda: not world.lan.said, 5)


async def test_the_long_code_needs_no_local_network(world: World) -> None:
    desk, laptop = node(world, 1), node(world, 2)
    shown = desk.node.linking.offer()
    code = desk.node.linking.long_form(shown)
    world.lan.said.clear()
    await laptop.node.linking.accept(code)
    assert desk.keys.node in laptop.node.machines


async def test_a_wrong_code_has_one_try_and_then_the_right_one_is_refused_too(world: World) -> None:
    desk, thief, laptop = node(world, 1), node(world, 2), node(world, 3)
    shown = desk.node.linking.offer()
    with pytest.raises(UsageError) as caught:
        await thief.node.linking.accept(guess(shown))
    assert caught.value.code == "link.wrong-code"
    assert (shown.state, shown.code) == ("closed", "link.tried")
    with pytest.raises(Unavailable) as late:
        await laptop.node.linking.accept(desk.node.linking.long_form(shown))
    assert late.value.code == "link.broken"
    assert not [*desk.node.machines, *thief.node.machines, *laptop.node.machines]


async def test_whoever_begins_and_goes_silent_has_used_the_code_up(world: World) -> None:
    desk, thief = node(world, 1), node(world, 2)
    shown = desk.node.linking.offer()
    thief.node.link.learn(desk.keys.node, desk.node.link.address())
    stream = await thief.node.link.open(desk.keys.node)
    await write_frame(stream, streams.encode_header(streams.Pairing(shown.number)))
    await until(lambda: shown.state == "trying", 5)
    await until(lambda: shown.state == "closed", 60)
    assert shown.code == "link.tried"


async def test_a_man_in_the_middle_has_other_keys(world: World) -> None:
    """He shows the same number, passes every byte on, and nobody is linked with anybody."""
    desk, middle, laptop = node(world, 1), node(world, 2), node(world, 3)
    shown = desk.node.linking.offer()
    await until(lambda: world.lan.said, 5)

    async def pass_on(_peer: Any, header: Any, stream: Any) -> None:
        onward = await middle.node.link.open(desk.keys.node)
        await write_frame(onward, streams.encode_header(header))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copy(stream, onward))
            tasks.create_task(copy(onward, stream))

    middle.node.link.learn(desk.keys.node, desk.node.link.address())
    middle.node.reception.serve_kind(streams.Pairing, pass_on)
    mine = world.lan.said.pop(desk.keys.node)
    address = middle.node.link.address().direct
    world.lan.said[middle.keys.node] = Advert(middle.keys.node, mine.network, address, False, mine.pairing)
    with pytest.raises(DockageError):
        await laptop.node.linking.accept(shown.password)
    await until(lambda: shown.state == "closed", 60)
    assert not [*desk.node.machines, *middle.node.machines, *laptop.node.machines]


async def copy(source: Any, sink: Any) -> None:
    try:
        while data := await source.read(4096):
            await sink.write(data)
        await sink.finish()
    except Unavailable:
        sink.abort()


async def test_two_that_show_one_number_are_told_to_use_the_long_code(world: World) -> None:
    desk, other, laptop = node(world, 1), node(world, 2), node(world, 3)
    shown = desk.node.linking.offer()
    await until(lambda: world.lan.said, 5)
    mine = next(iter(world.lan.said.values()))
    world.lan.said[other.keys.node] = mine._replace(key=other.keys.node)
    with pytest.raises(UsageError) as caught:
        await laptop.node.linking.accept(shown.password)
    assert caught.value.code == "link.not-found"
    assert "more than one" in caught.value.message
    assert shown.state == "waiting"


async def test_a_code_ends_after_ten_minutes(world: World) -> None:
    desk, laptop = node(world, 1), node(world, 2)
    shown = desk.node.linking.offer()
    await asyncio.sleep(LIFE - 5)
    assert shown.state == "waiting"
    await asyncio.sleep(6)
    assert (shown.state, shown.code) == ("closed", "link.late")
    assert world.lan.said == {}
    with pytest.raises(UsageError) as caught:
        await laptop.node.linking.accept(shown.password)
    assert caught.value.code == "link.not-found"


async def test_a_code_that_is_taken_back_or_replaced_ends(world: World) -> None:
    desk, laptop = node(world, 1), node(world, 2)
    first = desk.node.linking.offer()
    second = desk.node.linking.offer()
    assert (first.state, second.state) == ("closed", "waiting")
    desk.node.linking.cancel()
    await until(lambda: not world.lan.said, 5)
    with pytest.raises(Unavailable):
        await laptop.node.linking.accept(desk.node.linking.long_form(second))
    assert not list(desk.node.machines)


async def test_it_cannot_be_typed_where_it_is_shown(world: World) -> None:
    desk = node(world, 1)
    shown = desk.node.linking.offer()
    with pytest.raises(UsageError) as caught:
        await desk.node.linking.accept(desk.node.linking.long_form(shown))
    assert caught.value.code == "link.self"
    assert shown.state == "waiting"


async def test_without_the_extra_only_the_long_code_works(world: World) -> None:
    desk = node(world, 1)
    laptop = world.peer(2, wallet=False, lan=False)
    laptop.start()
    shown = desk.node.linking.offer()
    with pytest.raises(UsageError) as caught:
        await laptop.node.linking.accept(shown.password)
    assert caught.value.code == "lan.missing"
    await laptop.node.linking.accept(desk.node.linking.long_form(shown))
    assert not laptop.node.linking.on_lan


# -- the private cloud -----------------------------------------------------------------------------------
async def test_a_lease_on_an_own_machine_costs_nothing_and_takes_no_wallet_chain_or_market(
    world: World,
) -> None:
    desk, laptop = node(world, 1, PRIVATE), node(world, 2)
    await link(desk, laptop)
    lease = await laptop.rent()
    await asyncio.sleep(30)
    assert laptop.rented(lease).state is LeaseState.RUNNING
    assert laptop.rented(lease).due == desk.sold(lease).due == 0
    assert not laptop.node.tenant.state.channels
    await laptop.node.renting.release(lease)
    await until(lambda: desk.sold(lease).state is LeaseState.ENDED)


async def test_what_only_own_machines_may_rent_is_on_no_board(world: World) -> None:
    desk, laptop, stranger = node(world, 1, PRIVATE), node(world, 2), node(world, 3)
    await link(desk, laptop)
    await asyncio.sleep(60)
    assert [x.offer.provider for x in await laptop.node.market.search()] == [desk.keys.node]
    assert await stranger.node.market.search() == ()
    desk.node.link.learn(stranger.keys.node, stranger.node.link.address())
    assert await ask(stranger, desk) == Told(linked=False)


async def test_the_market_sees_the_price_and_the_own_machine_does_not_pay_it(world: World) -> None:
    desk = await world.provider(1)
    laptop, stranger = node(world, 2), node(world, 3)
    await link(desk, laptop)
    (mine,), (theirs,) = await laptop.node.market.search(), await stranger.node.market.search()
    assert mine.offer.tariff == FREE
    assert theirs.offer.tariff == POLICY.tariff
    assert laptop.keys.node not in theirs.offer.free_for
    await laptop.rent()


async def test_with_no_market_anywhere_the_own_machines_still_find_each_other(world: World) -> None:
    async def nobody(_: bytes) -> Sequence[bytes]:
        raise Unavailable("market.unreachable", "no market node answers")

    world.board.search = nobody  # type: ignore[method-assign]
    desk, laptop, stranger = node(world, 1, PRIVATE), node(world, 2), node(world, 3)
    await link(desk, laptop)
    assert len(await laptop.node.market.search()) == 1
    with pytest.raises(Unavailable):
        await stranger.node.market.search()


async def test_both_ends_remember_over_a_restart_and_say_where_they_are_now(world: World) -> None:
    desk, laptop = node(world, 1, PRIVATE), node(world, 2)
    await link(desk, laptop)
    await desk.restart()
    await laptop.restart()
    await asyncio.sleep(2 * ASK_EVERY)
    assert laptop.node.own.seen(desk.keys.node).sells
    assert await laptop.rent()


async def test_a_removed_machine_pays_or_is_not_served(world: World) -> None:
    desk, laptop = node(world, 1, PRIVATE), node(world, 2)
    await link(desk, laptop)
    old = await laptop.rent()
    await desk.node.machines.remove(laptop.keys.node)
    await asyncio.sleep(ASK_EVERY)
    assert laptop.rented(old).state is LeaseState.RUNNING
    assert not laptop.node.own.seen(desk.keys.node).linked
    assert await laptop.node.market.search() == ()
    assert desk.node.provider is not None
    assert not desk.node.provider.state.policy.serves(laptop.keys.node)
    await desk.restart()
    assert laptop.keys.node not in desk.node.machines


async def test_who_is_blocked_is_blocked_even_if_linked(world: World) -> None:
    desk = node(world, 1, replace(PRIVATE, blocked=frozenset()))
    laptop = node(world, 2)
    await link(desk, laptop)
    assert desk.node.provider is not None
    policy = desk.node.provider.state.policy
    assert policy.serves(laptop.keys.node)
    assert not replace(policy, blocked=frozenset({laptop.keys.node})).serves(laptop.keys.node)


async def test_a_blocked_tenant_gets_no_lease_and_others_do(world: World) -> None:
    bad, good = node(world, 2), node(world, 3)
    await world.provider(1, replace(FREE_POLICY, blocked=frozenset({bad.keys.node})), wallet=False)
    with pytest.raises(UsageError) as caught:
        await bad.rent()
    assert caught.value.code == "provider.not-for-you"
    assert await good.rent()


async def test_who_is_blocked_loses_what_runs_at_the_next_start(world: World) -> None:
    bad, good = node(world, 2), node(world, 3)
    desk = await world.provider(1, FREE_POLICY, wallet=False)
    theirs, others = await bad.rent(), await good.rent()
    desk.policy = replace(FREE_POLICY, blocked=frozenset({bad.keys.node}))
    await desk.restart()
    await until(lambda: bad.rented(theirs).is_over)
    assert bad.rented(theirs).reason.code == "provider.blocked"
    assert good.rented(others).state is LeaseState.RUNNING


# -- lies ------------------------------------------------------------------------------------------------
async def test_a_linked_machine_cannot_show_anothers_offer_or_nonsense(world: World) -> None:
    desk, laptop = node(world, 1, PRIVATE), node(world, 2)
    third = node(world, 3, PRIVATE)
    await link(desk, laptop)
    await link(third, laptop)
    await asyncio.sleep(2 * ASK_EVERY)
    foreign = (await ask(laptop, third)).record

    for lie in (said.encode(Told(True, foreign)), b"\xc1", said.encode(Told(True, b"x" * 3000)), b""):

        async def lying(_peer: Any, _header: Any, stream: Any, lie: bytes = lie) -> None:
            await write_frame(stream, lie)
            await stream.finish()

        desk.node.reception.serve_kind(streams.Own, lying)
        await asyncio.sleep(2 * ASK_EVERY)
        assert [x.offer.provider for x in await laptop.node.market.search()] == [third.keys.node]


async def test_what_is_told_to_a_machine_is_its_own_price_and_nobodys_key(world: World) -> None:
    friend = node(world, 4)
    desk = node(world, 1, replace(POLICY, only_for=(friend.keys.node,), free_for=(friend.keys.node,)))
    laptop = node(world, 2)
    await link(desk, laptop)
    record = open_record((await ask(laptop, desk)).record, verify, world.clock.now())
    offer = record.body.offer
    assert (offer.only_for, offer.free_for, offer.tariff) == ((), (), FREE)


async def ask(peer: Peer, other: Peer) -> Told:
    peer.node.link.learn(other.keys.node, other.node.link.address())
    stream = await peer.node.link.open(other.keys.node)
    await write_frame(stream, streams.encode_header(streams.Own()))
    await stream.finish()
    return said.decode(await read_frame(stream, said.TOLD_MAX))


def guess(shown: Shown) -> str:
    return pairing.new_code(int(shown.number), b"\0\0\0\0")


def test_spake_with_another_password_gives_another_secret() -> None:
    parties = (b"a", b"b")
    host = SpakeSide("1", parties, first=True)
    for password, same in (("1", True), ("2", False)):
        guest = SpakeSide(password, parties, first=False)
        fresh = SpakeSide("1", parties, first=True)
        assert (guest.finish(fresh.message) == fresh.finish(guest.message)) is same
    assert len(host.message) <= 64
    for odd in (b"", b"B", b"B" + bytes(31), b"A" + bytes(32), b"B" + b"\xff" * 32, host.message):
        with pytest.raises(DockageError) as caught:
            SpakeSide("1", parties, first=True).finish(odd)
        assert caught.value.code == "link.malformed"
