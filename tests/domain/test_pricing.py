"""What usage costs: the printed prices, one division, in the tenant's favour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.pricing import FIELDS, PRESETS, Tariff, ceiling, lines, parts, price, waiting
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, HOUR, MIB, MILLISECOND, SECOND, Duration
from dockage.domain.usage import Usage

GIB_HOUR = GIB // MIB * (HOUR // MILLISECOND)
UNITS = {
    "cpu_hour": Usage(cpu_ns=HOUR),
    "memory_gib_hour": Usage(memory_mib_ms=GIB_HOUR),
    "disk_gib_hour": Usage(disk_mib_ms=GIB_HOUR),
    "net_in_gib": Usage(net_in_bytes=GIB),
    "net_out_gib": Usage(net_out_bytes=GIB),
    "internet_out_gib": Usage(internet_out_bytes=GIB),
    "replica_out_gib": Usage(replica_out_bytes=GIB),
    "cpu_reserved_hour": Usage(cpu_reserved_ns=HOUR),
    "memory_reserved_gib_hour": Usage(memory_reserved_mib_ms=GIB_HOUR),
}
usages = st.builds(Usage, *[st.integers(0, 10**18)] * 9)
tariffs = st.builds(Tariff, *[st.integers(0, 10**12)] * 9)


@pytest.mark.parametrize(("line", "usage"), UNITS.items())
def test_one_unit_of_each_costs_its_printed_price_and_nothing_else(line: str, usage: Usage) -> None:
    assert price(usage, Tariff(**{line: 12_345})) == 12_345
    others = Tariff(**{name: 777 for name in UNITS if name != line})
    assert price(usage, others) == 0


def test_every_line_of_the_tariff_is_tried_above() -> None:
    assert set(UNITS) == set(Tariff.__struct_fields__)


@given(usages, usages, tariffs)
def test_prices_add_up_to_less_than_one_msat(one: Usage, other: Usage, tariff: Tariff) -> None:
    """Splitting usage never costs more than the whole, and less than one msat in between."""
    whole = price(one + other, tariff)
    assert 0 <= whole - price(one, tariff) - price(other, tariff) <= 1


@given(usages, usages, tariffs)
def test_more_use_never_costs_less(one: Usage, more: Usage, tariff: Tariff) -> None:
    assert price(one + more, tariff) >= price(one, tariff)


@given(usages, tariffs)
def test_the_lines_add_up_to_the_price_and_it_is_an_integer(usage: Usage, tariff: Tariff) -> None:
    assert type(price(usage, tariff)) is int
    assert price(usage, tariff) == sum(lines(usage, tariff).values()) // (HOUR * GIB)
    assert min(lines(usage, tariff).values()) >= 0


@given(usages)
def test_free_is_free(usage: Usage) -> None:
    assert price(usage, Tariff()) == 0


def test_the_ceiling_is_every_limit_used_to_the_full() -> None:
    limits = Resources(2000, 3 * GIB, 5 * GIB)
    tariff = Tariff(1_000, 100, 10, 9, 9, 9, 9, 10_000, 20_000)
    assert ceiling(limits, tariff, Duration(HOUR)) == 2_000 + 300 + 50 + 20_000 + 60_000


def test_rounding_each_tick_would_lose_money_and_totals_do_not() -> None:
    tick = Usage(cpu_ns=SECOND // 20)  # a twentieth of a core for a second at the fair price: 0.11 msat
    total = Usage()
    for _ in range(3600):
        total += tick
    assert price(tick, PRESETS["fair"]) * 3600 == 0
    assert price(total, PRESETS["fair"]) == 400


def test_the_fair_price_of_a_small_container_is_as_the_docstring_says() -> None:
    month = 730 * HOUR
    used = Usage(cpu_ns=month // 20, memory_mib_ms=256 * (month // MILLISECOND))
    assert 900_000 < price(used, PRESETS["fair"]) < 1_100_000


@pytest.mark.parametrize("line", UNITS)
def test_a_cheap_core_does_not_make_up_for_dear_traffic(line: str) -> None:
    listed = Tariff(**dict.fromkeys(UNITS, 10))
    assert not listed.exceeds(listed)
    dearer = Tariff(**{**dict.fromkeys(UNITS, 0), line: 11})
    assert dearer.exceeds(listed)
    assert not listed.exceeds(Tariff(**dict.fromkeys(UNITS, 11)))


@pytest.mark.parametrize("line", UNITS)
@pytest.mark.parametrize(
    ("amount", "sane"), [(-1, False), (0, True), (21 * 10**17, True), (21 * 10**17 + 1, False)]
)
def test_nonsense_is_recognised(line: str, amount: int, sane: bool) -> None:
    assert Tariff(**{line: amount}).is_sane is sane


@given(usages, tariffs)
def test_the_parts_of_a_price_add_up_to_it_and_each_is_true_to_a_msat(usage: Usage, tariff: Tariff) -> None:
    shares = parts(usage, tariff)
    assert sum(shares.values()) == price(usage, tariff)
    assert shares.keys() == FIELDS.keys() == lines(usage, tariff).keys()
    for name, field in FIELDS.items():
        alone = price(Usage(**{field: getattr(usage, field)}), tariff)
        assert 0 <= shares[name] - alone <= 1


def test_a_standby_costs_its_disk_and_what_is_reserved() -> None:
    tariff = Tariff(cpu_hour=1000, memory_gib_hour=1000, disk_gib_hour=10, cpu_reserved_hour=100)
    limits = Resources(2000, 1 * GIB, 5 * GIB)
    assert waiting(limits, tariff, HOUR) == 5 * 10 + 2 * 100
