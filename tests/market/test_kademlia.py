"""Distances, the table, ids bound to addresses, and lookups in a simulated network with its own clock."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MILLISECOND, SECOND, Instant
from dockage.protocol.kademlia import (
    ALPHA,
    PER_NETWORK,
    QUERIES_MAX,
    REGION_MAX,
    SALTS,
    SOFT,
    STRIKES,
    Contact,
    K,
    Lookup,
    Space,
    distance,
    nearest,
    network_of,
    places,
)
from dockage.protocol.routing_table import DEAD_FOR, DEAD_MAX, RoutingTable

FREE, BOUND = Space(bound=False), Space(bound=True)
NOW = Instant(1_000 * SECOND)
OWN = NodeKey(b"\xff" * 32)


def contact(number: int, address: str = "") -> Contact:
    return Contact(NodeKey(number.to_bytes(32, "big")), address or f"127.0.0.1:{number % 60_000 + 1}")


def table(contacts: Sequence[Contact] = (), space: Space = FREE, own: NodeKey = OWN) -> RoutingTable:
    made = RoutingTable(own, space.id(Contact(own, "1.2.3.4:5")), space)
    for each in contacts:
        made.chosen(each, NOW)
    return made


# -- distances and places ------------------------------------------------------------------------------
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
)
def test_distance_is_a_metric(a: bytes, b: bytes, c: bytes) -> None:
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_places_are_few_distinct_and_move_each_day() -> None:
    today = places(b"t" * 32, Instant(20_000 * 24 * HOUR))
    assert len(set(today)) == SALTS
    assert places(b"t" * 32, Instant(20_000 * 24 * HOUR + 24 * HOUR - 1)) == today
    assert not set(places(b"t" * 32, Instant(20_001 * 24 * HOUR))) & set(today)


# -- ids bound to addresses ----------------------------------------------------------------------------
def test_networks_are_a_24_or_a_48() -> None:
    assert network_of("8.8.8.8:1") == bytes([8, 8, 8])
    assert network_of("[2606:4700:10::1]:1") == bytes.fromhex("26064700 0010")
    assert network_of("[::ffff:8.8.8.8]:1") == bytes([8, 8, 8])
    assert network_of("nonsense") == b""


def test_one_network_has_few_ids_whatever_keys_it_mines() -> None:
    ids = {BOUND.id(contact(number, f"8.8.8.{number % 250 + 1}:4711")) for number in range(1000)}
    assert len(ids) == 8


def test_the_public_market_takes_public_addresses_only() -> None:
    for address in ("127.0.0.1:1", "10.0.0.1:1", "192.168.1.1:1", "169.254.1.1:1", "[::1]:1", "[fe80::1]:1"):
        assert not BOUND.admits(contact(1, address))
        assert FREE.admits(contact(1, address))
    assert BOUND.admits(contact(1, "8.8.8.8:4711"))


@pytest.mark.parametrize("address", ["", "example.org:1", "8.8.8.8", "8.8.8.8:0", "224.0.0.1:1", "0.0.0.0:1"])
def test_nonsense_is_no_address(address: str) -> None:
    assert not FREE.admits(Contact(OWN, address))


def test_an_id_must_agree_with_the_path() -> None:
    claim = contact(1, "8.8.8.8:4711")
    assert BOUND.confirms(claim, "8.8.8.200:9")
    assert not BOUND.confirms(claim, "9.9.9.9:4711")
    assert not BOUND.confirms(claim, "")
    assert FREE.confirms(claim, "")


def test_a_network_is_counted_among_the_closest() -> None:
    crowd = [contact(number, f"8.8.8.{number}:1") for number in range(1, 100)]
    spread = [contact(number, f"8.8.{number}.1:1") for number in range(100, 110)]
    found = nearest(bytes(32), crowd + spread, BOUND)
    assert sum(network_of(each.address) == bytes([8, 8, 8]) for each in found) == PER_NETWORK
    assert set(spread) <= set(found)


# -- the table -----------------------------------------------------------------------------------------
def test_a_bucket_is_no_larger_for_all_who_come() -> None:
    contacts = [contact(number) for number in range(2000)]
    made = table(contacts)
    half = [c for c in contacts if distance(FREE.id(c), FREE.id(Contact(OWN, ""))).bit_length() == 256]
    assert sum(made.find(c.key) is not None for c in half) == K
    assert len(made) < 250


def test_a_network_gets_few_places_in_a_bucket() -> None:
    made = table([contact(number, f"8.8.8.{number % 250 + 1}:1") for number in range(500)], BOUND)
    assert len(made) <= PER_NETWORK * 8


def test_we_are_never_our_own_contact() -> None:
    assert not table().chosen(Contact(OWN, "127.0.0.1:1"), NOW)


def test_a_node_that_moved_is_found_at_its_new_address() -> None:
    made = table([contact(1, "127.0.0.1:1")])
    assert made.chosen(contact(1, "127.0.0.1:2"), NOW)
    assert made.find(contact(1).key) == contact(1, "127.0.0.1:2")
    assert len(made) == 1


def test_the_dead_are_avoided_for_a_while_and_may_come_back() -> None:
    made = table([contact(1)])
    made.failed(contact(1).key, NOW)
    assert made.find(contact(1).key) is None
    assert made.is_dead(contact(1).key, Instant(NOW + DEAD_FOR - 1))
    assert not made.is_dead(contact(1).key, Instant(NOW + DEAD_FOR))
    made.chosen(contact(1), NOW)
    assert not made.is_dead(contact(1).key, NOW)


def test_the_list_of_the_dead_is_bounded() -> None:
    made = table()
    for number in range(DEAD_MAX + 10):
        made.failed(contact(number).key, NOW)
    assert not made.is_dead(contact(0).key, NOW)
    assert made.is_dead(contact(DEAD_MAX).key, NOW)


def test_a_moved_table_keeps_its_contacts() -> None:
    made = table([contact(number) for number in range(10)])
    made.move(b"\1" * 32)
    assert {each.key for each in made.all()} == {contact(number).key for number in range(10)}


# -- lookups -------------------------------------------------------------------------------------------
class Net:
    """Nodes that know each other well; some are dead (fail after 2 s), stalled (never answer) or hostile."""

    def __init__(self, size: int, seed: int) -> None:
        self.rand = Random(seed)
        self.contacts = [contact(number) for number in range(1, size + 1)]
        self.tables: dict[NodeKey, RoutingTable] = {}
        for each in self.contacts:
            others = self.rand.sample(self.contacts, len(self.contacts))
            self.tables[each.key] = table(others, own=each.key)
        self.dead: set[NodeKey] = set()
        self.stalled: set[NodeKey] = set()
        self.hostile: set[NodeKey] = set()
        self.asked: list[NodeKey] = []

    def answer(self, key: NodeKey, target: bytes) -> list[Contact]:
        if key in self.hostile:
            return [contact(self.rand.getrandbits(200) + 10**9) for _ in range(K)]  # invented, dead as well
        return self.tables[key].closest(target)

    def run(self, lookup: Lookup, target: bytes) -> Instant:
        """Drives *lookup* as the adapter does; returns how long it took."""
        now, events = NOW, list[tuple[Instant, NodeKey, bool]]()
        while True:
            for each in lookup.next(now):
                self.asked.append(each.key)
                if each.key in self.dead or each.key not in self.tables:
                    heapq.heappush(events, (Instant(now + 2 * SECOND), each.key, False))
                elif each.key not in self.stalled:
                    heapq.heappush(events, (Instant(now + 20 * MILLISECOND), each.key, True))
            if lookup.is_done(now):
                return Instant(now - NOW)
            now = min(events[0][0] if events else Instant(1 << 62), Instant(now + SOFT // 2))
            while events and events[0][0] <= now:
                _, key, lives = heapq.heappop(events)
                lookup.answered(key, self.answer(key, target)) if lives else lookup.failed(key)

    def lookup(self, target: bytes) -> tuple[Lookup, Instant]:
        start = self.rand.choice([c for c in self.contacts if c.key not in self.dead | self.stalled])
        made = Lookup(target, self.tables[start.key].closest(target), FREE)
        return made, self.run(made, target)

    def truth(self, target: bytes) -> list[Contact]:
        gone = self.dead | self.stalled
        return nearest(target, [c for c in self.contacts if c.key not in gone], FREE)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([1, 5, 30, 150]))
def test_a_lookup_finds_the_closest(seed: int, size: int) -> None:
    net, target = Net(size, seed), Random(seed).randbytes(32)
    lookup, _ = net.lookup(target)
    found, truth = lookup.closest(), net.truth(target)
    assert found[:3] == [c for c in truth if c in found][:3]
    assert len(set(found) & set(truth)) >= min(len(truth) - 1, 14)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 30))
def test_silent_peers_do_not_hold_a_lookup_up(seed: int) -> None:
    net, target = Net(100, seed), Random(seed).randbytes(32)
    silent = net.rand.sample([c.key for c in net.contacts], 30)
    net.dead, net.stalled = set(silent[:15]), set(silent[15:])
    lookup, took = net.lookup(target)
    assert lookup.closest()[0] == net.truth(target)[0]
    assert took < 30 * SOFT // 2, "thirty silent peers at four a time, and nobody waits for a timeout"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1 << 30))
def test_liars_cannot_make_a_lookup_endless(seed: int) -> None:
    net, target = Net(60, seed), Random(seed).randbytes(32)
    net.hostile = set(net.rand.sample([c.key for c in net.contacts], 20))
    net.lookup(target)
    assert len(net.asked) == len(set(net.asked)) <= QUERIES_MAX


def test_a_lookup_that_knows_nobody_is_done() -> None:
    lookup = Lookup(bytes(32), [], FREE)
    assert lookup.next(NOW) == []
    assert lookup.is_done(NOW)
    assert lookup.closest() == []


def test_a_late_answer_still_counts() -> None:
    slow, quick = contact(1), contact(2)
    lookup = Lookup(FREE.id(slow), [slow, quick], FREE)
    assert set(lookup.next(NOW)) == {slow, quick}
    lookup.answered(quick.key, [])
    assert not lookup.is_done(NOW)
    later = Instant(NOW + SOFT)
    assert lookup.next(later) == []
    assert lookup.is_done(later)
    lookup.answered(slow.key, [])
    assert lookup.closest() == [slow, quick]


def test_where_all_are_slow_they_are_waited_for() -> None:
    slow, slower = contact(1), contact(2)
    lookup = Lookup(FREE.id(slow), [slow, slower], FREE)
    lookup.next(NOW)
    later = Instant(NOW + 5 * SOFT)
    lookup.failed(slower.key)
    assert not lookup.is_done(later)
    lookup.answered(slow.key, [])
    assert lookup.is_done(later)
    assert lookup.closest() == [slow]


def test_a_long_answer_is_cut() -> None:
    lookup = Lookup(bytes(32), [contact(1)], FREE)
    lookup.next(NOW)
    lookup.answered(contact(1).key, [contact(number) for number in range(10, 500)])
    assert len(lookup._seen) == 1 + K


def test_a_place_is_all_of_its_region_and_no_more_than_a_bound() -> None:
    target, crowd = bytes(32), [contact(number) for number in range(1, 400)]
    lookup = Lookup(target, crowd, FREE, radius=1 << 253)
    for now in range(NOW, NOW + 200):
        for each in lookup.next(Instant(now)):
            lookup.answered(each.key, [])
    within = [each for each in crowd if FREE.number(each) <= 1 << 253]
    assert K < len(within) < REGION_MAX
    assert set(lookup.closest()) == set(within)
    assert lookup.distances() == sorted(map(FREE.number, within))
    wide = Lookup(target, crowd, FREE, radius=1 << 256)
    for now in range(NOW, NOW + 200):
        for each in wide.next(Instant(now)):
            wide.answered(each.key, [])
    assert len(wide.closest()) == REGION_MAX


def test_who_names_invented_contacts_is_soon_not_listened_to() -> None:
    liar, honest = contact(1), contact(2)
    invented = sorted((contact(number) for number in range(1000, 2000)), key=FREE.number)[:K]
    lookup = Lookup(bytes(32), [liar, honest], FREE)
    assert set(lookup.next(NOW)) == {liar, honest}
    lookup.answered(liar.key, invented)
    asked: list[Contact] = []
    while chosen := lookup.next(NOW):
        asked += chosen
        for each in chosen:
            lookup.failed(each.key)
    assert len(asked) < STRIKES + ALPHA
    lookup.answered(honest.key, [invented[-1]])
    assert lookup.next(NOW) == [invented[-1]], "somebody else vouches for it"


def test_the_avoided_are_never_asked() -> None:
    lookup = Lookup(bytes(32), [contact(1), contact(2)], FREE, lambda key: key == contact(1).key)
    assert lookup.next(NOW) == [contact(2)]


def led(expected: int) -> list[Contact]:
    """The three closest that a lookup finds that begins at hostile nodes: their gang, a third of all, names its own."""
    target, everybody = bytes(32), sorted((contact(number) for number in range(1000)), key=FREE.number)
    gang = everybody[1::3]
    start = [*gang[200:203], *(each for each in everybody[-200:] if each not in gang)]
    lookup = Lookup(target, start[:K], FREE, width=3, expected=expected)
    now = NOW
    while chosen := lookup.next(now):
        for each in chosen:
            lookup.answered(each.key, gang[:K] if each in gang else everybody[:K])
    assert lookup.is_done(now)
    return [each for each in lookup.closest() if each in gang]


def test_a_lookup_that_sees_fewer_than_live_anywhere_goes_on() -> None:
    """Whoever is shown to us by a third that names only its own lives three times as far apart as the market does."""
    assert len(led(expected=0)) == 3, "so the lie is one that works"
    assert len(led(expected=(1 << 256) * K // 1000)) == 1, "as many as they are"


def test_where_there_is_nobody_else_a_thin_region_ends_a_lookup_too() -> None:
    few = [contact(number) for number in range(5)]
    lookup = Lookup(bytes(32), few, FREE, width=3, expected=1 << 250)
    for _ in range(4 * len(few)):
        for each in lookup.next(NOW):
            lookup.answered(each.key, few)
    assert lookup.is_done(NOW)
    assert lookup.questions == len(few)
