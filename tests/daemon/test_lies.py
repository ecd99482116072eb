"""One test for each lie: it is counted by its code, costs the liar its connection, and changes nobody's mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from daemon.nodes import BUSY, FREE_POLICY, NEED, POLICY, Peer, World, rent_paid, until
from dockage.adapters.secp.btclib import Secp
from dockage.daemon.access import STREAMS_PER_LEASE
from dockage.daemon.node import Node
from dockage.domain.channel import ChannelState
from dockage.domain.errors import Unavailable
from dockage.domain.identity import ChannelId, LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement, digest
from dockage.domain.units import GIB, MIB, Instant, Msat, Sat
from dockage.domain.usage import Usage
from dockage.node import events as told
from dockage.node.records import PAYING
from dockage.ports import Address, Stream
from dockage.protocol import messages as say
from dockage.protocol import proof as proofs
from dockage.protocol.bundles import data_frame
from dockage.protocol.streams import AnyHeader, Bundle, Engine, Layers, Messages, Tunnel, encode_header
from dockage.testing.keys import MemoryKeys, verify
from dockage.testing.link import MemoryLink
from dockage.wire.frames import frame, next_frame, write_frame
from dockage.wire.limits import PEERS

LEASE = LeaseId(b"mallory's own id")
ENOUGH = Resources(100, 64 * MIB, 1 * GIB)


TALK = Messages()


class Mallory:
    """Has a key and a link, and says what it likes."""

    def __init__(self, world: World, number: int = 66) -> None:
        self.keys = MemoryKeys(number)
        self.link: MemoryLink = world.network.link(self.keys.node, f"127.0.0.1:{3000 + number}")
        self.heard: list[say.AnyMessage] = []

    def knows(self, peer: Peer) -> None:
        self.link.learn(peer.keys.node, Address("", (f"127.0.0.1:{2000 + peer._number}",)))

    async def open(self, peer: Peer, header: AnyHeader | None = TALK) -> Stream:
        self.knows(peer)
        stream = await self.link.open(peer.keys.node)
        if header is not None:
            await write_frame(stream, encode_header(header))
        return stream

    async def say(self, peer: Peer, message: say.AnyMessage, signature: bytes | None = None) -> Stream:
        body = say.encode_body(message)
        if signature is None:
            signature = self.sign(body) if say.must_be_signed(message) else b""
        return await self.send(peer, say.encode_envelope(body, signature))

    def sign(self, body: bytes) -> bytes:
        return self.keys.sign(say.SIGNING_CONTEXT + body)

    async def send(self, peer: Peer, frame: bytes) -> Stream:
        stream = await self.open(peer)
        await write_frame(stream, frame)
        return stream

    async def listen(self, _peer: Any, stream: Stream) -> None:
        await next_frame(stream, 512)
        while (frame := await next_frame(stream, say.MESSAGE_MAX)) is not None:
            self.heard.append(say.decode_envelope(frame)[0])

    async def answer(self, kind: type, seconds: float = 5) -> Any:
        await until(lambda: any(isinstance(message, kind) for message in self.heard), seconds)
        return next(message for message in self.heard if isinstance(message, kind))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


@pytest.fixture
async def mallory(world: World) -> AsyncIterator[Mallory]:
    mallory = Mallory(world)
    listening = world.spawn(mallory.link.serve(mallory.listen))
    yield mallory
    listening.cancel()


@pytest.fixture
async def provider(world: World) -> Peer:
    return await world.provider(policy=FREE_POLICY)


@pytest.fixture
async def paid(world: World) -> tuple[Peer, Peer, LeaseId]:
    """A provider, its honest tenant, and their paid lease."""
    provider, tenant = await world.provider(), await world.tenant()
    lease = await rent_paid(world, tenant)
    provider.host.start(lease, "c" * 64, BUSY)
    await until(lambda: provider.earning.paid >= 50)
    return provider, tenant, lease


def money(peer: Peer) -> Any:
    """What a lie could be after: who holds and pays what. Time goes on in the rest."""
    tenant, provider = peer.minds
    channels = [
        (c.id, c.peer, c.terms, c.state)
        for mind in (tenant, provider)
        if mind
        for c in mind.channels.values()
    ]
    leases = [(x.id, x.state, x.limits) for mind in (tenant, provider) if mind for x in mind.leases.values()]
    return channels, leases


async def is_broken(stream: Stream) -> bool:
    try:
        async with asyncio.timeout(30):
            await stream.read(1)
    except Unavailable:
        return True
    return False


async def caught(peer: Peer, mallory: Mallory, code: str, lie: Callable[[], Any]) -> None:
    """The lie is counted by *code*; every stream of the liar is gone; it may come again."""
    bystander = await mallory.open(peer)
    await asyncio.sleep(0.1)
    before = money(peer)
    stream = await lie()
    await until(lambda: peer.node.reception.refused[code] == 1, 30)
    assert dict(peer.node.reception.refused) == {code: 1}
    assert await is_broken(stream)
    assert await is_broken(bystander)
    assert mallory.keys.node not in peer.node.link.connected  # type: ignore[attr-defined]
    assert money(peer) == before


async def serves_others(world: World, provider: Peer, number: int = 7) -> None:
    honest = world.peer(number, wallet=False)
    honest.start()
    lease = await honest.rent(need=ENOUGH)
    assert honest.rented(lease).state is LeaseState.RUNNING


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


def statement(lease: LeaseId, provider: Peer, **changes: Any) -> Statement:
    fields: dict[str, Any] = {
        "lease": lease,
        "seq": 1,
        "previous": GENESIS,
        "at": provider.world.clock.now(),
        "usage": Usage(),
        "terms": GENESIS,
        "due": Msat(0),
        "received_sat": Sat(0),
        "memory_bytes": 0,
        "disk_bytes": 0,
        "containers": 0,
    }
    return Statement(**{**fields, **changes})


def quote(tenant: Peer | Mallory, lease: LeaseId = LEASE, **changes: Any) -> Quote:
    fields: dict[str, Any] = {
        "lease": lease,
        "tenant": tenant.keys.node,
        "limits": ENOUGH,
        "tariff": FREE_POLICY.tariff,
        "network": "",
        "confirmations": 1,
        "credit_sat": Sat(0),
        "expires": Instant(1 << 62),
    }
    return Quote(**{**fields, **changes})


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
