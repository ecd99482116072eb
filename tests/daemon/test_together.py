"""Closes by both between whole nodes: who gets what, and that no lie, silence or crash costs more than fifty vbytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from daemon.nodes import BUSY, POLICY, Peer, World, assert_settled, rent_paid, until
from dockage.daemon import views
from dockage.daemon.node import Node
from dockage.domain.channel import ChannelState
from dockage.domain.errors import DockageError
from dockage.domain.units import Sat
from dockage.node import events as told
from dockage.protocol import messages as say
from dockage.protocol.bitcoin.channel import Commitment
from dockage.protocol.bitcoin.sighash import DEFAULT, taproot_digest
from dockage.protocol.bitcoin.tx import Tx, parse
from dockage.protocol.streams import Messages, encode_header
from dockage.wire.frames import write_frame

COINS = 100_000
CLOSED, CLOSING, OPEN = ChannelState.CLOSED, ChannelState.CLOSING, ChannelState.OPEN
OTHER_NONCE = bytes.fromhex("02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798") * 2
"""Twice the generator: a nonce of BIP327, though nobody in their senses would draw it."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


# -- lies on the way -----------------------------------------------------------------------------------
Change = Callable[[Any], Iterable[say.AnyMessage]]


def mouth(kind: type, change: Change) -> Callable[[Node], None]:
    """What a node says of *kind* is changed, doubled or swallowed."""

    def ear(node: Node) -> None:
        driver = node.provider if kind is say.ProposeClose else node.tenant
        postman: Any = driver._perform.__self__._postman  # type: ignore[union-attr]
        inner = postman.send

        def send(to: Any, message: Any) -> None:
            for each in change(message) if isinstance(message, kind) else (message,):
                inner(to, each)

        postman.send = send

    return ear


async def begun(
    world: World, *, tenant: Any = None, provider: Any = None, paid: int = 600
) -> tuple[Peer, Peer]:
    """A lease that was paid for, and has ended; nobody has asked for a close."""
    ears = [{"ear": ear} if ear else {} for ear in (provider, tenant)]
    one = await world.provider(**ears[0])
    other = await world.tenant(coins=(COINS,), **ears[1])
    lease = await rent_paid(world, other)
    if paid:
        one.host.start(lease, "busy", BUSY)
        await until(lambda: one.earning.paid >= paid)
    await other.node.renting.release(lease)
    await until(lambda: one.earning.paid == other.paying.paid)
    return one, other


async def ask(tenant: Peer) -> None:
    await tenant.node.tenant.tell(told.CloseRequested(tenant.paying.id))


async def close(world: World, provider: Peer, tenant: Peer) -> Tx:
    """The close as it got into the chain."""
    await ask(tenant)
    await until(lambda: provider.earning.spending)
    await world.mine(6)
    await until(lambda: provider.earning.state is tenant.paying.state is CLOSED)
    return closed_by(world, provider)


def closed_by(world: World, peer: Peer, channel: Any = None) -> Tx:
    (tx,) = [
        tx
        for block in world.chain.blocks
        for tx in block
        if tx.txid == (channel or peer.earning).settled_txid
    ]
    return tx


def is_by_both(tx: Tx) -> bool:
    return [len(witness) for witness in tx.witnesses] == [1]


def is_valid(peer: Peer, tx: Tx) -> bool:
    """The fake chain checks no signature, so the test does."""
    commitment: Commitment = peer.node.rail.commitment(peer.earning)  # type: ignore[union-attr]
    digest = taproot_digest(tx, 0, (commitment.coin,), DEFAULT)
    return peer.node.rail.curve.verify(commitment.coin.script[2:], digest, tx.witnesses[0][0])  # type: ignore[union-attr]


# -- the good way --------------------------------------------------------------------------------------
async def test_both_know_the_close_that_they_signed_before_it_is_in_a_block(world: World) -> None:
    provider, tenant = await begun(world)
    await ask(tenant)
    await until(lambda: provider.earning.spending and tenant.paying.agreed_txid)
    assert provider.earning.spending[-1].txid == provider.earning.agreed_txid == tenant.paying.agreed_txid
    shown = views.channel(tenant.paying, "paying", 0, 1000)
    assert (shown["closing_txid"], shown["signed_by_both"]) == (tenant.paying.agreed_txid, True)
    assert not shown["settled"]


async def test_both_close_and_everybody_has_what_is_theirs(world: World) -> None:
    provider, tenant = await begun(world)
    tx = await close(world, provider, tenant)
    assert is_by_both(tx)
    assert is_valid(provider, tx)
    assert (tx.version, tx.vsize) == (3, 154)
    await assert_settled(tenant, provider, COINS)
    assert tenant.node.reception.refused == provider.node.reception.refused == {}


