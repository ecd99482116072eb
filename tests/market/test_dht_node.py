"""A node of the directory without I/O, among a handful of others: what it stores, repairs, hands over and refuses."""

from __future__ import annotations

from random import Random

import pytest

from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.units import HOUR, MINUTE, SECOND, Instant
from dockage.protocol.dht_messages import Find, Get, Listing, Put, Taken
from dockage.protocol.dht_node import HANDERS, DhtNode, Upkeep
from dockage.protocol.dht_operations import REPAIRS, Operation, Puts, Question
from dockage.protocol.kademlia import SOFT, Contact, K, Space, nearest, places
from dockage.protocol.records import ZONE_LIFETIME, ZoneBody, node_topic, seal, zone_topic
from dockage.testing.clock import START
from dockage.testing.directory import sealed_offer
from dockage.testing.keys import MemoryKeys, verify

FREE, BOUND = Space(bound=False), Space(bound=True)
DAY = 24 * HOUR


class Town:
    """Nodes that answer at once, or never."""

    def __init__(self, size: int, space: Space = FREE) -> None:
        self.space, self.now = space, START
        self.nodes: dict[NodeKey, DhtNode] = {}
        self.down: set[NodeKey] = set()
        self.asked: list[Question] = []
        for number in range(size):
            self.add(number)
        for node in self.nodes.values():
            for other in self.nodes.values():
                node.table.chosen(me(other), self.now)

    def add(self, number: int, upkeep: Upkeep = Upkeep(rate=1 << 20, burst=1 << 20)) -> DhtNode:  # noqa: B008
        key = MemoryKeys(number).node
        node = DhtNode(key, self.space, verify, Random(number), server=True, upkeep=upkeep)
        node.move(Contact(key, f"8.{number % 200}.8.8:4711"))
        self.nodes[key] = node
        return node

    def __getitem__(self, number: int) -> DhtNode:
        return self.nodes[MemoryKeys(number).node]

    def run(self, asker: DhtNode, operation: Operation) -> None:
        while True:
            questions = operation.next(self.now)
            for question in questions:
                self.asked.append(question)
                peer = self.nodes.get(question.contact.key)
                if peer is None or peer.key in self.down:
                    asker.silent(question, self.now)
                    operation.failed(question, self.now)
                    continue
                answer = peer.serve(asker.key, question.request, me(asker).address, self.now, self.now)
                if asker.took(question, answer, question.contact.address, self.now):
                    operation.answered(question, answer, self.now)
                else:
                    operation.failed(question, self.now)
            if not questions:
                if operation.is_done(self.now):
                    return
                self.now = Instant(self.now + SOFT)

    def search(self, asker: DhtNode, topic: bytes) -> list[bytes]:
        search = asker.search(topic, self.now, self.now)
        self.run(asker, search)
        self.run(asker, Puts(search.repairs()))
        return [record.blob for record in search.found]

    def holders(self, topic: bytes) -> set[NodeKey]:
        return {key for key, node in self.nodes.items() if node.store.under(topic)}


def me(node: DhtNode) -> Contact:
    assert node.me
    return node.me


def test_what_one_publishes_all_find() -> None:
    town = Town(40)
    topic, blob = sealed_offer(MemoryKeys(900), town.now)
    publish = town[0].publish(topic, blob, town.now, town.now)
    town.run(town[0], publish)
    assert len(publish.holders) >= K
    assert all(town.search(node, topic) == [blob] for node in town.nodes.values())


def test_a_zone_is_put_where_it_is_looked_for_tomorrow_too() -> None:
    town, keys = Town(60), MemoryKeys(900)
    body = ZoneBody(town.now, Instant(town.now + ZONE_LIFETIME), b"gateways")
    topic, blob = zone_topic(keys.node), seal("zone", keys.node, body, keys.sign)
    town.run(town[0], town[0].publish(topic, blob, town.now, town.now))
    tomorrow = Instant(town.now - town.now % DAY + DAY)
    for place in places(topic, tomorrow):
        near = nearest(place, [me(node) for node in town.nodes.values()], FREE, 8)
        assert {contact.key for contact in near} <= town.holders(topic) | {town[0].key}
    town.now = Instant(tomorrow + SECOND)
    assert town.search(town[5], topic) == [blob]


