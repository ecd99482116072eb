"""Replicas by the clock."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dockage.domain.errors import UsageError
from dockage.domain.schedule import DAY, DAYS, WEEK, read_schedule


def at(day: str, time: str) -> int:
    hours, minutes = time.split(":")
    return DAYS.index(day) * DAY + int(hours) * 60 + int(minutes)


OFFICE = "mon-fri 08:00-20:00 3; sat,sun 10:00-18:00 2; Europe/Berlin"


@pytest.mark.parametrize(
    ("day", "time", "replicas"),
    [
        ("mon", "08:00", 3),
        ("mon", "07:59", None),
        ("fri", "19:59", 3),
        ("fri", "20:00", None),
        ("sat", "12:00", 2),
        ("sun", "17:59", 2),
        ("sun", "18:00", None),
    ],
)
def test_a_window_holds_from_its_first_minute_to_before_its_last(
    day: str, time: str, replicas: int | None
) -> None:
    schedule = read_schedule(OFFICE)
    assert schedule.zone == "Europe/Berlin"
    assert schedule.replicas(at(day, time)) == replicas


def test_a_night_belongs_to_the_day_that_it_begins_on() -> None:
    schedule = read_schedule("sun 22:00-06:00 0")
    assert schedule.zone == "UTC"
    assert schedule.replicas(at("sun", "23:00")) == 0
    assert schedule.replicas(at("mon", "05:59")) == 0
    assert schedule.replicas(at("mon", "06:00")) is None
    assert schedule.replicas(at("mon", "23:00")) is None


def test_without_days_it_is_every_day_and_the_first_of_two_windows_counts() -> None:
    schedule = read_schedule("fri-mon 00:00-24:00 5;12:00-13:00 1;")
    assert schedule.replicas(at("sat", "12:30")) == 5
    assert schedule.replicas(at("wed", "12:30")) == 1
    assert schedule.replicas(at("wed", "13:00")) is None


@pytest.mark.parametrize(
    ("text", "character", "what"),
    [
        ("", 1, "missing"),
        ("mon", 4, "hours"),
        ("mon-fri 08:00-20:00", 20, "replicas"),
        ("mon-fry 08:00-20:00 3", 1, "'mon-fry'"),
        ("mon,tuesday 08:00-20:00 3", 5, "'tuesday'"),
        ("mon 08:00-20:00 3; sun 8-20 1", 24, "'8-20'"),
        ("mon 08:00-25:00 3", 5, "'08:00-25:00'"),
        ("mon 08:60-09:00 3", 5, "hours"),
        ("mon 24:00-09:00 3", 5, "hours"),
        ("08:00-08:00 3", 1, "same time"),
        ("mon 08:00-20:00 99", 17, "'99'"),
        ("mon 08:00-20:00 -1", 17, "'-1'"),
        ("mon 08:00-20:00 3 4", 19, "'4'"),
        ("mon 08:00-20:00 3;; UTC", 19, "missing"),
        ("UTC", 1, "no window"),
        ("mon 08:00-20:00 3; UTC; Europe/Berlin", 25, "second"),
        ("mon 08:00-20:00 \u0663", 17, "no number"),
        ("x" * 2000, 1025, "longer"),
        (";".join(["00:00-01:00 1"] * 40), 449, "more than 32"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, character: int, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_schedule(text)
    assert caught.value.code == "label.schedule"
    assert f"character {character}:" in caught.value.message
    assert what in caught.value.message


@given(st.text(max_size=80), st.integers(-WEEK, 3 * WEEK))
@example("mon-fri 08:00-20:00 3", 0)
def test_any_text_is_read_or_refused(text: str, minute: int) -> None:
    try:
        schedule = read_schedule(text)
    except UsageError:
        return
    found = schedule.replicas(minute)
    assert found is None or 0 <= found <= 32


@given(
    st.sampled_from(DAYS),
    st.integers(0, DAY - 1),
    st.integers(1, DAY),
    st.integers(0, WEEK - 1),
    st.integers(0, 9),
)
def test_a_window_is_as_long_as_it_says(day: str, opens: int, lasts: int, start: int, count: int) -> None:
    closes = (opens + lasts) % DAY or DAY
    if closes == opens:
        return
    text = f"{day} {opens // 60}:{opens % 60:02}-{closes // 60}:{closes % 60:02} {count}"
    schedule = read_schedule(text)
    inside = sum(schedule.replicas(start + minute) == count for minute in range(0, WEEK, 1))
    assert inside == (lasts if closes != DAY or opens else DAY)


SLEEPY = (
    "mon-fri 08:00-20:00 3; mon-sun 20:00-06:00 0; sat 06:00-24:00 0",
    "fri 22:00-09:00 0; sat 07:00-08:00 1",
    "00:00-24:00 0",
)


@given(
    st.integers(0, WEEK - 1),
    st.sampled_from(SLEEPY),
)
def test_it_wakes_at_the_first_minute_that_asks_for_something_else(minute: int, text: str) -> None:
    schedule = read_schedule(text)
    if schedule.replicas(minute) != 0:
        return
    later = (x % WEEK for x in range(minute + 1, minute + WEEK) if schedule.replicas(x) != 0)
    assert schedule.wakes(minute) == next(later, None)
