"""Price policies: what they answer, and each wrong rate that must set no price."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.adapters.prices.command import CommandRate
from dockage.adapters.prices.fixed import ByUse, Fixed
from dockage.adapters.prices.pegged import Bounds, FixedRate, Pegged
from dockage.domain.errors import Unavailable
from dockage.domain.pricing import PRESETS, Tariff, at_rate, by_use, scaled
from dockage.domain.resources import Resources
from dockage.domain.units import micro
from dockage.ports.hosting import PricePolicy

pytestmark = pytest.mark.anyio
FAIR = PRESETS["fair"]
M = 1_000_000
BOUNDS = Bounds(60_000 * M, 20_000 * M, 180_000 * M, 3600.0)


class Rates:
    """Answers what a test put into ``next``; an exception is raised."""

    def __init__(self, *rates: int | Unavailable) -> None:
        self.next, self.asked = list(rates), 0

    async def micro(self) -> int:
        self.asked += 1
        rate = self.next.pop(0) if len(self.next) > 1 else self.next[0]
        if isinstance(rate, Unavailable):
            raise rate
        return rate


class Now:
    at = 0.0

    def __call__(self) -> float:
        return self.at


DOWN = Unavailable("price.rate", "no rate")


def pegged(*rates: int | Unavailable, every: float = 0.0) -> tuple[Pegged, Rates, Now]:
    source, now = Rates(*rates), Now()
    return Pegged(source, BOUNDS, every, now), source, now


async def price(policy: PricePolicy) -> int:
    return (await policy.tariff(FAIR, 0)).cpu_hour


# -- every policy ------------------------------------------------------------------------------------
@pytest.mark.parametrize("sold", [0, 1, 500, 999, 1000])
@pytest.mark.parametrize("base", [FAIR, Tariff(), Tariff(cpu_hour=1)])
@pytest.mark.parametrize("policy", [Fixed(), ByUse(60, 200), Pegged(FixedRate(60_000 * M), BOUNDS, 1, Now())])
async def test_an_answer_is_a_sane_tariff_and_free_stays_free(
    policy: PricePolicy, base: Tariff, sold: int
) -> None:
    answer = await policy.tariff(base, sold)
    assert answer.is_sane
    assert not (base.is_free and not answer.is_free)
    assert await policy.tariff(base, sold) == answer


# -- by utilisation ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("sold", "msat"), [(0, 4800), (500, 10_400), (1000, 16_000)])
def test_a_straight_line_between_empty_and_full(sold: int, msat: int) -> None:
    assert by_use(FAIR, sold, 60, 200).cpu_hour == msat


@given(st.integers(0, 999), st.integers(1, 1000), st.integers(1, 1000))
def test_never_outside_the_two_ends(sold: int, empty: int, full: int) -> None:
    ends = sorted((scaled(FAIR, empty, 100).cpu_hour, scaled(FAIR, full, 100).cpu_hour))
    assert ends[0] <= by_use(FAIR, sold, empty, full).cpu_hour <= ends[1]


def test_the_scarcest_resource_says_how_much_is_sold() -> None:
    all_ = Resources(4000, 8 << 30, 100 << 30)
    assert all_.sold_permille(all_) == 0
    assert all_.sold_permille(Resources(1000, 8 << 30, 100 << 30)) == 750
    assert all_.sold_permille(Resources()) == 1000
    assert Resources().sold_permille(Resources()) == 0


# -- pegged ------------------------------------------------------------------------------------------
def test_a_dearer_bitcoin_makes_fewer_satoshis() -> None:
    assert at_rate(FAIR, 60_000 * M, 120_000 * M).cpu_hour == FAIR.cpu_hour // 2
    assert at_rate(FAIR, 60_000 * M, 30_000 * M).cpu_hour == FAIR.cpu_hour * 2


async def test_the_price_follows_the_rate() -> None:
    policy, _, _ = pegged(60_000 * M, 66_000 * M)
    assert [await price(policy), await price(policy)] == [8000, 7272]


async def test_the_source_is_asked_only_now_and_then() -> None:
    policy, source, now = pegged(60_000 * M, every=600)
    await price(policy)
    now.at = 599
    await price(policy)
    assert source.asked == 1
    now.at = 600
    await price(policy)
    assert source.asked == 2


@pytest.mark.parametrize("rate", [0, 1, 19_999 * M, 180_001 * M, 6_000_000 * M])
async def test_an_absurd_rate_sets_no_price(rate: int) -> None:
    policy, _, _ = pegged(rate)
    with pytest.raises(Unavailable, match="is not between 20000 and 180000"):
        await price(policy)


async def test_an_absurd_rate_leaves_the_last_good_one_for_a_while() -> None:
    policy, _, now = pegged(60_000 * M, 1)
    assert [await price(policy), await price(policy)] == [8000, 8000]
    now.at = 3601
    with pytest.raises(Unavailable) as caught:
        await price(policy)
    assert caught.value.code == "price.absurd"


async def test_a_jump_counts_once_it_is_seen_twice() -> None:
    policy, _, _ = pegged(60_000 * M, 90_000 * M, 91_000 * M)
    assert [await price(policy) for _ in range(3)] == [8000, 8000, 60_000 * 8000 // 91_000]


async def test_two_jumps_to_different_places_do_not_count() -> None:
    policy, _, _ = pegged(60_000 * M, 90_000 * M, 30_000 * M, 61_000 * M)
    assert [await price(policy) for _ in range(4)] == [8000, 8000, 8000, 60_000 * 8000 // 61_000]


async def test_a_source_that_is_down_comes_back() -> None:
    policy, _, now = pegged(DOWN, 60_000 * M)
    with pytest.raises(Unavailable):
        await price(policy)
    now.at = 1
    assert await price(policy) == 8000


# -- a command ---------------------------------------------------------------------------------------
def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", text)


async def test_what_a_command_prints_is_the_rate() -> None:
    assert await CommandRate(python("print(61234.5)"), 10).micro() == 61_234_500_000


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/nowhere/at/all",), "cannot be run"),
        (python("print('no such ticker')"), "which is no rate"),
        (python("print('NaN')"), "which is no rate"),
        (python("print(-5)"), "which is no rate"),
        (python("print()"), "which is no rate"),
        (python("print(5); raise SystemExit(3)"), "code 3"),
        (("sh", "-c", "sleep 60 & wait"), "within 0.2 s"),
    ],
)
async def test_a_command_that_gives_no_rate(command: tuple[str, ...], words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        await CommandRate(command, 0.2 if "sleep" in command[-1] else 10).micro()


@pytest.mark.parametrize("text", ["", "x", "1e99", "inf", "-1", "0", "1 2"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="no positive number"):
        micro(text)
