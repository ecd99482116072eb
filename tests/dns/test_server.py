"""The name server on real sockets: what resolvers get from it, and what it does not let itself be used for."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from msgspec.structs import replace

from dockage.adapters.dns import DnsServer, Limits, Respond, is_up
from dockage.daemon.naming import Naming
from dockage.domain.deployment import Document, key52, long_name
from dockage.domain.errors import Unavailable
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import MINUTE, SECOND, Duration, Instant
from dockage.protocol.records import ZONE_LIFETIME, ZoneBody, seal, zone_topic
from dockage.protocol.zones import write_zone
from dockage.testing.clock import ManualClock
from dockage.testing.keys import MemoryKeys, verify

from .test_authority import DOCUMENT, LEASE, NAME, ZONE

TENANT = MemoryKeys(5)
LOCAL = "127.0.0.1"


class Market:
    """A directory with one zone in it."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.asked = 0
        self.fault: Exception | None = None

    async def search(self, topic: bytes) -> list[bytes]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return self.records if topic == zone_topic(TENANT.node) else []

    async def publish(self, topic: bytes, record: bytes) -> int:
        raise AssertionError("a name server publishes nothing")

    def tell(self, seq: int, **apps: list[str]) -> None:
        now = Instant(seq)
        body = ZoneBody(now, Instant(now + ZONE_LIFETIME), write_zone(TENANT.node, apps))
        self.records.append(seal("zone", TENANT.node, body, TENANT.sign))


@pytest.fixture
def market() -> Market:
    return Market()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def documents() -> dict[LeaseId, Document]:
    return {LEASE: DOCUMENT}


@pytest.fixture
def naming(market: Market, clock: ManualClock, documents: dict[LeaseId, Document]) -> Naming:
    async def probe(address: str) -> bool:
        return address != "198.51.100.6"

    found = Naming(
        ZONE, ("203.0.113.5",), lambda: documents, lambda lease: True, market, verify, clock, probe
    )
    found.look()
    return found


