"""A node from its real parts, in a state worth showing, behind the real control API in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from dockage.adapters.pairing import SpakeSide
from dockage.adapters.secp.btclib import Secp
from dockage.adapters.secp.keys import ChannelKeys
from dockage.adapters.sqlite.journal import SqliteJournal
from dockage.cli.client import Client
from dockage.cli.errors import NotRunning
from dockage.cli.process import wait_until
from dockage.daemon.config import Config
from dockage.daemon.control import Control
from dockage.daemon.deputies import Deputies, Mine
from dockage.daemon.deputising import Deputising
from dockage.daemon.driver import Driver
from dockage.daemon.exposing import Exposing
from dockage.daemon.history import History
from dockage.daemon.indexes import Indexes
from dockage.daemon.keeper import keeper
from dockage.daemon.keeping import Keeping
from dockage.daemon.linking import Linking
from dockage.daemon.loading import load
from dockage.daemon.machines import KIND, Machine, Machines
from dockage.daemon.market import Market, Notice
from dockage.daemon.node import Node
from dockage.daemon.outlets import Outlets
from dockage.daemon.own import OwnMarket
from dockage.daemon.peers import Reception
from dockage.daemon.planning import Planner, Terms
from dockage.daemon.presence import Presence
from dockage.daemon.publishing import Publisher
from dockage.daemon.queries import Queries
from dockage.daemon.rail import Rail
from dockage.daemon.relayed import Relayed
from dockage.daemon.renting import Renting
from dockage.daemon.steps import Steps
from dockage.daemon.tasks import Jobs
from dockage.daemon.tunnels import TunnelCounts
from dockage.daemon.zones import Zones
from dockage.domain.channel import Channel, ChannelState
from dockage.domain.channel import Terms as ChannelTerms
from dockage.domain.history import Line, Total
from dockage.domain.identity import ChannelId, LeaseId, NodeKey
from dockage.domain.lease import LeaseState
from dockage.domain.offer import Quote
from dockage.domain.pricing import FIELDS, PRESETS, parts, price
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.statement import GENESIS, Statement
from dockage.domain.term import Witness
from dockage.domain.units import GIB, HOUR, MIB, SECOND, Duration, Instant, Msat, Sat
from dockage.domain.usage import Meter, Reading, Usage
from dockage.node import provider as selling
from dockage.node import records
from dockage.node import tenant as renting
from dockage.node.deputy import Charge
from dockage.node.effects import AnyEffect
from dockage.node.events import Candidate
from dockage.node.policy import ProviderPolicy, TenantPolicy
from dockage.node.provider import SoldLease
from dockage.node.tenant import RentedLease, Tenant
from dockage.ports.machine import Clock, Journal, Row
from dockage.ports.peers import PeerLink, Stream
from dockage.protocol.mandates import Mandate
from dockage.testing.chain import FakeChain, FakeWallet
from dockage.testing.clock import START, ManualClock
from dockage.testing.directory import MemoryDirectory, offer_of, sealed_offer
from dockage.testing.host import FakeHost
from dockage.testing.keys import MemoryKeys, verify
from dockage.testing.lan import MemoryLan
from dockage.testing.link import MemoryNetwork

ME, CHEAP, DEAR, TENANT = (MemoryKeys(number) for number in range(1, 5))
FAIR = PRESETS["fair"]
LIMITS = Resources(500, 256 * MIB, GIB)
USED = Usage(
    cpu_ns=90 * SECOND,
    memory_mib_ms=100 * 600_000,
    disk_mib_ms=20 * 600_000,
    net_in_bytes=3 * MIB,
    net_out_bytes=50 * MIB,
)
RUNNING, ENDED, SOLD = LeaseId(b"\x11" * 16), LeaseId(b"\x22" * 16), LeaseId(b"\x33" * 16)
PAYING, EARNING, FUNDED = ChannelId(b"\xaa" * 16), ChannelId(b"\xbb" * 16), ChannelId(b"\xcc" * 16)
PAST = Instant(1_793_534_400 * SECOND)
"""2026-11-01 12:00 UTC."""
OPENED = Instant(START - 600 * SECOND)
POINT = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
OTHER_POINT = bytes.fromhex("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")
SCRIPT = b"\x51\x20" + bytes(range(32))


def statement(lease: LeaseId) -> Statement:
    due = price(USED, FAIR)
    stated = Instant(START - SECOND)
    return Statement(lease, 599, GENESIS, stated, USED, GENESIS, due, Sat(1), 100 * MIB, 20 * MIB, 2)


def rented(id_: LeaseId, deployment: str, state: LeaseState, **fields: Any) -> RentedLease:
    quote = Quote(id_, ME.node, LIMITS, FAIR, "regtest", 1, Sat(0), Instant(START + SECOND))
    return RentedLease(
        id_,
        deployment,
        LIMITS,
        (Candidate(CHEAP.node, Msat(5_000)),),
        state,
        quote=quote,
        opened_at=OPENED,
        heard_at=Instant(START - SECOND),
        last=statement(id_),
        **fields,
    )


def channel(id_: ChannelId, peer: MemoryKeys, state: ChannelState, paid: int) -> Channel:
    terms = ChannelTerms(POINT, OTHER_POINT, 2016, Sat(20_000), SCRIPT)
    return Channel(id_, peer.node, terms, state, txid="ab" * 32, confirmations=1, paid=Sat(paid))


def tenant_state() -> renting.Tenant:
    gone = Reason("provider.silent", "nothing was heard of the provider for too long")
    no_room = (DEAR.node, Reason("capacity.full", "no room left"))
    leases = [
        rented(RUNNING, "shop", LeaseState.RUNNING),
        rented(
            ENDED,
            "blog",
            LeaseState.ENDED,
            reason=gone,
            since=Instant(START - 60 * SECOND),
            refusals=(no_room,),
        ),
    ]
    channels = [
        channel(PAYING, CHEAP, ChannelState.OPEN, 1),
        channel(FUNDED, DEAR, ChannelState.FUNDED, 0),
    ]
    return renting.restore(ME.node, TenantPolicy(), leases, channels)


def provider_state() -> selling.Provider:
    policy = ProviderPolicy(FAIR, Resources(4000, 8 * GIB, 100 * GIB), region="earth", network="regtest")
    reading = Reading(0, "boot", "run", 90 * SECOND, 100 * MIB, 20 * MIB, containers=2)
    meter, last = Meter(USED, reading), statement(SOLD)
    sold = SoldLease(
        SOLD, TENANT.node, LIMITS, FAIR, OPENED, state=LeaseState.RUNNING, meter=meter, last=last
    )
    return selling.restore(policy, [sold], [channel(EARNING, TENANT, ChannelState.OPEN, 1)])


def past() -> list[Row]:
    """Three rows of an hour and the next one, of what we rent and of what we sell."""
    found = []
    for kind, lease, name, peer in (
        (records.SPENT, RUNNING, "shop", CHEAP.node),
        (records.EARNED, SOLD, "", TENANT.node),
    ):
        for minute, share in ((0, 3), (59, 2), (60, 1)):  # so many thirds are still to come
            used = Usage(*(getattr(USED, f) // share for f in Usage.__struct_fields__))
            costs = parts(used, FAIR)
            lines = {n: Line(getattr(used, f), costs[n]) for n, f in FIELDS.items() if getattr(used, f)}
            total = Total(peer, name, Msat(sum(costs.values())), lines)
            at = records.Moment(lease, Instant(PAST + minute * 60 * SECOND))
            found.append(Row(kind, records.moment_key(at), msgspec.msgpack.encode(total)))
    return found


async def node(home: Path, **sections: Any) -> Node:
    """*sections*: of the configuration. Without ``provider.enabled`` it sells nothing, without ``bitcoin.network``
    it has no wallet."""
    config = load(home, sections)
    clock, directory = ManualClock(), MemoryDirectory(verify, ManualClock())
    for keys, cpu in ((CHEAP, 4000), (DEAR, 500)):
        await directory.publish(*sealed_offer(keys, START, "earth", cpu))
    link = MemoryNetwork().link(ME.node)
    journal = SqliteJournal(home / "state.db")
    journal.write(past())
    market = Market(directory, link, ME, clock, config.node.regions)
    rail = _rail() if config.bitcoin.network else None
    tenant = Driver(tenant_state(), renting.step, _nothing, journal, _ignore, clock)
    counts = TunnelCounts([], journal)
    planner = Planner(rail, ME.node, Terms()) if rail else None
    queries = Queries(market, Indexes(directory, link, ME, clock, [], Random(1)), clock, Random(1))
    rents = Renting(tenant, queries, link.open, link.open, config.bitcoin.network, counts, planner, "x86_64")
    provider, notice = None, None
    if config.provider.enabled:
        provider = Driver(provider_state(), selling.step, _nothing, journal, _ignore, clock)
        notice = Notice(directory, link, ME, clock, lambda: offer_of(ME), 0)
        notice.stored_at = 3
    reception = Reception(ME, time.monotonic)
    host = FakeHost(clock) if provider else None
    keeping = _keeping(journal, clock, tenant, rents)
    publisher = Publisher(tenant, link.open, ME, Relayed([], journal, []))
    outlets = Outlets(rents, tenant, clock, journal, [], keeping.hands.place)
    zones = Zones(directory, ME, clock, 0)
    own = _own(config, journal, link, clock)
    deputies = (ME, clock, journal, standing_in(), own[0], keeping, tenant, link.open)
    return Node(
        *(home, config, Instant(START - 3700 * SECOND), ME, clock, link, reception, tenant, market),
        *(rents, rail, provider, notice, host, History(journal, clock)),
        *own,
        keeping,
        deputies=Deputies(*deputies, Jobs(), Steps()),
        deputising=Deputising(*deputies, Jobs(), Sat(9000)),
        publisher=publisher,
        exposing=Exposing(ME.node, keeping, tenant, outlets, publisher, zones, clock),
    )


def standing_in() -> list[Row]:
    """The laptop is the deputy of our shop, and we are its of a blog."""
    until = Instant(START + 50 * 3600 * SECOND)
    mine = Mine("shop", TENANT.node, Sat(500), None, Duration(7 * 24 * HOUR), b"", 1, expires=until)
    word = Mandate(TENANT.node, ME.node, "blog", 1, until, Sat(2000), None, (), b"what runs")
    charge = Charge(word, Witness(3, ME.node, START), START, runs=True, spent=Msat(1_234_000))
    return [
        Row("deputy.mine", b"shop", msgspec.msgpack.encode(mine)),
        Row("deputy.charge", TENANT.node + b"blog", msgspec.msgpack.encode(charge)),
    ]


def _keeping(journal: Journal, clock: ManualClock, tenant: Driver[Tenant], rents: Renting) -> Keeping:
    """It keeps nothing."""
    kept, _ = keeper(ME, clock, journal, [], tenant, rents, _no_stream, Jobs(), Steps())
    return kept


async def _no_stream(peer: NodeKey, timeout: float = 0.0) -> Stream:
    raise AssertionError("nobody is dialled here")


def _own(
    config: Config, journal: Journal, link: PeerLink, clock: Clock
) -> tuple[Machines, OwnMarket, Linking, None]:
    """One machine is linked; nobody is on the local network."""
    laptop = Machine(TENANT.node, "laptop", "", ("127.0.0.1:4711",), Instant(START - 600 * SECOND))
    machines = Machines([Row(KIND, laptop.key, msgspec.msgpack.encode(laptop))], journal, link)
    own = OwnMarket(machines, link, link.open, ME, clock, lambda: None, tuple)
    presence = Presence(MemoryLan().neighbour, link, machines, network="main", market=False, always=False)
    name = config.node.name or "desk"
    return machines, own, Linking(link, clock, machines, presence, SpakeSide, Random(1), name), None


def _rail() -> Rail:
    chain, curve = FakeChain(), Secp()
    return Rail(curve, ChannelKeys(ME.seed, curve), chain, FakeWallet(chain, "me", [Sat(100_000)]))


def _nothing(_before: Any, _after: Any) -> tuple[()]:
    return ()


def _ignore(_: AnyEffect) -> None:
    """What the minds want of peers is for other tests."""


@contextmanager
def served(home: Path, **sections: Any) -> Iterator[Node]:
    """The control API answers at *home* while inside."""
    over, made = threading.Event(), list[Node]()

    async def serve() -> None:
        here = await node(home, **sections)
        made.append(here)
        drivers = [driver for driver in (here.tenant, here.provider) if driver is not None]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(driver.run()) for driver in drivers]
            running.append(tasks.create_task(Control(here, home / "control.sock").serve()))
            await asyncio.to_thread(over.wait)
            for task in running:
                task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert wait_until(lambda: bool(made) and _answers(home), 20), "the control API did not come up"
        yield made[0]
    finally:
        over.set()
        thread.join(20)


def _answers(home: Path) -> bool:
    with suppress(NotRunning):
        return bool(Client(home).get("status"))
    return False


@contextmanager
def docker_socket(home: Path, answers: dict[str, Any]) -> Iterator[None]:
    """What the docker socket of *home* says to each path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path in answers
            data = json.dumps(answers.get(self.path, {"message": "no such thing"})).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(home / "docker.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(10)
