"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockage.cli import format as show
from dockage.cli.options import CORES, SIZE
from dockage.cli.table import facts, table
from dockage.domain.resources import Resources


@pytest.mark.parametrize(
    ("msat", "text"),
    [
        (0, "0 sat"),
        (1, "0.001 sat"),
        (1241, "1.241 sat"),
        (9_999, "9.999 sat"),
        (12_345, "12.35 sat"),
        (99_999, "100 sat"),
        (1_234_567, "1,235 sat"),
        (-500, "-0.5 sat"),
    ],
)
def test_msat_as_sat(msat: int, text: str) -> None:
    assert show.sat(msat) == text


@given(st.integers(-(10**18), 10**18))
def test_an_amount_is_never_off_by_more_than_its_last_digit(msat: int) -> None:
    shown = Decimal(show.sat(msat).removesuffix(" sat").replace(",", ""))
    assert abs(shown * 1000 - msat) <= max(Decimal(abs(msat)) / 199, 0)


def test_rates_and_months() -> None:
    assert show.hourly(0) == "free"
    assert show.hourly(5_100) == "5.1 sat/h"
    assert show.monthly(1) == "1 sat"  # rounded up: the worst case


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256 MiB"),
        (1 << 60, "1024 PiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (185, "3 min 05 s"),
        (2550, "42 min"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"), [("1024", 1024), ("512M", 512 << 20), ("1.5GiB", 3 << 29), ("64kb", 65536), ("0", 0)]
)
def test_sizes_are_read_as_docker_reads_them(text: str, count: int) -> None:
    assert SIZE.convert(text, None, None) == count


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "0", "1e9", "two"])
def test_no_cores(text: str) -> None:
    with pytest.raises(click.UsageError):
        CORES.convert(text, None, None)


def test_cores() -> None:
    assert [CORES.convert(text, None, None) for text in ("1", "0.25", "0.0001")] == [1000, 250, 1]


def test_a_table_has_no_trailing_blanks() -> None:
    assert table(("A", "B"), [("x", "10"), ("long", "")], right=("B",)) == "A      B\nx     10\nlong"


def test_facts_leave_out_what_is_not_there() -> None:
    assert facts([("one", "1"), ("none", ""), ("three", "3")]) == "one    1\nthree  3"


def test_what_is_reserved_is_said_where_it_is_not_all_of_it() -> None:
    limits = Resources(2000, 512 << 20, 1 << 30)
    assert show.limits(limits) == "2 cores, 512 MiB memory, 1 GiB disk"
    assert show.limits(Resources(1000, 512 << 20, 1 << 30)) == "1 core, 512 MiB memory, 1 GiB disk"
    soft = limits.reserving(250, 128 << 20)
    assert show.limits(soft) == "2 cores, 512 MiB memory (0.25 and 128 MiB reserved), 1 GiB disk"