def test_a_record_that_no_node_would_take_is_not_published() -> None:
    town = Town(3)
    topic, blob = sealed_offer(MemoryKeys(900), town.now)
    for where, what, code in (
        (node_topic(MemoryKeys(900).node), blob, "record.misplaced"),
        (topic, blob.replace(b"x86_64", b"x86_65"), "record.signature"),
        (topic, blob + bytes(2048), "record.oversized"),
    ):
        with pytest.raises(PeerError) as caught:
            town[0].publish(where, what, town.now, town.now)
        assert caught.value.code == code


# -- read repair -----------------------------------------------------------------------------------------
def published(town: Town, keys: MemoryKeys) -> tuple[bytes, bytes]:
    topic, blob = sealed_offer(keys, town.now)
    town.run(town[0], town[0].publish(topic, blob, town.now, town.now))
    return topic, blob


def test_a_search_mends_the_holders_that_lack_the_record() -> None:
    town = Town(30)
    topic, _ = published(town, MemoryKeys(900))
    holders = town.holders(topic)
    for key in sorted(holders)[:5]:
        town.nodes[key].store.expire(Instant(town.now + DAY))
    assert len(town.holders(topic)) == len(holders) - 5
    town.search(town[29], topic)
    assert town.holders(topic) >= holders - {town[29].key}


def test_a_search_mends_the_holders_of_an_older_record() -> None:
    town, keys = Town(30), MemoryKeys(900)
    topic, _ = published(town, keys)
    town.now = Instant(town.now + SECOND)
    _, newer = sealed_offer(keys, town.now, cpu=1000)
    some = next(iter(town.holders(topic) - {town[0].key, town[29].key}))
    town.nodes[some].store.put(topic, newer, town.now)
    assert town.search(town[29], topic) == [newer]
    held = [record.blob for node in town.nodes.values() for record in node.store.under(topic)]
    assert held.count(newer) > REPAIRS // 2


def test_liars_that_never_show_a_record_cost_a_reader_a_bounded_number_of_puts() -> None:
    town = Town(60)
    topic, blob = published(town, MemoryKeys(900))
    for node in town.nodes.values():
        node.store.expire(Instant(town.now + DAY))
    town[7].store.put(topic, blob, town.now)
    town.asked.clear()
    town.search(town[29], topic)
    assert sum(isinstance(question.request, Put) for question in town.asked) <= REPAIRS


# -- hand-over -------------------------------------------------------------------------------------------
def test_a_newcomer_is_told_what_lies_around_it_and_only_by_a_few() -> None:
    town = Town(40)
    topics = [published(town, MemoryKeys(900 + number))[0] for number in range(12)]
    newcomer = town.add(300)
    town.run(newcomer, newcomer.enter([me(town[0])], town.now))
    for node in list(town.nodes.values()):
        while (puts := node.hand_over(town.now)) is not None:
            town.asked.clear()
            town.run(node, puts)
    everybody = [me(node) for node in town.nodes.values()]
    due = [
        topic
        for topic in topics
        if any(me(newcomer) in nearest(place, everybody, FREE, 8) for place in places(topic, town.now))
    ]
    assert due
    assert {record.topic for record in newcomer.store} >= set(due)


def test_a_record_is_handed_to_a_newcomer_by_no_more_than_a_few_holders() -> None:
    town = Town(30)
    topic, _ = published(town, MemoryKeys(900))
    newcomer = town.add(300)
    place = places(topic, town.now)[0]
    for node in town.nodes.values():
        node.table.chosen(me(newcomer), town.now)
    hands = [key for key in town.holders(topic) if town.nodes[key]._hands(place, me(newcomer))]
    assert len(hands) <= HANDERS


def test_newcomers_without_end_are_a_bounded_queue() -> None:
    town = Town(1)
    for number in range(500, 900):
        other = MemoryKeys(number).node
        find = Find(Contact(other, "9.9.9.9:1"), bytes(32))
        town[0].serve(other, find, "9.9.9.9:1", town.now, town.now)
    assert len(town[0]._newcomers) <= 32
    assert len(town[0].table) < 100


# -- lies ------------------------------------------------------------------------------------------------
def test_nobody_speaks_in_anothers_name() -> None:
    town, victim = Town(2), Contact(MemoryKeys(900).node, "9.9.9.9:1")
    with pytest.raises(PeerError) as caught:
        town[0].serve(town[1].key, Find(victim, bytes(32)), "9.9.9.9:1", town.now, town.now)
    assert caught.value.code == "dht.impostor"
    assert town[0].table.find(victim.key) is None


