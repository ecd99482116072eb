"""Readings become totals: no sampling error, no charge for a gap, nothing lost over restarts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.resources import Resources
from dockage.domain.units import HOUR, MIB, MILLISECOND, SECOND, Duration
from dockage.domain.usage import GAP_MAX, Meter, Reading, Usage, advance, full_use

NOTHING_RESERVED = Resources()
ONE_CORE = Resources(1000, 512 * MIB, 1024 * MIB)


def reading(at_ms: int, **fields: Any) -> Reading:
    base: dict[str, Any] = {
        "boot": "b1",
        "run": "r1",
        "cpu_ns": 0,
        "memory_bytes": 0,
        "disk_bytes": 0,
    }
    return Reading(boottime_ns=at_ms * MILLISECOND, **{**base, **fields})


def after(*readings: Reading, reserved: Resources = NOTHING_RESERVED) -> Usage:
    meter = Meter()
    for each in readings:
        meter = advance(meter, each, reserved)
    return meter.usage


def test_the_first_reading_opens_the_meter_and_bills_nothing() -> None:
    assert after(reading(0, cpu_ns=99 * SECOND, memory_bytes=MIB, tunnel_in_bytes=9)) == Usage()


def test_counters_are_charged_by_how_far_they_moved() -> None:
    first = reading(0, cpu_ns=5, tunnel_in_bytes=10, tunnel_out_bytes=20, internet_out_bytes=30)
    second = reading(900, cpu_ns=12, tunnel_in_bytes=11, tunnel_out_bytes=22, internet_out_bytes=33)
    assert after(first, second) == Usage(cpu_ns=7, net_in_bytes=1, net_out_bytes=2, internet_out_bytes=3)


def test_gauges_are_charged_over_the_time_between_two_readings() -> None:
    used = after(reading(0), reading(1500, memory_bytes=8 * MIB, disk_bytes=3 * MIB))
    assert (used.memory_mib_ms, used.disk_mib_ms) == (12_000, 4_500)


def test_a_gap_is_not_charged_for_gauges_but_counters_telescope_over_it() -> None:
    gap = GAP_MAX // MILLISECOND
    at_the_brim = after(reading(0), reading(gap, cpu_ns=1, memory_bytes=MIB))
    beyond = after(reading(0), reading(gap + 1, cpu_ns=1, memory_bytes=MIB))
    assert (at_the_brim.cpu_ns, at_the_brim.memory_mib_ms) == (1, gap)
    assert (beyond.cpu_ns, beyond.memory_mib_ms) == (1, 0)


def test_reserved_resources_are_charged_by_time_whether_used_or_not() -> None:
    used = after(reading(0), reading(2000), reserved=ONE_CORE)
    assert used.cpu_reserved_ns == 2 * SECOND
    assert used.memory_reserved_mib_ms == 512 * 2000


def test_after_a_reboot_kernel_counters_begin_again_and_nothing_is_charged_for_the_time_between() -> None:
    used = after(
        reading(10_000, cpu_ns=100, internet_out_bytes=100, memory_bytes=MIB),
        reading(1_000, boot="b2", run="r2", cpu_ns=7, internet_out_bytes=8, memory_bytes=MIB),
    )
    assert used == Usage(cpu_ns=7, internet_out_bytes=8)


def test_after_a_restart_of_the_meter_only_tunnel_counters_begin_again() -> None:
    used = after(
        reading(0, cpu_ns=100, tunnel_in_bytes=50, tunnel_out_bytes=50),
        reading(1000, run="r2", cpu_ns=103, tunnel_in_bytes=4, tunnel_out_bytes=60),
    )
    assert (used.cpu_ns, used.net_in_bytes, used.net_out_bytes) == (3, 4, 60)


def test_a_counter_that_fell_has_begun_again() -> None:
    assert after(reading(0, cpu_ns=100), reading(1, cpu_ns=3)).cpu_ns == 3


def test_a_reading_that_arrives_late_changes_nothing() -> None:
    meter = advance(advance(Meter(), reading(0), ONE_CORE), reading(2000, cpu_ns=9), ONE_CORE)
    assert advance(meter, reading(1000, cpu_ns=5), ONE_CORE) is meter


steps = st.lists(
    st.tuples(st.integers(0, 2_900), st.integers(0, 10**10), st.integers(0, 10**9)), min_size=1, max_size=20
)


@given(steps, st.integers(0, 2**30))
def test_how_often_one_reads_does_not_matter(moves: list[tuple[int, int, int]], memory: int) -> None:
    """All readings against only some of them: counters agree exactly, steady gauges too (no gap in between)."""
    readings, at, cpu, sent = [reading(0, memory_bytes=memory)], 0, 0, 0
    for ms, ns, size in moves:
        at, cpu, sent = at + ms, cpu + ns, sent + size
        readings.append(reading(at, cpu_ns=cpu, tunnel_out_bytes=sent, memory_bytes=memory))
    all_of_them = after(*readings, reserved=ONE_CORE)
    assert all_of_them.cpu_ns == cpu
    assert all_of_them.net_out_bytes == sent
    assert all_of_them.memory_mib_ms == memory * at // MIB
    assert all_of_them.cpu_reserved_ns == at * MILLISECOND
    few = after(readings[0], readings[-1])
    assert (few.cpu_ns, few.net_out_bytes) == (cpu, sent)


any_readings = st.lists(
    st.builds(
        Reading,
        st.integers(0, HOUR),
        st.sampled_from(["b1", "b2"]),
        st.sampled_from(["r1", "r2"]),
        *[st.integers(0, 10**12)] * 6,
    ),
    max_size=15,
)


@given(any_readings)
def test_no_total_ever_falls_and_none_is_a_float(readings: list[Reading]) -> None:
    meter = Meter()
    for each in readings:
        before, meter = meter, advance(meter, each, ONE_CORE)
        assert meter.usage.covers(before.usage)
        assert all(type(getattr(meter.usage, f)) is int for f in Usage.__struct_fields__)


@given(st.integers(0, HOUR))
def test_nobody_can_be_charged_more_than_full_use(time: int) -> None:
    """A whole machine's worth of it, read every second at the limit."""
    meter, cpu = Meter(), 0
    for at in range(0, min(time, 20 * SECOND) + 1, SECOND):
        cpu = ONE_CORE.cpu_milli * at // 1000
        full = Reading(at, "b", "r", cpu, ONE_CORE.memory_bytes, ONE_CORE.disk_bytes)
        meter = advance(meter, full, ONE_CORE)
    assert full_use(ONE_CORE, min(time, 20 * SECOND)).covers(meter.usage)  # type: ignore[arg-type]


def test_covers_names_no_field_and_misses_none() -> None:
    for field in Usage.__struct_fields__:
        one = Usage(**{field: 1})
        assert one.covers(Usage())
        assert not Usage().covers(one)
        assert (one + one).covers(one)


def test_a_year_of_a_ten_terabyte_disk_fits_into_64_bits() -> None:
    year = Duration(366 * 24 * HOUR)
    most = full_use(Resources(64_000, 2 << 40, 10 << 40), year)
    assert max(getattr(most, name) for name in Usage.__struct_fields__) < 1 << 63


def test_a_gauge_too_small_for_one_tick_is_not_rounded_away() -> None:
    """1000 readings of half a MiB, 1 ms apart: 500 MiB milliseconds, though each alone is none."""
    used = after(*(reading(at, memory_bytes=MIB // 2) for at in range(1001)))
    assert used.memory_mib_ms == 500
