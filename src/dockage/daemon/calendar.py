"""How many replicas a schedule asks for now: time zones and summer time are the standard library's.

Counterpart: ``domain/schedule.py``. An hour that a clock change repeats counts twice; one that it leaves out does not.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dockage.domain.errors import UsageError
from dockage.domain.schedule import DAY, DAYS, WEEK, Schedule, read_schedule
from dockage.domain.units import SECOND, Instant


def checked(text: str) -> Schedule:
    """Raises UsageError("label.schedule")."""
    schedule = read_schedule(text)
    try:
        ZoneInfo(schedule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        at = text.find(schedule.zone) + 1
        raise UsageError(
            "label.schedule",
            f"dockage.schedule, character {at}: there is no time zone {schedule.zone!r}: they are called UTC or "
            "Europe/Berlin",
        ) from None
    return schedule


def asked_for(text: str, now: Instant) -> int | None:
    """None: without a schedule, or outside its windows."""
    if not text:
        return None
    schedule = checked(text)
    return schedule.replicas(_minute(schedule, now))


def sleeps_until(text: str, now: Instant) -> str:
    """For people: when the 0 replicas that a schedule asks for now are over, such as "Mon 08:00 Europe/Berlin"; ""
    while it asks for some."""
    if asked_for(text, now) != 0:
        return ""
    schedule = checked(text)
    minute = _minute(schedule, now)
    wakes = schedule.wakes(minute)
    if wakes is None:
        return "its schedule is another one"
    day = "" if (wakes - minute) % WEEK < DAY else f"{DAYS[wakes // DAY].capitalize()} "
    return f"{day}{wakes % DAY // 60:02}:{wakes % 60:02} {schedule.zone}"


def _minute(schedule: Schedule, now: Instant) -> int:
    """Of the week there."""
    there = datetime.fromtimestamp(now // SECOND, ZoneInfo(schedule.zone))
    return there.weekday() * DAY + there.hour * 60 + there.minute
