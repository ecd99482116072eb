# ruff: noqa: F403, F405
"""One test for each lie about channels, payments and bills. Counterpart: ``test_lies.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from daemon.liars import *
from daemon.nodes import POLICY, Peer, World, rent_paid, until
from dockage.adapters.secp.btclib import Secp
from dockage.daemon.node import Node
from dockage.domain.channel import ChannelState
from dockage.domain.identity import ChannelId, LeaseId
from dockage.domain.pricing import Tariff
from dockage.domain.units import Sat
from dockage.node import events as told
from dockage.node.records import PAYING
from dockage.protocol import messages as say
from dockage.protocol import proof as proofs
from dockage.testing.keys import verify

# -- channels ------------------------------------------------------------------------------------------
SCRIPT = b"\x51\x20" + bytes(range(32))


def propose(key: bytes, **changes: Any) -> say.ProposeChannel:
    fields: dict[str, Any] = {
        "channel": ChannelId(b"mallory's chanel"),
        "tenant_key": key,
        "expiry_height": 2500,
        "capacity": Sat(10_000),
        "tenant_script": SCRIPT,
    }
    return say.ProposeChannel(**{**fields, **changes})


POINT = Secp().pubkey((66).to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("code", "proposal"),
    [
        ("channel.key", propose(b"\2" + b"\xff" * 32)),
        ("channel.terms", propose(b"\5" + POINT[1:])),
        ("channel.terms", propose(POINT, tenant_script=b"\x6a\1x")),
        ("channel.terms", propose(POINT, expiry_height=600_000_000)),
        ("channel.terms", propose(POINT, capacity=Sat(659))),
        ("message.out-of-range", propose(POINT, capacity=Sat(-1))),
    ],
)
async def test_terms_that_can_be_no_channel(
    world: World, mallory: Mallory, code: str, proposal: say.ProposeChannel
) -> None:
    provider = await world.provider()
    await caught(provider, mallory, code, lambda: mallory.say(provider, proposal))


async def test_a_channel_id_that_is_taken(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory
) -> None:
    provider, tenant, _ = paid
    theirs = propose(POINT, channel=tenant.paying.id)
    await caught(provider, mallory, "channel.taken", lambda: mallory.say(provider, theirs))


def as_tenant(world: World, tenant: Peer) -> Mallory:
    """The tenant's own key in bad hands: what its provider must refuse even from it."""
    liar = Mallory.__new__(Mallory)
    liar.keys, liar.link, liar.heard = tenant.keys, tenant.node.link, []  # type: ignore[assignment]
    return liar


def payment(tenant: Peer, paid: int, signed: int | None = None) -> say.Payment:
    rail, channel = tenant.node.rail, tenant.paying
    assert rail is not None
    signature = rail.pay(channel, Sat(min(signed or paid, channel.terms.spendable)), tenant.keys.node)
    return say.Payment(channel.id, Sat(paid), signature)


async def test_a_payment_whose_signature_is_for_less(world: World, paid: tuple[Peer, Peer, LeaseId]) -> None:
    provider, tenant, _ = paid
    liar = as_tenant(world, tenant)
    best = tenant.paying.paid
    await caught(
        provider,
        liar,
        "channel.signature",
        lambda: liar.say(provider, payment(tenant, best + 1000, best + 1)),
    )
    await until(lambda: provider.earning.paid > best + 50)  # the honest one goes on, on a new connection
    assert tenant.node.tenant.state.channels[tenant.paying.id].state is ChannelState.OPEN


async def test_a_payment_of_more_than_there_is(world: World, paid: tuple[Peer, Peer, LeaseId]) -> None:
    provider, tenant, _ = paid
    liar = as_tenant(world, tenant)
    too_much = tenant.paying.terms.spendable + 1
    await caught(provider, liar, "channel.overdrawn", lambda: liar.say(provider, payment(tenant, too_much)))


async def test_an_old_payment_again_is_no_lie_and_shows_the_best(
    world: World, paid: tuple[Peer, Peer, LeaseId]
) -> None:
    """Repeated and overtaken messages are honest; a tenant that lost its newest state catches up from the answer."""
    provider, tenant, _ = paid
    liar = as_tenant(world, tenant)
    best, old = provider.earning.paid, payment(tenant, provider.earning.paid - 10)
    for message in (old, old, payment(tenant, best)):
        await liar.say(provider, message)
    await asyncio.sleep(1)
    assert provider.earning.paid >= best
    assert not provider.node.reception.refused


