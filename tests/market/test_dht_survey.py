"""The best offers of a topic, by some of its holders: what is found, whom it costs what, and every lie."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Wish
from dockage.domain.pricing import PRESETS, scaled
from dockage.domain.query import Excerpt, Query
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Instant
from dockage.protocol.dht_messages import Answer, Best, Pick, Request
from dockage.protocol.dht_node import DhtNode
from dockage.protocol.dht_survey import CLOSE, CROWD, DRAWN, Survey
from dockage.protocol.kademlia import SALTS, Contact, K, Lookup, Space
from dockage.protocol.records import LIFETIME, SHARDS, OfferBody, offers_topic, seal
from dockage.testing.clock import START
from dockage.testing.directory import offer_of
from dockage.testing.keys import MemoryKeys, verify
from market.test_dht_node import Town, me

TOPIC = offers_topic("eu", 0)
WISH = Wish(NodeKey(bytes(32)), Resources(1000, GIB, GIB), "eu", network="regtest")


def sellers(count: int) -> list[MemoryKeys]:
    """All of the first shard."""
    found = (keys for number in range(5000, 9000) if (keys := MemoryKeys(number)).node[0] % SHARDS == 0)
    return [next(found) for _ in range(count)]


*SELLERS, LATE, LATER = sellers(26)


def sealed(keys: MemoryKeys, percent: int, now: Instant = START, cpu: int = 4000) -> bytes:
    offer = replace(offer_of(keys, cpu=cpu), tariff=scaled(PRESETS["fair"], percent, 100))
    return seal(
        "offer", keys.node, OfferBody(now, Instant(now + LIFETIME), offer, "", ("8.8.8.8:1",)), keys.sign
    )


class Stalls(Town):
    """A town whose nodes all hold the same offers: seller n asks (100 + n) % of the usual."""

    def __init__(self, size: int = 40) -> None:
        super().__init__(size)
        self.blobs = [sealed(keys, 100 + number) for number, keys in enumerate(SELLERS)]
        for node in self.nodes.values():
            for blob in self.blobs:
                node.store.put(TOPIC, blob, START)

    def survey(self, query: Query) -> Excerpt:
        asker = DhtNode(MemoryKeys(999).node, self.space, verify, Random(1), server=True)
        asker.move(Contact(asker.key, "9.9.9.9:4711"))
        for node in self.nodes.values():
            asker.table.chosen(me(node), self.now)
        self.asked.clear()
        self.asker, survey = asker, asker.survey(TOPIC, query, START, self.now)
        self.run(asker, survey)
        return survey.excerpt()


def run_as(town: Town, liars: set[NodeKey], lie: Callable[[Best], Best]) -> None:
    """*liars* answer picks with *lie* of what is true."""

    def wrap(node: DhtNode) -> None:
        true = node.serve

        def serve(peer: NodeKey, request: Request, seen: str, wall: Instant, now: Instant) -> Answer:
            answer = true(peer, request, seen, wall, now)
            return lie(answer) if isinstance(answer, Best) else answer

        node.serve = serve  # type: ignore[method-assign]

    for key in liars:
        wrap(town.nodes[key])


def test_the_best_of_all_are_found_by_a_few_questions() -> None:
    town = Stalls()
    excerpt = town.survey(Query(WISH, most=8))
    assert set(excerpt.records) == set(town.blobs[:8])
    assert (excerpt.fitting, excerpt.known) == (24, 24)
    assert len(town.asked) <= SALTS * CLOSE + DRAWN + CLOSE  # a place may look thin by chance
    assert all(isinstance(question.request, Pick) for question in town.asked)


def test_pages_go_on_behind_what_was_reached() -> None:
    town = Stalls()
    first = town.survey(Query(WISH, most=16))
    second = town.survey(Query(WISH, most=16, after=first.reach))
    assert set(second.records) == set(town.blobs[16:])
    assert second.reach is None


def test_a_holder_that_is_behind_does_not_hide_the_newest() -> None:
    town = Stalls()
    newer = sealed(SELLERS[23], 10, Instant(START + 1))
    behind = list(town.nodes)[::2]
    for key in set(town.nodes) - set(behind):
        town.nodes[key].store.put(TOPIC, newer, START)
    assert newer in town.survey(Query(WISH, most=8)).records


def test_most_holders_that_show_nothing_hide_nothing() -> None:
    town = Stalls()
    run_as(
        town,
        set(list(town.nodes)[: 3 * len(town.nodes) // 4]),
        lambda best: Best(best.contacts, (), False, 0, 0),
    )
    assert set(town.survey(Query(WISH, most=8)).records) == set(town.blobs[:8])


FOREIGN = seal(
    "offer",
    MemoryKeys(4001).node,
    OfferBody(START, Instant(START + LIFETIME), offer_of(MemoryKeys(4001), "mars"), "", ()),
    MemoryKeys(4001).sign,
)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        ((b"noise",), "record.malformed"),
        ((sealed(SELLERS[0], 1).replace(b"x86_64", b"x86_65"),), "record.signature"),
        ((FOREIGN,), "dht.unasked"),
        ((sealed(SELLERS[0], 1, cpu=10),), "dht.unasked"),
        ((sealed(LATE, 200), sealed(LATER, 150)), "dht.unasked"),
        (tuple(sealed(keys, 100 + n) for n, keys in enumerate(SELLERS[:9])), "dht.unasked"),
    ],
    ids=["noise", "forged", "of another topic", "does not fit", "out of order", "more than asked"],
)
def test_who_shows_what_was_not_asked_for_is_blamed(records: tuple[bytes, ...], code: str) -> None:
    town = Stalls()
    liars = set(list(town.nodes)[::3])
    run_as(town, liars, lambda best: replace(best, records=records, known=1 << 30, fitting=1 << 29))
    excerpt = town.survey(Query(WISH, most=8))
    asked = {question.contact.key for question in town.asked}
    assert town.asker.refused == {code: len(liars & asked)}
    assert all(town.asker.table.find(key) is None for key in liars & asked)
    assert set(town.blobs[:8]) <= set(excerpt.records)
    assert excerpt.known == 24


def test_an_old_page_again_is_blamed() -> None:
    town = Stalls()
    reach = town.survey(Query(WISH, most=8)).reach
    old = tuple(town.blobs[:8])
    run_as(town, set(town.nodes), lambda best: replace(best, records=old))
    assert town.survey(Query(WISH, most=8, after=reach)).reach is None
    assert set(town.asker.refused) == {"dht.unasked"}


def test_what_is_over_by_our_clock_is_no_lie() -> None:
    town = Stalls()
    late = sealed(SELLERS[0], 1, Instant(START - LIFETIME))
    run_as(town, set(town.nodes), lambda best: replace(best, records=(late, *best.records[:7])))
    assert set(town.survey(Query(WISH, most=8)).records) == set(town.blobs[:7])
    assert not town.asker.refused


def test_where_a_crowd_shows_the_whole_region_is_asked() -> None:
    """Names within the radius beyond what chance explains: not the closest few are believed but all of the region."""
    space, goal = Space(bound=False), bytes(32)
    crowd = [Contact(MemoryKeys(number).node, "8.8.8.8:1") for number in range(CROWD + 8)]
    radius = max(space.number(contact) for contact in crowd)
    for named, expected in ((crowd, CROWD + 8), (crowd[:K], CLOSE + DRAWN)):
        survey = Survey(
            TOPIC,
            Query(WISH),
            {goal: Lookup(goal, named, space, width=CLOSE)},
            None,
            verify,
            lambda _, __: None,
            START,
            Random(1),
            radius,
        )
        asked = set()
        while questions := survey.next(START):
            for question in questions:
                asked.add(question.contact.key)
                survey.answered(question, Best((), (), False, 0, 0), START)
        assert len(asked) == expected
