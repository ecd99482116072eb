"""Which offers fit a wish, why the others do not, and in which order they are tried."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.offer import GATEWAY, Ingress, Offer, Wish, hourly_ceiling, obstacles, rank
from dockage.domain.pricing import PRESETS, Tariff, price, scaled
from dockage.domain.resources import INGRESS, Resources
from dockage.domain.units import GIB, Msat
from dockage.domain.unseen import AT_ONCE, unseen

ME, THEM = NodeKey(b"t" * 32), NodeKey(b"p" * 32)
LIMITS = Resources(1000, 1 * GIB, 1 * GIB)
OFFER = Offer(THEM, Resources(4000, 4 * GIB, 4 * GIB), Tariff(cpu_hour=500), "fi", "x86_64", "regtest")
WISH = Wish(ME, LIMITS, network="regtest")
change = msgspec.structs.replace


def test_an_offer_that_fits_has_no_obstacle() -> None:
    assert obstacles(OFFER, WISH) == ()


@pytest.mark.parametrize(
    ("offer", "wish", "said"),
    [
        ({"free": Resources(999, 1 * GIB, 1 * GIB)}, {}, "only 0.999 cores left"),
        (
            {"free": Resources(1000, 8 * GIB, 100 * GIB)},
            {"limits": Resources(2000, GIB, GIB)},
            "only 1 core left",
        ),
        ({"free": Resources(1000, 512 << 20, 1 * GIB)}, {}, "only 512 MiB of memory left"),
        ({"free": Resources(1000, 1 * GIB, 0)}, {}, "only 0 MiB of disk left"),
        ({}, {"region": "se"}, "region is fi"),
        ({"architecture": "aarch64"}, {}, "architecture is aarch64"),
        ({}, {"opacity": "sealed"}, "opacity is only open"),
        ({}, {"isolation": "vm"}, "isolation is only container"),
        ({"only_for": (THEM,)}, {}, "not open to your key"),
        ({}, {"network": "main"}, "is paid on regtest, your wallet is on main"),
        ({}, {"network": ""}, "is paid on regtest, your wallet is on no network"),
        ({}, {"max_msat_hour": Msat(499)}, "costs up to 0.5 sat an hour"),
        ({"setup_sat": 1001}, {}, "wants 1001 sat for itself before it serves anything"),
        (
            {"tariff": Tariff(cpu_hour=500, net_out_gib=10**9)},
            {},
            "could bill 31250 sat of traffic that nobody can count, as soon as it is rented",
        ),
    ],
)
def test_each_obstacle_is_named(offer: dict[str, Any], wish: dict[str, Any], said: str) -> None:
    assert obstacles(change(OFFER, **offer), change(WISH, **wish)) == (said,)


@pytest.mark.parametrize("line", ["net_in_gib", "net_out_gib", "internet_out_gib", "replica_out_gib"])
@given(price_gib=st.integers(0, 10**9), cpu_hour=st.integers(0, 10**8))
def test_a_cheap_core_is_no_bait_for_traffic_that_nobody_can_count(
    line: str, price_gib: int, cpu_hour: int
) -> None:
    """A first statement may name bytes that were never carried. It takes half a day's rent, not a channel."""
    tariff = Tariff(cpu_hour, **{line: price_gib})
    assert unseen(tariff) == price(AT_ONCE, tariff)
    fits = not obstacles(change(OFFER, tariff=tariff), WISH)
    assert fits == (unseen(tariff) <= max(12 * cpu_hour, 250_000))


@pytest.mark.parametrize("times", [1, 100_000])
def test_of_a_place_only_what_passes_can_be_stated(times: int) -> None:
    """As a gateway at the market of the demo sells it."""
    ingress = Ingress("", ("192.0.2.1",))
    gateway = change(OFFER, tariff=scaled(PRESETS["fair"], times, 1), ingress=ingress)
    assert obstacles(gateway, change(WISH, limits=INGRESS, service=GATEWAY)) == ()


@pytest.mark.parametrize("times", [1, 100_000])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_and_many_times_of_them_fit(name: str, times: int) -> None:
    tariff = scaled(PRESETS[name], times, 1)
    assert obstacles(change(OFFER, tariff=tariff), WISH) == ()


@pytest.mark.parametrize(
    ("offer", "wish"),
    [
        ({"free": LIMITS}, {}),
        ({}, {"region": "fi"}),
        ({"opacity": "confidential"}, {"opacity": "sealed"}),
        ({"isolation": "vm"}, {"isolation": "gvisor"}),
        ({"only_for": (THEM, ME)}, {}),
        ({"tariff": Tariff(), "network": ""}, {"network": ""}),
        ({}, {"max_msat_hour": Msat(500)}),
        ({"setup_sat": 1000}, {}),
        ({"setup_sat": 10_000, "tariff": Tariff(cpu_hour=834_000)}, {}),
        ({"setup_sat": 10_000, "tariff": Tariff(), "network": ""}, {"network": ""}),
    ],
)
def test_at_the_brim_it_still_fits(offer: dict[str, Any], wish: dict[str, Any]) -> None:
    assert obstacles(change(OFFER, **offer), change(WISH, **wish)) == ()


def test_several_obstacles_are_all_named() -> None:
    assert len(obstacles(OFFER, change(WISH, region="se", network="main", max_msat_hour=Msat(1)))) == 3


offers = st.lists(
    st.builds(
        lambda key, cpu, price, region: change(
            OFFER,
            provider=NodeKey(bytes([key]) * 32),
            free=Resources(cpu, 4 * GIB, 4 * GIB),
            tariff=Tariff(price),
            region=region,
        ),
        st.integers(0, 255),
        st.sampled_from([500, 1000, 9000]),
        st.integers(0, 20),
        st.sampled_from(["fi", "se"]),
    ),
    max_size=12,
    unique_by=lambda o: o.provider,
)


@given(offers, st.randoms(use_true_random=False))
def test_the_cheapest_that_fits_comes_first_whatever_the_order_of_the_list(
    found: list[Offer], random: Any
) -> None:
    ranked = rank(tuple(found), WISH)
    assert set(ranked) == {offer for offer in found if not obstacles(offer, WISH)}
    prices = [hourly_ceiling(offer, LIMITS) for offer in ranked]
    assert prices == sorted(prices)
    random.shuffle(found)
    assert rank(tuple(found), WISH) == ranked


@pytest.mark.parametrize(
    "nonsense",
    [
        {"free": Resources(-1)},
        {"tariff": Tariff(-1)},
        {"provider": NodeKey(b"short")},
        {"region": ""},
        {"region": "x" * 33},
        {"architecture": "x" * 17},
        {"network": "x" * 17},
        {"opacity": "glass"},
        {"isolation": "trust"},
        {"confirmations": -1},
        {"confirmations": 101},
        {"only_for": (ME,) * 17},
    ],
)
def test_nonsense_is_recognised(nonsense: dict[str, Any]) -> None:
    assert OFFER.is_sane
    assert not change(OFFER, **nonsense).is_sane


@pytest.mark.parametrize("name", ["region", "architecture", "network"])
@pytest.mark.parametrize("word", ["\x1b[2J", "fi\r", "a\nb", "\u202egnp"])
def test_a_strangers_words_do_not_move_our_users_cursor(name: str, word: str) -> None:
    assert OFFER.is_sane
    assert not change(OFFER, **{name: word}).is_sane
    assert not change(OFFER, ingress=Ingress("", (word,))).is_sane
