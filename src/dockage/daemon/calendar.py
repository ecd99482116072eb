"""How many replicas a schedule asks for now: time zones and summer time are the standard library's.

Counterpart: ``domain/schedule.py``. An hour that a clock change repeats counts twice; one that it leaves out does not.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dockage.domain.errors import UsageError
from dockage.domain.schedule import DAY, Schedule, read_schedule
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
    there = datetime.fromtimestamp(now // SECOND, ZoneInfo(schedule.zone))
    return schedule.replicas(there.weekday() * DAY + there.hour * 60 + there.minute)