async def test_the_provider_may_want_it_too(world: World) -> None:
    provider, tenant = await begun(world)
    assert provider.node.provider is not None
    await provider.node.provider.tell(told.CloseRequested(provider.earning.id))
    await until(lambda: provider.earning.spending)
    await world.mine(6)
    assert is_by_both(closed_by(world, provider))
    await assert_settled(tenant, provider, COINS)


async def test_what_no_close_is_worth_is_back_at_once(world: World) -> None:
    provider, tenant = await begun(world, paid=100)
    assert 100 <= tenant.paying.paid < 484
    before = await tenant.worth()
    tx = await close(world, provider, tenant)
    assert is_by_both(tx)
    assert tx.vsize == 111
    assert await tenant.worth() == before + tenant.paying.terms.capacity - 111
    assert await provider.worth() == 0
    assert provider.earning.is_given_back


async def test_high_fees_are_waited_out_and_nothing_is_given_back(world: World) -> None:
    """A tenant that could have its money back by asking when fees are high would not pay at all."""
    provider, tenant = await begun(world)
    world.chain.rate = 20_000
    await ask(tenant)
    await until(lambda: provider.earning.reason is not None)
    assert provider.earning.reason.code == "channel.uneconomic"
    await world.mine(3)
    assert not world.chain.mempool
    assert provider.earning.state is CLOSING
    world.chain.rate = 1000
    await world.mine()
    await until(lambda: provider.earning.spending)
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


# -- silence, and lies of the tenant -------------------------------------------------------------------
async def test_a_tenant_that_never_answers_costs_five_seconds(world: World) -> None:
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, lambda _: ()))
    await ask(tenant)
    await until(lambda: provider.earning.state is CLOSING)
    await asyncio.sleep(4)
    assert not provider.earning.spending
    await until(lambda: provider.earning.spending, 5)
    await world.mine(6)
    assert len(closed_by(world, provider).witnesses[0]) == 4
    await assert_settled(tenant, provider, COINS)


async def test_a_tenant_that_is_away_costs_five_seconds(world: World) -> None:
    provider, tenant = await begun(world)
    await tenant.stop()
    assert provider.node.provider is not None
    await provider.node.provider.tell(told.CloseRequested(provider.earning.id))
    await until(lambda: provider.earning.spending, 15)
    tenant.start()
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


LIES: dict[str, Change] = {
    "a forged half": lambda m: [replace(m, signature=bytes(31) + b"\1")],
    "a half of zeros": lambda m: [replace(m, signature=bytes(32))],
    "a half beyond the order": lambda m: [replace(m, signature=b"\xff" * 32)],
    "another nonce than it was made with": lambda m: [replace(m, nonce=OTHER_NONCE)],
    "our own nonce as its own": lambda m: [replace(m, nonce=m.asked)],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_half_that_is_wrong_is_counted_and_the_close_made_alone(world: World, lie: str) -> None:
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, LIES[lie]))
    tx = await close(world, provider, tenant)
    assert provider.node.reception.refused["close.partial"] == 1
    assert len(tx.witnesses[0]) == 4
    await assert_settled(tenant, provider, COINS)


async def test_a_nonce_that_is_none_is_counted_and_the_close_made_alone(world: World) -> None:
    provider, tenant = await begun(
        world, tenant=mouth(say.AgreeClose, lambda m: [replace(m, nonce=bytes(66))])
    )
    await close(world, provider, tenant)
    assert provider.node.reception.refused["close.nonce"] == 1
    await assert_settled(tenant, provider, COINS)


async def test_after_a_bad_half_a_good_one_comes_too_late(world: World) -> None:
    """Our nonce was used up by the first answer: a second one would see it again."""
    twice = mouth(say.AgreeClose, lambda m: [replace(m, signature=bytes(31) + b"\1"), m])
    provider, tenant = await begun(world, tenant=twice)
    tx = await close(world, provider, tenant)
    assert provider.node.reception.refused["close.partial"] == 1
    assert len(tx.witnesses[0]) == 4


async def test_a_half_said_again_changes_nothing(world: World) -> None:
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, lambda m: [m, m, m]))
    tx = await close(world, provider, tenant)
    assert is_by_both(tx)
    assert len(provider.earning.spending) == 1
    assert provider.node.reception.refused == {}


@pytest.mark.parametrize(
    "lie",
    [lambda m: replace(m, asked=OTHER_NONCE), lambda m: replace(m, channel=m.channel[::-1])],
    ids=["for another session", "for another channel"],
)
async def test_a_half_for_something_else_is_not_used(world: World, lie: Any) -> None:
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, lambda m: [lie(m)]))
    tx = await close(world, provider, tenant)
    assert len(tx.witnesses[0]) == 4
    await assert_settled(tenant, provider, COINS)


