"""Which offers a question to the market chooses, and in which order: one rule for indexes and for askers."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Wish, hourly_ceiling, hourly_ceilings, misfits, obstacles
from dockage.domain.pricing import PRESETS, Tariff, scaled
from dockage.domain.query import Query, network_of, pick
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Msat

ME = NodeKey(b"T" * 32)
WISH = Wish(ME, Resources(1000, GIB, GIB), network="regtest")


def offer(number: int, percent: int = 100, cpu: int = 4000, **more: object) -> Offer:
    base = Offer(
        NodeKey(bytes([number]) * 32),
        Resources(cpu, 8 * GIB, 80 * GIB),
        scaled(PRESETS["fair"], percent, 100),
        "earth",
        "x86_64",
        "regtest",
    )
    return replace(base, **more)


def chosen(offers: Sequence[Offer], query: Query, nets: Sequence[str] = ()) -> list[int]:
    """Their numbers."""
    nets = nets or [f"0a00{number:02x}" for number in range(len(offers))]
    return [number for number, _ in pick(offers, query, nets.__getitem__).chosen]


def test_the_cheapest_that_fits_comes_first() -> None:
    offers = [offer(1, 200), offer(2, 50), offer(3, 100), offer(4, 10, cpu=500)]
    assert chosen(offers, Query(WISH)) == [1, 2, 0]
    assert chosen(offers, Query(WISH, near=True)) == [1, 2, 0, 3]


def test_the_price_is_that_of_the_deployment_asked_about() -> None:
    cpu, memory = Tariff(cpu_hour=1000), Tariff(memory_gib_hour=1000)
    offers = [offer(1, tariff=cpu), offer(2, tariff=memory)]
    much_cpu, much_memory = Resources(4000, GIB, GIB), Resources(100, 8 * GIB, GIB)
    assert chosen(offers, Query(replace(WISH, limits=much_cpu))) == [1, 0]
    assert chosen(offers, Query(replace(WISH, limits=much_memory))) == [0, 1]


def test_who_pays_nothing_somewhere_is_sent_there() -> None:
    offers = [offer(1, 10), offer(2, 200, free_for=(ME,))]
    assert chosen(offers, Query(WISH)) == [1, 0]


def test_a_maximum_price_and_levels_are_kept() -> None:
    sealed = offer(1, 150, opacity="sealed")
    offers = [sealed, offer(2, 100)]
    most = hourly_ceiling(offers[1], WISH.limits)
    assert chosen(offers, Query(replace(WISH, max_msat_hour=most))) == [1]
    assert chosen(offers, Query(replace(WISH, opacity="sealed"))) == [0]
    assert chosen(offers, Query(replace(WISH, max_msat_hour=Msat(most - 1)))) == []


def test_operators_and_networks_that_one_has_already_are_left_out() -> None:
    offers = [offer(n) for n in (1, 2, 3, 4)]
    nets = ["080808", "080809", "080809", "08080a"]
    assert chosen(offers, Query(WISH, avoid=(offers[0].provider,)), nets) == [1, 2, 3]
    assert chosen(offers, Query(WISH, avoid_nets=("080809",)), nets) == [0, 3]
    assert chosen(offers, Query(WISH, per_net=1), nets) == [0, 1, 3]


@given(st.lists(st.tuples(st.integers(10, 30), st.sampled_from([500, 4000])), max_size=30), st.integers(1, 7))
def test_pages_show_everything_once_and_in_order(drawn: list[tuple[int, int]], most: int) -> None:
    offers = [offer(n, percent, cpu) for n, (percent, cpu) in enumerate(drawn)]
    query, seen = Query(WISH, near=True, most=most), list[int]()
    while True:
        picked = pick(offers, query)
        seen += [number for number, _ in picked.chosen]
        if not picked.more:
            break
        query = replace(query, after=picked.chosen[-1][1])
    assert seen == chosen(offers, Query(WISH, near=True, most=256))
    assert sorted(seen) == list(range(len(offers)))


@given(
    st.builds(
        offer,
        st.integers(0, 255),
        st.integers(0, 300),
        st.sampled_from([100, 4000]),
        opacity=st.sampled_from(["open", "sealed"]),
        region=st.sampled_from(["earth", "mars"]),
        only_for=st.sampled_from([(), (ME,), (NodeKey(b"X" * 32),)]),
    ),
    st.sampled_from([None, 0, 10_000, 1_000_000]),
)
def test_an_index_and_an_asker_agree_on_what_fits(one: Offer, most: Msat | None) -> None:
    wish = replace(WISH, region="earth", max_msat_hour=most)
    names = misfits(one, wish, hourly_ceiling(one, wish.limits))
    assert len(names) == len(obstacles(one, wish))
    assert (chosen([one], Query(wish)) == [0]) is (not names)


@given(
    st.builds(Resources, *[st.integers(0, 1 << 40)] * 3), st.builds(Tariff, *[st.integers(0, 1 << 40)] * 9)
)
def test_many_prices_are_those_of_each(limits: Resources, tariff: Tariff) -> None:
    one = offer(1, tariff=tariff)
    assert hourly_ceilings(limits)(tariff) == hourly_ceiling(one, limits)


def test_of_networks_that_nobody_knows_there_may_be_any_number() -> None:
    assert chosen([offer(n) for n in range(4)], Query(WISH, per_net=1), ["", "080808", "", "080808"]) == [
        0,
        1,
        2,
    ]


def test_a_network_is_a_24_or_a_48_or_a_relay() -> None:
    assert network_of(("198.41.0.4:4711", "10.0.0.1:1"), "") == "c62900"
    assert network_of(("10.0.0.1:1", "198.41.0.4:4711"), "http://relay.example:3340") == "c62900"
    assert network_of(("[2606:4700:5::1]:4711",), "") == "260647000005"
    assert network_of(("192.168.1.2:4711",), "http://relay.example:3340") == "http://relay.example:3340"
    assert network_of(("127.0.0.1:4711",), "") == ""