@asynccontextmanager
async def serving(respond: Respond, limits: Limits | None = None) -> AsyncIterator[int]:
    port = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(DnsServer(respond, limits).serve(LOCAL, 0, port.set_result))
    try:
        yield await asyncio.wait_for(port, 5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def udp(name: str, kind: str, port: int) -> dns.message.Message:
    return await dns.asyncquery.udp(dns.message.make_query(name, kind), LOCAL, port=port, timeout=5)


async def tcp(name: str, kind: str, port: int) -> dns.message.Message:
    return await dns.asyncquery.tcp(dns.message.make_query(name, kind), LOCAL, port=port, timeout=5)


def addresses(message: dns.message.Message) -> list[str]:
    return [str(item) for rrset in message.answer for item in rrset]


async def test_udp_and_tcp_say_the_same(naming: Naming) -> None:
    async with serving(naming.respond) as port:
        for ask in (udp, tcp):
            answer = await ask(NAME, "A", port)
            assert (answer.rcode(), addresses(answer)) == (dns.rcode.NOERROR, ["203.0.113.5"])
            assert answer.flags & dns.flags.AA
            assert not answer.flags & dns.flags.RA
            assert (await ask("example.net", "A", port)).rcode() == dns.rcode.REFUSED


async def test_another_tenants_name_comes_from_its_signed_zone(
    naming: Naming, market: Market, clock: ManualClock
) -> None:
    name = long_name("blog", TENANT.node, ZONE)
    market.tell(clock.now() - MINUTE, blog=["198.51.100.1"])
    market.tell(clock.now(), blog=["198.51.100.2"])
    async with serving(naming.respond) as port:
        answers = await asyncio.gather(*(udp(name, "A", port) for _ in range(10)))
        assert [addresses(x) for x in answers] == [["198.51.100.2"]] * 10
        assert market.asked == 1  # one read for all who ask at once, and none for those who ask later
        await udp(name, "A", port)
        assert market.asked == 1


async def test_a_zone_that_was_forged_is_none(naming: Naming, market: Market, clock: ManualClock) -> None:
    body = ZoneBody(
        clock.now(), Instant(clock.now() + ZONE_LIFETIME), write_zone(TENANT.node, {"blog": ["6.6.6.6"]})
    )
    market.records.append(seal("zone", TENANT.node, body, MemoryKeys(6).sign))
    async with serving(naming.respond) as port:
        assert (await udp(long_name("blog", TENANT.node, ZONE), "A", port)).rcode() == dns.rcode.NXDOMAIN


async def test_a_market_that_is_silent_leaves_what_was_known(
    naming: Naming, market: Market, clock: ManualClock
) -> None:
    name = long_name("blog", TENANT.node, ZONE)
    market.tell(clock.now(), blog=["198.51.100.2"])
    async with serving(naming.respond) as port:
        market.fault = Unavailable("market.unreachable", "nobody answers")
        assert (await udp(name, "A", port)).rcode() == dns.rcode.SERVFAIL  # not: there is no such name
        market.fault = None
        assert addresses(await udp(name, "A", port)) == ["198.51.100.2"]
        market.fault = Unavailable("market.unreachable", "nobody answers")
        clock.pass_(Duration(10 * MINUTE))
        assert addresses(await udp(name, "A", port)) == ["198.51.100.2"]


async def test_a_zone_that_lags_behind_the_documents_is_read_again_sooner(
    naming: Naming, market: Market, clock: ManualClock, documents: dict[LeaseId, Document]
) -> None:
    both = (NodeKey(b"g" * 32), NodeKey(b"h" * 32))
    documents[LEASE] = replace(DOCUMENT, tenant=TENANT.node, gateways=both)
    naming.look()
    market.tell(clock.now(), shop=["203.0.113.5"])
    await naming.read(TENANT.node)
    market.tell(Instant(clock.now() + SECOND), shop=["203.0.113.5", "198.51.100.7"])
    clock.pass_(Duration(11 * SECOND))
    await naming.read(TENANT.node)
    async with serving(naming.respond) as port:
        assert set(addresses(await udp(NAME, "A", port))) == {"203.0.113.5", "198.51.100.7"}
    for _ in range(4):
        clock.pass_(Duration(11 * SECOND))
        await naming.read(TENANT.node)
    assert market.asked == 2, "whole, it is kept for a minute"


async def test_a_document_that_goes_takes_its_names_along(
    naming: Naming, documents: dict[LeaseId, Document]
) -> None:
    async with serving(naming.respond) as port:
        documents.clear()
        naming.look()
        assert (await udp(NAME, "A", port)).rcode() in (dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL)


# -- abuse -------------------------------------------------------------------------------------------
async def test_beyond_its_pace_a_network_is_told_to_use_tcp(naming: Naming) -> None:
    limits = Limits(per_second=0.001, burst=3)
    async with serving(naming.respond, limits) as port:
        for _ in range(3):
            assert addresses(await udp(NAME, "A", port))
        cut = await udp(NAME, "A", port)
        assert cut.flags & dns.flags.TC
        assert not cut.answer
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(dns.message.make_query(NAME, "A"), LOCAL, port=port, timeout=0.2)
        assert addresses(await tcp(NAME, "A", port))


async def test_one_network_does_not_hold_all_connections(naming: Naming) -> None:
    async with serving(naming.respond, Limits(connections_each=2)) as port:
        held = [await asyncio.open_connection(LOCAL, port) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection(LOCAL, port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        for _, each in (*held, (reader, writer)):
            each.close()


async def test_a_connection_that_says_nothing_is_ended(naming: Naming) -> None:
    async with serving(naming.respond, Limits(idle_sec=0.1)) as port:
        reader, writer = await asyncio.open_connection(LOCAL, port)
        writer.write(struct.pack(">H", 500) + b"slowly")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_noise_gets_no_answer_and_does_no_harm(naming: Naming) -> None:
    async with serving(naming.respond) as port:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(LOCAL, port)
        )
        for noise in (b"", b"x", b"\xff" * 12, b"\0" * 12, bytes(600), b"\xff" * 1400):
            transport.sendto(noise)
        assert addresses(await udp(NAME, "A", port))
        transport.close()


async def test_an_address_in_use_is_named(naming: Naming) -> None:
    async with serving(naming.respond) as port:
        with pytest.raises(Unavailable, match=str(port)):
            await DnsServer(naming.respond).serve(LOCAL, port)


async def test_a_gateway_is_there_if_it_takes_connections() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), LOCAL, 0)
    port = server.sockets[0].getsockname()[1]
    assert await is_up(LOCAL, (port,))
    server.close()
    await server.wait_closed()
    assert not await is_up(LOCAL, (port,), 0.5)


def test_a_key_is_a_label() -> None:
    assert len(key52(NodeKey(b"k" * 32))) == 52


async def test_who_is_gone_before_it_is_accepted_ends_nothing(naming: Naming) -> None:
    """Its address is unknown then; the name server serves the next one."""

    class Gone(asyncio.Transport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return default

        def abort(self) -> None:
            self.aborted = True

    gone = Gone()
    writer = asyncio.StreamWriter(
        gone, asyncio.StreamReaderProtocol(asyncio.StreamReader()), None, asyncio.get_running_loop()
    )
    await DnsServer(naming.respond)._connection(asyncio.StreamReader(), writer)
    assert gone.aborted
