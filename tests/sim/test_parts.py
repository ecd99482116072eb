"""The parts of the world, one by one: the queue, the network, the chain, the machine."""

from __future__ import annotations

from random import Random

import pytest

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, SECOND, Duration, Instant, Sat
from dockage.domain.usage import Meter, advance
from dockage.sim.chain import Chain, Output, Tx, make
from dockage.sim.hosts import Host
from dockage.sim.network import Network, Weather
from dockage.sim.world import World

A, B = NodeKey(b"a" * 32), NodeKey(b"b" * 32)
CHANNEL = b"channel-number-1"


# -- world -------------------------------------------------------------------------------------------
def test_what_is_due_first_happens_first_and_ties_in_the_order_of_planning() -> None:
    world, seen = World(1), list[str]()
    for delay, what in ((2, "c"), (1, "a"), (1, "b"), (9, "never")):
        world.later(delay * SECOND, lambda what=what: seen.append(what))
    world.run(Duration(5 * SECOND))
    assert seen == ["a", "b", "c"]
    assert world.elapsed == 5 * SECOND


# -- network -----------------------------------------------------------------------------------------
class Inbox:
    def __init__(self) -> None:
        self.frames: list[tuple[NodeKey, bytes]] = []

    def receive(self, sender: NodeKey, frame: bytes) -> None:
        self.frames.append((sender, frame))


def joined(weather: Weather) -> tuple[World, Network, Inbox]:
    world, inbox = World(1), Inbox()
    network = Network(world, weather)
    network.join(A, Inbox())
    network.join(B, inbox)
    return world, network, inbox


@pytest.mark.parametrize(
    ("weather", "copies"),
    [(Weather(), 1), (Weather(loss=1), 0), (Weather(twice=1), 2), (Weather(twice=1, replay=1), 3)],
)
def test_frames_are_lost_doubled_and_replayed(weather: Weather, copies: int) -> None:
    world, network, inbox = joined(weather)
    network.send(A, B, b"hello")
    world.run(Duration(100 * SECOND))
    assert inbox.frames == [(A, b"hello")] * copies


def test_islands_do_not_reach_each_other() -> None:
    world, network, inbox = joined(Weather())
    network.cut(A, 1)
    network.send(A, B, b"1")
    network.cut(B, 1)
    network.send(A, B, b"2")
    network.send(A, NodeKey(b"nobody" * 5 + b"at"), b"3")
    world.run(Duration(SECOND))
    assert [frame for _, frame in inbox.frames] == [b"2"]


# -- chain -------------------------------------------------------------------------------------------
def funded() -> tuple[Chain, Tx]:
    chain = Chain(100)
    chain.mint(A, Sat(10_000))
    (coin,) = chain.coins_of(A)
    tx = chain.build(make((coin,), (Output(CHANNEL, Sat(6_000)), Output(A, Sat(3_900))), Sat(100)))
    chain.broadcast(tx.raw)
    return chain, tx


def test_a_transaction_waits_and_is_then_as_deep_as_the_blocks_on_it() -> None:
    chain, tx = funded()
    assert chain.depth(tx.txid) == 0
    assert chain.coin((tx.txid, 0)) == Output(CHANNEL, Sat(6_000))
    chain.mine()
    chain.mine()
    assert chain.depth(tx.txid) == 2
    assert (chain.balance(A), chain.total, chain.fees) == (3_900, 9_900, 100)


def test_money_out_of_nothing_dust_and_the_future_are_refused() -> None:
    chain, tx = funded()
    chain.mine()
    coin = (tx.txid, 0)
    for bad in (
        make((coin,), (Output(B, Sat(6_001)),), Sat(-1)),
        make((coin,), (Output(B, Sat(6_000)),), Sat(1)),
        make((coin,), (Output(B, Sat(5_671)), Output(A, Sat(329))), Sat(0)),
        make((coin,), (Output(B, Sat(6_000)),), Sat(0), locktime=102),
        make(((tx.txid, 9),), (Output(B, Sat(6_000)),), Sat(0)),
    ):
        chain.broadcast(chain.build(bad).raw)
    assert (chain.refused, chain.mempool) == (5, {})


def test_the_higher_fee_wins_and_takes_the_children_with_it() -> None:
    chain, tx = funded()
    child = chain.build(make(((tx.txid, 1),), (Output(B, Sat(3_800)),), Sat(100)))
    chain.broadcast(child.raw)
    rival = make(tx.inputs, (Output(B, Sat(9_800)),), Sat(200))
    chain.broadcast(chain.build(rival).raw)
    assert list(chain.mempool) == [rival.txid]
    chain.broadcast(tx.raw)
    assert list(chain.mempool) == [rival.txid]
    assert chain.coin((tx.txid, 0)) is None


def test_a_reorganisation_gives_everything_back_to_the_mempool() -> None:
    chain, tx = funded()
    chain.mine()
    spend = chain.build(make(((tx.txid, 0),), (Output(B, Sat(5_800)),), Sat(200)))
    chain.broadcast(spend.raw)
    chain.mine()
    assert chain.spender((tx.txid, 0)) == spend.txid
    chain.reorganise(2)
    assert (chain.height, chain.depth(tx.txid), chain.depth(spend.txid)) == (100, 0, 0)
    assert (chain.total, chain.fees) == (10_000, 0)
    chain.mine()
    assert (chain.balance(B), chain.fees, chain.total) == (5_800, 300, 9_700)


def test_a_reorganisation_may_lose_a_transaction_and_what_spends_it() -> None:
    chain, tx = funded()
    chain.mine()
    spend = chain.build(make(((tx.txid, 0),), (Output(B, Sat(5_800)),), Sat(200)))
    chain.broadcast(spend.raw)
    chain.mine()
    chain.reorganise(2, losing=tx.txid)
    assert (chain.depth(tx.txid), chain.depth(spend.txid), chain.balance(A)) == (None, None, 10_000)
    assert chain.coins_of(A)


# -- machine -----------------------------------------------------------------------------------------
LEASE = LeaseId(b"l" * 16)
LIMITS = Resources(1000, 1 * GIB, 1 * GIB)


def at(seconds: float) -> Instant:
    return Instant(int((1000 + seconds) * SECOND))


def test_the_bill_follows_the_truth_over_freezing_restarts_and_reboots() -> None:
    host, meter = Host("h", Random(1)), Meter()
    host.prepare(LEASE, LIMITS, at(0))
    for second in range(1, 61):
        if second == 10:
            host.pause(LEASE, at(second))
        if second == 20:
            host.thaw(LEASE, at(second))
        if second == 30:
            host.restart_meter(at(second))
        if second == 40:
            host.reboot(at(second))
        reading = host.read(LEASE, at(second))
        assert reading is not None
        meter = advance(meter, reading, LIMITS)
    truth = host.history[LEASE]
    assert truth.covers(meter.usage)
    assert meter.usage.cpu_ns > truth.cpu_ns * 0.9
    assert meter.usage.net_in_bytes > truth.net_in_bytes * 0.9
    assert meter.usage.memory_mib_ms > truth.memory_mib_ms * 0.9
    host.teardown(LEASE)
    assert host.read(LEASE, at(61)) is None
