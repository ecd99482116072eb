"""What is remembered of a provider, and what it does to its price."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.identity import NodeKey
from dockage.domain.offer import Offer, Wish, obstacles, rank
from dockage.domain.pricing import Tariff
from dockage.domain.reason import Reason
from dockage.domain.reputation import (
    HALF_LIFE,
    TRUSTED_TICKS,
    UNKNOWN,
    WEIGHTS,
    Breach,
    Evidence,
    is_avoided,
    risk_permille,
    usual_score,
)
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, Instant

NOW = Instant(10 * HALF_LIFE)


def after(code: str, age: int = 0, **more: int) -> Evidence:
    return Evidence(breaches=(Breach(Reason(code, "because"), Instant(NOW - age)),), **more)  # type: ignore[arg-type]


def test_a_stranger_is_a_tenth_dearer_and_a_day_of_true_bills_takes_that_away() -> None:
    assert risk_permille(UNKNOWN, NOW) == 100
    assert risk_permille(Evidence(ticks=TRUSTED_TICKS // 2), NOW) == 50
    assert risk_permille(Evidence(ticks=TRUSTED_TICKS), NOW) == 0


def test_a_contradiction_is_not_forgotten_soon_and_an_accident_is() -> None:
    assert is_avoided(risk_permille(after("statement.forked", 2 * HALF_LIFE), NOW))
    assert not is_avoided(risk_permille(after("meter.short"), NOW))
    assert risk_permille(after("meter.overstated", HALF_LIFE), NOW) == 3100
    assert not is_avoided(risk_permille(after("meter.overstated", 2 * HALF_LIFE), NOW))


@given(st.sampled_from(sorted(WEIGHTS)), st.integers(0, 9 * HALF_LIFE), st.integers(0, 10**9))
def test_a_breach_never_makes_anybody_cheaper_and_always_fades(code: str, age: int, ticks: int) -> None:
    clean = risk_permille(Evidence(ticks=ticks), NOW)
    assert risk_permille(after(code, age, ticks=ticks), NOW) >= clean
    assert risk_permille(after(code, age, ticks=ticks), NOW) >= risk_permille(
        after(code, age + HALF_LIFE, ticks=ticks), NOW
    )


def test_a_core_that_does_half_the_work_costs_twice_as_much() -> None:
    known = [Evidence(scores=(score,)) for score in (1000, 1000, 500)]
    assert usual_score(known) == 1000
    assert usual_score(known[1:]) == 0, "of two, who is the slow one?"
    trusted = Evidence(ticks=TRUSTED_TICKS, scores=(500,))
    assert risk_permille(trusted, NOW, 1000) == 1000
    assert risk_permille(Evidence(ticks=TRUSTED_TICKS, scores=(700,)), NOW, 1000) == 0


def test_offers_are_ranked_by_price_times_risk_and_cheats_are_not_offers_at_all() -> None:
    def offer(name: bytes, price: int) -> Offer:
        return Offer(
            NodeKey(name * 32), Resources(4000, 8 * GIB, 8 * GIB), Tariff(cpu_hour=price), "eu", "x86_64", "r"
        )

    cheap, fair, cheat = offer(b"c", 100), offer(b"f", 120), offer(b"x", 1)
    risks = {cheap.provider: 500, fair.provider: 0, cheat.provider: 20_000}
    wish = Wish(NodeKey(b"t" * 32), Resources(1000, GIB, GIB), network="r")
    assert rank((cheap, fair, cheat), wish, lambda x: risks[x]) == (fair, cheap)
    assert "was found cheating by this node" in obstacles(cheat, wish, lambda x: risks[x])
    assert rank((cheap, fair, cheat), wish) == (cheat, cheap, fair)