async def test_a_half_that_comes_after_the_close_alone_makes_no_second_close(world: World) -> None:
    held: list[say.AgreeClose] = []
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, lambda m: held.append(m) or ()))
    await ask(tenant)
    await until(lambda: provider.earning.spending)
    alone = provider.earning.spending
    stream = await tenant.node.link.open(provider.keys.node)
    await write_frame(stream, encode_header(Messages()))
    await write_frame(stream, say.encode_envelope(say.encode_body(held[0])))
    await asyncio.sleep(1)
    assert provider.earning.spending == alone
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


# -- lies of the provider ------------------------------------------------------------------------------
Declined = list[say.DeclineClose]


def declines(world: World, declined: Declined) -> Callable[[Node], None]:
    return mouth(say.DeclineClose, lambda m: declined.append(m) or [m])


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (lambda m: replace(m, paid=Sat(m.paid + 1)), "close.overpaid"),
        (lambda m: replace(m, paid=Sat(3000)), "close.overpaid"),
        (lambda m: replace(m, payout_script=b"\x6a" * 34), "close.script"),
        (lambda m: replace(m, feerate=50_000), "close.fee"),
        (lambda m: replace(m, nonce=bytes(66)), "close.nonce"),
    ],
    ids=[
        "a satoshi too much",
        "much too much",
        "a strange payout",
        "all of it as a fee",
        "a nonce that is none",
    ],
)
async def test_a_close_that_is_not_the_tenants_due_is_declined(world: World, lie: Any, code: str) -> None:
    declined: Declined = []
    provider, tenant = await begun(
        world, tenant=declines(world, declined), provider=mouth(say.ProposeClose, lambda m: [lie(m)])
    )
    tx = await close(world, provider, tenant)
    assert [m.reason.code for m in declined] == [code]
    assert len(tx.witnesses[0]) == 4
    await assert_settled(tenant, provider, COINS)


async def test_a_lower_amount_is_the_providers_gift_that_its_own_template_does_not_know(world: World) -> None:
    """The tenant signs for less; the provider, which built another transaction, sees a half that does not fit."""
    provider, tenant = await begun(
        world, provider=mouth(say.ProposeClose, lambda m: [replace(m, paid=Sat(m.paid - 5))])
    )
    tx = await close(world, provider, tenant)
    assert len(tx.witnesses[0]) == 4
    await assert_settled(tenant, provider, COINS)


async def test_a_proposal_said_again_gets_a_nonce_of_its_own(world: World) -> None:
    answers: list[say.AgreeClose] = []
    provider, tenant = await begun(
        world,
        tenant=mouth(say.AgreeClose, lambda m: answers.append(m) or [m]),
        provider=mouth(say.ProposeClose, lambda m: [m]),
    )
    proposals: list[Any] = []
    hands: Any = provider.node.provider._perform.__self__  # type: ignore[union-attr]
    inner = hands._postman.send

    def send(to: Any, message: Any) -> None:
        inner(to, message)
        if isinstance(message, say.ProposeClose):
            proposals.append((to, message))

    hands._postman.send = send
    await ask(tenant)
    await until(lambda: provider.earning.spending)
    for _ in range(5):
        inner(*proposals[0])
        await asyncio.sleep(0.5)
    assert len(answers) == 6
    assert len({m.nonce for m in answers}) == len({m.signature for m in answers}) == 6
    assert len(provider.earning.spending) == 1
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


async def test_a_close_proposed_after_the_expiry_is_declined(world: World) -> None:
    declined: Declined = []
    provider, tenant = await begun(world, tenant=declines(world, declined))
    channel = provider.earning
    together: Any = provider.node.provider._perform.__self__.together  # type: ignore[union-attr]
    proposal = await together.propose(channel, give_back=False)
    postman: Any = provider.node.provider._perform.__self__._postman  # type: ignore[union-attr]
    world.chain.mine(channel.terms.expiry_height - await world.chain.height())
    await until(lambda: tenant.node.tenant.state.height >= channel.terms.expiry_height)
    postman.send(tenant.keys.node, proposal)
    await until(lambda: declined)
    assert declined[0].reason.code == "close.expired"


# -- crashes -------------------------------------------------------------------------------------------
async def test_a_provider_that_dies_after_asking_has_no_nonce_any_more_and_closes_alone(world: World) -> None:
    held: list[say.AgreeClose] = []
    provider, tenant = await begun(world, tenant=mouth(say.AgreeClose, lambda m: held.append(m) or ()))
    await ask(tenant)
    await until(lambda: held)
    journal: Any = provider.journal
    assert not any(held[0].asked[:33] in row.value for write in journal.writes for row in write)
    await provider.restart()
    together: Any = provider.node.provider._perform.__self__.together  # type: ignore[union-attr]
    assert together.finish(held[0]) is None
    await until(lambda: provider.earning.spending, 30)
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


