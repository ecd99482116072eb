"""Who gets a place in the table, who loses it, and what a crowd around one topic does not change."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.units import SECOND, Instant
from dockage.protocol.kademlia import Contact, K, Space, nearest
from dockage.protocol.routing_table import BITS, HALF, Density, RoutingTable

FREE, BOUND = Space(bound=False), Space(bound=True)
NOW = Instant(1_000 * SECOND)
OWN = NodeKey(b"\xff" * 32)


def contact(number: int, space: Space = FREE) -> Contact:
    address = (
        f"8.{number >> 8 & 255}.{number & 255}.1:1" if space.bound else f"127.0.0.1:{number % 60_000 + 1}"
    )
    return Contact(NodeKey(number.to_bytes(32, "big")), address)


def table(space: Space = FREE) -> RoutingTable:
    return RoutingTable(OWN, space.id(Contact(OWN, "1.2.3.4:5")), space)


def in_bucket(order: int, count: int, made: RoutingTable, start: int = 0) -> list[Contact]:
    numbers = (contact(number) for number in range(start, 1 << 30))
    return [c for c, _ in zip((c for c in numbers if made.order(c) == order), range(count), strict=False)]


def lonely(count: int = 1000) -> RoutingTable:
    """A table with its neighbours, and as many callers as come."""
    made = table()
    for neighbour in in_bucket(BITS - 3, K, made):
        made.heard(neighbour, NOW)
    for number in range(count):
        made.heard(contact(number), NOW)
    return made


def test_whoever_calls_first_fills_a_far_bucket_only_to_half() -> None:
    made = lonely()
    assert made.size(BITS) == made.size(BITS - 1) == HALF


def test_whoever_was_drawn_takes_the_places_of_callers_and_then_the_free_ones() -> None:
    made = lonely()
    drawn = in_bucket(BITS, K, made, start=5000)
    for count, each in enumerate(drawn, 1):
        assert made.chosen(each, NOW)
        assert (made.size(BITS), made.drawn(BITS)) == (max(HALF, count), count)
    assert not made.heard(contact(7), NOW)
    assert set(drawn) <= set(made.all())


def test_nobody_has_a_place_in_a_full_far_bucket_for_life() -> None:
    """Hostile nodes never leave: after K further draws there is not one of the first left that was not drawn again."""
    made = lonely()
    first, then = in_bucket(BITS, K, made, start=5000), in_bucket(BITS, K, made, start=20_000)
    for each in first:
        made.chosen(each, NOW)
    made.chosen(first[3], Instant(NOW + SECOND))
    for each in then[1:]:
        made.heard(first[5], Instant(NOW + 2 * SECOND))  # to be alive is not enough
        made.chosen(each, Instant(NOW + 2 * SECOND))
    assert [each for each in first if made.find(each.key)] == [first[3]]


def test_neighbours_keep_their_places() -> None:
    """There are no others to put there: their ids are what they are."""
    made = table()
    near = in_bucket(BITS - 3, 2 * K, made)
    assert [made.chosen(each, NOW) for each in near] == [True] * K + [False] * K
    assert made.drawn(BITS - 3) == K


def test_neighbours_are_taken_as_they_come() -> None:
    made = table()
    for number in range(3000):
        made.heard(contact(number), NOW)
    near = nearest(FREE.id(Contact(OWN, "")), [contact(number) for number in range(3000)], FREE, HALF)
    assert set(near) <= set(made.all())


def test_who_is_silent_twice_in_a_row_loses_its_place() -> None:
    made, one = table(), contact(1)
    made.heard(one, NOW)
    made.missed(one.key)
    made.heard(one, NOW)
    made.missed(one.key)
    assert made.find(one.key) == one
    made.missed(one.key)
    assert made.find(one.key) is None
    assert made.heard(one, NOW)


def test_a_silent_stranger_costs_no_memory() -> None:
    made = table()
    for number in range(100):
        made.missed(contact(number).key)
    assert not made._missed


def test_those_not_heard_from_for_longest_are_looked_at_first() -> None:
    made = table()
    some = in_bucket(BITS, 5, made)
    for age, each in enumerate(some):
        made.heard(each, Instant(NOW + age * SECOND))
    made.heard(some[0], Instant(NOW + 60 * SECOND))
    assert made.silent(BITS, 2) == some[1:3]


@given(st.integers(0, 1 << 60), st.integers(1, BITS), st.booleans())
def test_an_id_drawn_within_a_bucket_lies_in_it(seed: int, order: int, bound: bool) -> None:
    made = table(BOUND if bound else FREE)
    drawn = int.from_bytes(made.within(order, Random(seed).randbytes(32)), "big")
    assert (drawn ^ made._own_id).bit_length() == order


@given(st.integers(0, 1 << 60), st.integers(0, 300), st.booleans())
def test_the_closest_are_the_closest_of_all(seed: int, size: int, bound: bool) -> None:
    rand, space = Random(seed), BOUND if bound else FREE
    made = table(space)
    for number in rand.sample(range(60_000), size):
        made.chosen(contact(number, space), NOW)
    target = rand.randbytes(32)
    number = int.from_bytes(target, "big")
    found = [space.number(c) ^ number for c in made.closest(target)]
    assert found == [space.number(c) ^ number for c in nearest(target, made.all(), space)]


def test_the_buckets_worth_keeping_end_at_the_neighbours() -> None:
    made = table()
    for number in range(2000):
        made.chosen(contact(number), NOW)
    orders = made.orders()
    assert orders[0] == BITS
    assert 4 <= len(orders) <= 10
    assert sum(made.size(order) for order in range(orders[-1])) < K


def test_how_dense_the_market_is_comes_from_ids_that_we_drew() -> None:
    density, rand = Density(), Random(1)
    assert density.radius == 0
    nodes = [rand.getrandbits(BITS) for _ in range(1000)]
    for _ in range(15):
        target = rand.getrandbits(BITS)
        density.seen(sorted(node ^ target for node in nodes)[:3])
    expected = (1 << BITS) * K // 1000
    assert expected // 2 < density.radius < 2 * expected


def test_a_few_liars_do_not_change_how_dense_the_market_seems() -> None:
    density = Density()
    for number in range(15):
        density.seen([1, 2, 3] if number % 3 == 0 else [100, 200, 300])
    assert density.radius == 300 * K // 3