def test_a_flood_is_cut_off_and_costs_nobody_else() -> None:
    town = Town(2)
    small = town.add(50, Upkeep(rate=1, burst=5))
    for _ in range(5):
        small.serve(town[0].key, Find(None, bytes(32)), "", town.now, town.now)
    with pytest.raises(PeerError) as caught:
        small.serve(town[0].key, Find(None, bytes(32)), "", town.now, town.now)
    assert caught.value.code == "dht.flood"
    assert small.serve(town[1].key, Find(None, bytes(32)), "", town.now, town.now)


def test_an_answer_of_another_kind_or_from_another_address_counts_against_who_gave_it() -> None:
    town = Town(3, BOUND)
    asker, contact = town[0], me(town[1])
    put = Question(contact, Put(None, bytes(32), (b"x",)))
    assert not asker.took(put, Listing(()), contact.address, town.now)
    assert asker.refused["dht.out-of-turn"] == 1
    assert not asker.took(Question(contact, Find(None, bytes(32))), Listing(()), "9.9.9.9:1", town.now)
    assert asker.refused["dht.address"] == 1
    assert asker.table.find(contact.key) is None
    assert asker.table.is_dead(contact.key, town.now)


def test_lies_are_held_nowhere_and_counted() -> None:
    town, keys = Town(2), MemoryKeys(900)
    topic, good = sealed_offer(keys, town.now)
    _, over = sealed_offer(keys, Instant(town.now - 19 * MINUTE), lifetime=MINUTE)
    lies = {
        "record.signature": (topic, good.replace(b"x86_64", b"x86_65")),
        "record.malformed": (topic, b"garbage"),
        "record.misplaced": (node_topic(keys.node), good),
        "record.oversized": (topic, bytes(2049)),
        "record.expired": (topic, over),
    }
    for code, (where, blob) in lies.items():
        answer = town[0].serve(town[1].key, Put(None, where, (blob,)), "", town.now, town.now)
        assert answer == Taken((False,))
        assert town[0].refused[code] == 1
    assert len(town[0].store) == 0


def test_a_replayed_record_does_not_displace_its_successor() -> None:
    town, keys = Town(2), MemoryKeys(900)
    topic, old = sealed_offer(keys, town.now)
    later = Instant(town.now + SECOND)
    _, new = sealed_offer(keys, later, cpu=1000)
    for blob, taken in ((new, True), (old, False)):
        answer = town[0].serve(town[1].key, Put(None, topic, (blob,)), "", later, later)
        assert answer == Taken((taken,))
    assert [record.blob for record in town[0].store.under(topic)] == [new]


def test_one_network_has_one_share_of_the_board_whatever_keys_it_uses() -> None:
    node = Town(1, BOUND)[0]
    givers = {node._giver(MemoryKeys(number).node, f"9.9.9.{number}:1") for number in range(1, 20)}
    assert len(givers) == 1
    assert node._giver(MemoryKeys(1).node, "") == node._giver(MemoryKeys(2).node, ""), "the relayed share one"


def test_a_page_is_asked_for_again_only_by_its_end() -> None:
    town = Town(1)
    topic, blob = sealed_offer(MemoryKeys(900), town.now)
    town[0].store.put(topic, blob, town.now)
    get = Get(None, topic, topic, MemoryKeys(900).node, b"")
    assert town[0].serve(MemoryKeys(1).node, get, "", town.now, town.now) == Listing((), (), False, get.after)


# -- upkeep ----------------------------------------------------------------------------------------------
def test_each_bucket_is_refreshed_in_its_turn_and_the_dead_are_found() -> None:
    town = Town(60)
    node = town[0]
    town.down = {town[number].key for number in range(10, 30)}
    seen = set()
    for _ in range(150):
        order = node.due(town.now)
        if order is None:
            town.now = Instant(town.now + 10 * MINUTE)
            continue
        seen.add(order)
        walk = node.refresh(order, town.now)
        town.run(node, walk)
        node.refreshed(order, walk, town.now)
    assert seen >= set(node.table.orders())
    assert not [key for key in town.down if node.table.find(key)]
    assert node.density.radius > 0


def test_a_bucket_is_not_due_again_before_its_time() -> None:
    town = Town(60)
    node = town[0]
    while (order := node.due(town.now)) is not None:
        node.refresh(order, town.now)
    assert node.due(Instant(town.now + HOUR - 1)) in (None, *range(240, 254)), (
        "only those less than half full"
    )
    assert node.due(Instant(town.now + HOUR)) is not None


def test_a_lone_node_holds_what_it_publishes_and_finds_it() -> None:
    town = Town(1)
    topic, blob = published(town, MemoryKeys(900))
    assert town.search(town[0], topic) == [blob]