async def test_a_tenant_that_dies_before_it_answers_costs_five_seconds(world: World) -> None:
    provider, tenant = await begun(world, provider=mouth(say.ProposeClose, lambda m: [m]))
    hands: Any = tenant.node.tenant._perform.__self__  # type: ignore[attr-defined]
    hands._co_sign = lambda *_: asyncio.sleep(3600)
    await ask(tenant)
    await until(lambda: tenant.paying.state is CLOSING)
    await tenant.restart()
    await until(lambda: provider.earning.spending, 15)
    assert len(parse(provider.earning.spending[0].raw).witnesses[0]) == 4
    await world.mine(6)
    await assert_settled(tenant, provider, COINS)


async def test_a_close_by_both_that_a_reorganisation_took_back_is_sent_again(world: World) -> None:
    provider, tenant = await begun(world)
    await ask(tenant)
    await until(lambda: provider.earning.spending)
    await world.mine()
    assert provider.earning.settled_txid == tenant.paying.settled_txid != ""
    world.chain.reorganise(1)
    world.chain.evict(provider.earning.spending[0].txid)
    await until(lambda: provider.earning.settled_txid == "")
    await until(lambda: world.chain.mempool)
    await world.mine(6)
    assert is_by_both(closed_by(world, provider))
    await assert_settled(tenant, provider, COINS)


async def rents(tenant: Peer, deployment: str, **labels: str) -> str:
    """The code of what went wrong, or nothing."""
    try:
        await tenant.rent(deployment, **labels)
    except DockageError as error:
        return error.code
    return ""


# -- many ----------------------------------------------------------------------------------------------
async def test_channels_that_are_opened_together_are_funded_by_one_transaction(world: World) -> None:
    providers = [await world.provider(number) for number in (1, 3, 4)]
    tenant = await world.tenant(coins=(2 * COINS,))
    names = [peer.keys.node.hex() for peer in providers]
    renting = [world.spawn(rents(tenant, f"web{n}", provider=name)) for n, name in enumerate(names)]
    await until(lambda: world.chain.mempool)
    (funding,) = world.chain.mempool.values()
    assert len(funding.outputs) == 4
    while not all(task.done() for task in renting):
        await world.mine()
    assert [task.result() for task in renting] == [""] * 3
    channels = tenant.node.tenant.state.channels.values()
    assert [c.state for c in channels] == [OPEN] * 3
    assert {c.txid for c in channels} == {funding.txid}
    fee = 2 * COINS - sum(out.value for out in funding.outputs)
    assert sum(c.funding_fee for c in channels) == fee
    assert max(c.funding_fee for c in channels) - min(c.funding_fee for c in channels) <= 1


async def test_one_that_can_not_be_paid_for_does_not_take_the_others_along(world: World) -> None:
    providers = [await world.provider(number) for number in (1, 3)]
    tenant = await world.tenant(coins=(60_000,))
    names = [peer.keys.node.hex() for peer in providers]
    renting = [
        world.spawn(rents(tenant, f"web{n}", provider=name, channel_sat=sat))
        for n, (name, sat) in enumerate(zip(names, ("40000", "40000"), strict=True))
    ]
    await until(lambda: world.chain.mempool)
    while not all(task.done() for task in renting):
        await world.mine()
    assert sorted(task.result() for task in renting) == ["", "wallet.insufficient"]


async def test_tenants_that_are_away_are_closed_in_one_transaction(world: World) -> None:
    provider = await world.provider(policy=POLICY)
    tenants = [await world.tenant(number) for number in (2, 5, 6)]
    for tenant in tenants:
        lease = await rent_paid(world, tenant)
        provider.host.start(lease, f"busy {tenant._number}", BUSY)
        await until(lambda: provider.earning.paid >= 300)
        await tenant.node.renting.release(lease)
        await until(lambda t=tenant: provider.earning.paid == t.paying.paid)
        await tenant.stop()
    assert provider.node.provider is not None
    channels = list(provider.node.provider.state.channels)
    for channel in channels:
        await provider.node.provider.post(told.CloseRequested(channel))
    await until(lambda: world.chain.mempool, 30)
    (tx,) = world.chain.mempool.values()
    assert [len(witness) for witness in tx.witnesses] == [4, 4, 4]
    assert tx.vsize == 506
    await world.mine(6)
    closed = provider.node.provider.state.channels.values()
    assert {c.state for c in closed} == {CLOSED}
    paid = sum(c.paid for c in closed)
    assert await provider.worth() == paid - closed_fee(closed)
    assert sum(c.spending[-1].share for c in closed) - closed_fee(closed) in range(3)
    for tenant in tenants:
        assert await tenant.worth() == 100_000 - tenant.paying.funding_fee - tenant.paying.paid


def closed_fee(channels: Iterable[Any]) -> int:
    (fee,) = {c.spending[-1].fee for c in channels}
    return int(fee)