async def test_a_payment_on_another_tenants_channel(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory
) -> None:
    provider, tenant, _ = paid
    before = money(provider)
    await mallory.say(provider, payment(tenant, tenant.paying.paid + 500))
    refusal = await mallory.answer(say.Refusal)
    assert (refusal.about, refusal.reason.code) == (tenant.paying.id, "channel.unknown")
    assert money(provider) == before
    assert provider.earning.paid < tenant.paying.paid + 500


async def test_a_payment_on_a_channel_that_is_closed_is_answered(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory
) -> None:
    """It may have been on its way when the channel closed."""
    provider, tenant, _ = paid
    assert provider.node.provider is not None
    await provider.node.provider.tell(told.CloseRequested(provider.earning.id))
    await until(lambda: provider.earning.state is ChannelState.CLOSING)
    await as_tenant(world, tenant).say(provider, payment(tenant, tenant.paying.paid + 1))
    await asyncio.sleep(1)
    assert not provider.node.reception.refused


async def test_a_provider_whose_key_is_no_point_is_left_for_the_next(world: World) -> None:
    def lie(node: Node) -> None:
        rail: Any = node.rail
        rail.our_key = lambda *_: b"\2" + b"\xff" * 32
        rail.check_proposal = lambda _: None

    cheap = msgspec.structs.replace(POLICY, tariff=Tariff(cpu_hour=35_000_000))
    liar = await world.provider(3, cheap, ear=lie)
    honest = await world.provider(1)
    tenant = await world.tenant()
    lease = await rent_paid(world, tenant)
    assert tenant.node.reception.refused["channel.key"] >= 1
    assert tenant.rented(lease).provider == honest.keys.node
    assert [who for who, _ in tenant.rented(lease).refusals] == [liar.keys.node]
    states = {c.peer: c.state for c in tenant.node.tenant.state.channels.values()}
    assert states == {liar.keys.node: ChannelState.ABANDONED, honest.keys.node: ChannelState.OPEN}
    assert await tenant.worth() == 100_000 - tenant.paying.terms.capacity - tenant.paying.funding_fee


async def test_a_notice_that_shows_our_own_signature_brings_an_older_backup_up_to_date(
    world: World, paid: tuple[Peer, Peer, LeaseId]
) -> None:
    provider, tenant, _ = paid
    await tenant.stop()
    journal: Any = tenant.journal
    rows = [
        row for write in journal.writes for row in write if row.kind == PAYING and b"\xa4open" in row.value
    ]
    journal.write(rows[:1])  # the folder was restored from a backup
    tenant.start()
    best = provider.earning
    assert tenant.paying.paid < best.paid
    shown = say.ChannelNotice(best.id, ChannelState.OPEN, 1, best.paid, best.signature, "", None)
    await as_tenant(world, provider).say(tenant, shown)
    await until(lambda: tenant.paying.paid >= best.paid, 0.5)
    await until(lambda: provider.earning.paid > best.paid + 50)
    assert not tenant.node.reception.refused


async def test_a_notice_that_shows_a_signature_we_never_made_changes_nothing(
    world: World, paid: tuple[Peer, Peer, LeaseId]
) -> None:
    provider, tenant, _ = paid
    channel = tenant.paying
    claim = say.ChannelNotice(channel.id, ChannelState.OPEN, 1, Sat(channel.paid + 500), bytes(64), "", None)
    await as_tenant(world, provider).say(tenant, claim)
    await asyncio.sleep(1)
    assert tenant.paying.paid < channel.paid + 100


async def test_two_bills_with_one_number_become_a_file_that_anybody_can_check(
    world: World, paid: tuple[Peer, Peer, LeaseId]
) -> None:
    provider, tenant, lease = paid
    last = tenant.rented(lease).last
    other = msgspec.structs.replace(last, containers=last.containers + 1)
    await as_tenant(world, provider).say(tenant, other)
    await until(lambda: tenant.evidence.files)
    (proof,) = tenant.evidence.files.values()
    found = proofs.check(proofs.decode(proof), verify)
    assert (found.provider, found.lease, found.reason.code) == (provider.keys.node, lease, "statement.forked")
    await until(lambda: tenant.rented(lease).last.seq > last.seq + 3)  # the truth after it is paid
