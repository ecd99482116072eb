# ruff: noqa: F403, F405
"""One test for each lie in bytes, messages, quotes and leases: it is counted by its code, costs the liar its
connection, and changes nobody's mind. Those about money: ``test_lies_about_money.py``."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from daemon.liars import *
from daemon.nodes import FREE_POLICY, NEED, Peer, World, until
from dockage.daemon.access import STREAMS_PER_LEASE
from dockage.domain.errors import Unavailable
from dockage.domain.identity import ChannelId, LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import digest
from dockage.domain.units import GIB, Msat, Sat
from dockage.ports.peers import Stream
from dockage.protocol import messages as say
from dockage.protocol.bundles import data_frame
from dockage.protocol.streams import AnyHeader, Bundle, Engine, Layers, Messages, Tunnel, encode_header
from dockage.wire.frames import frame, next_frame, write_frame
from dockage.wire.limits import PEERS


# -- bytes ---------------------------------------------------------------------------------------------
async def raw(mallory: Mallory, peer: Peer, data: bytes, *, end: bool = False) -> Stream:
    stream = await mallory.open(peer, None)
    await stream.write(data)
    if end:
        await stream.finish()
    return stream


HEADER = len(encode_header(Messages())).to_bytes(4, "big") + encode_header(Messages())


@pytest.mark.parametrize(
    ("code", "data", "end"),
    [
        ("frame.oversized", b"\xff\xff\xff\xff", False),
        ("frame.oversized", b"\0\0\2\1" + bytes(513), False),
        ("frame.truncated", b"\0\0", True),
        ("frame.truncated", b"\0\0\0\x0aabc", True),
        ("stream.header", b"\0\0\0\4junk", False),
        ("stream.header", b"\0\0\0\x09\x91\xa7nothing", False),
        ("stream.header", b"\0\0\0\0", False),
        ("frame.oversized", HEADER + (say.MESSAGE_MAX + 1).to_bytes(4, "big"), False),
        ("frame.truncated", HEADER + b"\0\0\1\0half", True),
        ("message.malformed", HEADER + b"\0\0\0\3\xc1\xc1\xc1", False),
        ("message.malformed", HEADER + b"\0\0\0\0", False),
    ],
)
async def test_bytes_that_are_no_stream_of_ours(
    world: World, provider: Peer, mallory: Mallory, code: str, data: bytes, end: bool
) -> None:
    await caught(provider, mallory, code, lambda: raw(mallory, provider, data, end=end))
    await serves_others(world, provider)


async def test_an_empty_stream_that_ends_in_order_is_no_lie_but_truncated(
    provider: Peer, mallory: Mallory
) -> None:
    await caught(provider, mallory, "frame.truncated", lambda: raw(mallory, provider, b"", end=True))


async def test_a_stream_that_says_nothing_is_dropped_after_a_while(provider: Peer, mallory: Mallory) -> None:
    stream = await raw(mallory, provider, b"\0\0")
    assert await is_broken(stream)
    assert not provider.node.reception.refused


async def test_a_flood_is_the_peers_however_many_streams_and_connections_it_opens(
    world: World, provider: Peer, mallory: Mallory
) -> None:
    body = say.encode_envelope(say.encode_body(say.AskLease(LEASE)))

    async def flood(messages: int) -> Stream:
        streams = [await mallory.open(provider) for _ in range(PEERS.message_streams - 1)]
        for _ in range(messages // len(streams) + 1):
            for stream in streams:
                try:
                    await write_frame(stream, body)
                except Unavailable:
                    return stream
        return streams[0]

    assert await is_broken(await flood(2 * PEERS.rate + 1))
    refused = provider.node.reception.refused["message.flood"]
    assert refused
    assert await is_broken(await flood(PEERS.rate))  # a new connection brings no new allowance
    assert provider.node.reception.refused["message.flood"] > refused
    await serves_others(world, provider)
    await asyncio.sleep(5)
    await mallory.send(provider, body)
    await asyncio.sleep(1)
    assert mallory.keys.node in provider.node.link.connected  # type: ignore[attr-defined]


async def test_streams_for_messages_without_end(world: World, provider: Peer, mallory: Mallory) -> None:
    for _ in range(PEERS.message_streams - 1):
        await mallory.open(provider)
    await caught(provider, mallory, "stream.too-many", lambda: mallory.open(provider))
    await serves_others(world, provider)


@pytest.mark.parametrize("header", [Messages(), Bundle()])
async def test_a_stream_in_a_bundle_that_belongs_on_the_link(
    world: World, provider: Peer, mallory: Mallory, header: AnyHeader
) -> None:
    async def tell() -> Stream:
        stream = await mallory.open(provider, Bundle())
        await stream.write(data_frame(1, frame(encode_header(header))))
        return stream

    await caught(provider, mallory, "stream.not-served", tell)
    await serves_others(world, provider)


async def test_bundles_without_end(world: World, provider: Peer, mallory: Mallory) -> None:
    for _ in range(PEERS.bundles):
        await mallory.open(provider, Bundle())
    await caught(provider, mallory, "stream.too-many", lambda: mallory.open(provider, Bundle()))
    await serves_others(world, provider)


# -- messages ------------------------------------------------------------------------------------------
def envelope(message: say.AnyMessage, signature: bytes = b"") -> bytes:
    return say.encode_envelope(say.encode_body(message), signature)


@pytest.mark.parametrize(
    ("code", "frame"),
    [
        ("message.malformed", envelope(say.AskLease(LEASE), bytes(64))),
        ("message.out-of-range", envelope(say.AskLease(LeaseId(b"short")))),
        ("message.out-of-range", envelope(say.AskQuote(LEASE, Resources(-1, 0, 0)))),
        ("message.out-of-range", envelope(say.AnnounceFunding(ChannelId(bytes(16)), "AB" * 32, 0))),
        ("message.out-of-range", envelope(say.Payment(ChannelId(bytes(16)), Sat(0), bytes(64)))),
        ("message.out-of-range", envelope(say.Payment(ChannelId(bytes(16)), Sat(5), bytes(63)))),
        ("message.out-of-range", envelope(say.Refusal(LEASE, Reason("x" * 65, "")))),
        ("message.malformed", say.encode_envelope(msgspec.msgpack.encode(["no-such-kind", 1]))),
        ("message.malformed", say.encode_envelope(b"\x91" * 900)),
    ],
)
async def test_messages_that_cannot_be(
    world: World, provider: Peer, mallory: Mallory, code: str, frame: bytes
) -> None:
    await caught(provider, mallory, code, lambda: mallory.send(provider, frame))
    await serves_others(world, provider)


@pytest.mark.parametrize("signature", [b"", bytes(64), b"short"])
@pytest.mark.parametrize("kind", ["statement", "quote", "notice"])
async def test_a_signature_that_is_missing_or_forged(
    world: World, provider: Peer, mallory: Mallory, kind: str, signature: bytes
) -> None:
    message: say.AnyMessage = {
        "statement": statement(LEASE, provider),
        "quote": quote(mallory),
        "notice": say.LeaseNotice(LEASE, LeaseState.RUNNING, ENOUGH, provider.world.clock.now(), None),
    }[kind]
    await caught(provider, mallory, "message.forged", lambda: mallory.say(provider, message, signature))
    await serves_others(world, provider)


async def test_another_nodes_signed_message_passed_on_as_ones_own(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory
) -> None:
    provider, tenant, lease = paid
    last = tenant.rented(lease).last
    signature = tenant.rented(lease).last_signature
    assert provider.keys.verify(provider.keys.node, say.SIGNING_CONTEXT + say.encode_body(last), signature)
    await caught(tenant, mallory, "message.forged", lambda: mallory.say(tenant, last, signature))


async def test_a_bill_for_a_lease_that_another_provider_holds_changes_nothing(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory
) -> None:
    _, tenant, lease = paid
    last = tenant.rented(lease).last
    bill = msgspec.structs.replace(last, seq=last.seq + 1, previous=digest(last), due=Msat(last.due + 10**6))
    before = money(tenant), tenant.rented(lease).faults
    await mallory.say(tenant, bill)
    await mallory.say(tenant, say.LeaseNotice(lease, LeaseState.ENDED, NEED, world.clock.now(), None))
    await asyncio.sleep(1)
    assert (money(tenant), tenant.rented(lease).faults) == before
    assert tenant.rented(lease).due < last.due + 10**6


# -- quotes and leases ---------------------------------------------------------------------------------
async def test_a_quote_of_ours_that_was_altered(world: World, provider: Peer, mallory: Mallory) -> None:
    await mallory.say(provider, say.AskQuote(LEASE, ENOUGH))
    mine: Quote = await mallory.answer(Quote)
    signature = provider.keys.sign(say.SIGNING_CONTEXT + say.encode_body(mine))
    larger = msgspec.structs.replace(mine, limits=Resources(4000, 4 * GIB, 40 * GIB))
    await caught(
        provider, mallory, "quote.forged", lambda: mallory.say(provider, say.OpenLease(larger, signature))
    )
    await serves_others(world, provider)


async def test_a_quote_that_we_never_made(world: World, provider: Peer, mallory: Mallory) -> None:
    mine = quote(mallory)
    signature = mallory.sign(say.encode_body(mine))
    await caught(
        provider, mallory, "quote.forged", lambda: mallory.say(provider, say.OpenLease(mine, signature))
    )


async def test_a_quote_that_was_made_for_somebody_else(
    world: World, provider: Peer, mallory: Mallory
) -> None:
    theirs = quote(world.peer(8))
    signature = provider.keys.sign(say.SIGNING_CONTEXT + say.encode_body(theirs))
    await caught(
        provider, mallory, "quote.not-yours", lambda: mallory.say(provider, say.OpenLease(theirs, signature))
    )
    await serves_others(world, provider)


@pytest.mark.parametrize("kind", [say.AskLease, say.EndLease, lambda lease: say.GrowLease(lease, ENOUGH)])
async def test_another_tenants_lease_is_as_if_it_were_not_there(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory, kind: Any
) -> None:
    """An honest tenant may ask for a lease that we forgot: it is answered, and told nothing."""
    provider, _, lease = paid
    before = money(provider)
    await mallory.say(provider, kind(lease))
    refusal = await mallory.answer(say.Refusal)
    assert (refusal.about, refusal.reason.code) == (lease, "lease.unknown")
    assert money(provider) == before


@pytest.mark.parametrize("kind", [Engine, Layers, lambda lease: Tunnel(lease, "c" * 64, 80)])
async def test_a_stream_into_another_tenants_lease(
    world: World, paid: tuple[Peer, Peer, LeaseId], mallory: Mallory, kind: Any
) -> None:
    provider, _, lease = paid
    await caught(provider, mallory, "lease.unknown", lambda: mallory.open(provider, kind(lease)))
    before = provider.earning.paid
    await until(lambda: provider.earning.paid > before)  # the honest tenant goes on paying and is served


async def test_a_stream_to_a_node_that_lends_no_engine(world: World, mallory: Mallory) -> None:
    tenant = await world.tenant()
    await caught(tenant, mallory, "stream.not-served", lambda: mallory.open(tenant, Engine(LEASE)))


async def test_too_many_streams_into_ones_own_lease_cost_no_connection(world: World) -> None:
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()

    async def hold(_: LeaseId, stream: Stream) -> None:
        await stream.read(1)
        await stream.write(b"!")
        await stream.finish()

    provider.host.engine = hold
    streams = [await tenant.node.renting.engine(lease) for _ in range(STREAMS_PER_LEASE)]
    for stream in streams:
        await stream.write(b"")  # what it is for goes out with the first write
    await asyncio.sleep(1)
    assert await is_broken(await tenant.node.renting.engine(lease))
    again = await tenant.node.renting.engine(lease)
    await again.write(b"?")  # it waits for its turn
    await streams[0].write(b"?")
    assert await streams[0].read(1) == b"!"  # those that are open stay open
    assert await again.read(1) == b"!"
    for stream in streams:
        stream.abort()


async def test_nonsense_inside_ones_own_lease_is_counted_and_costs_that_stream_only(world: World) -> None:
    """What runs in it is a user's program: the node that carries it has not lied."""
    provider = await world.provider(policy=FREE_POLICY)
    tenant = await world.tenant(coins=(), wallet=False)
    lease = await tenant.rent()
    stream = await tenant.node.renting.layers(lease)
    await write_frame(stream, b"not an image")
    await next_frame(stream, 1 << 16)
    await until(lambda: provider.node.reception.refused["image.manifest"] == 1)
    assert tenant.keys.node in provider.node.link.connected  # type: ignore[attr-defined]
    await asyncio.sleep(3)
    assert tenant.rented(lease).state is LeaseState.RUNNING
