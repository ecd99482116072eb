"""Hours in which a provider sells: the calendar's part of it, which the mind does not know.

Counterpart: ``node/provider_ending.py``, which is told when the hours end. Time zones and summer time are the standard
library's; an hour that a clock change leaves out or repeats is as long as the clock makes it.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dockage.domain.errors import UsageError
from dockage.domain.units import SECOND, Instant
from dockage.node import events as told
from dockage.node.provider import Provider
from dockage.ports.machine import Clock

from .driver import Driver

LOOK_SEC = 30.0
_FORM = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")


class Hours(NamedTuple):
    opens: time
    closes: time
    """The next day, if it is not after ``opens``."""
    zone: ZoneInfo | None
    """None: the machine's."""

    def closes_at(self, now: Instant) -> Instant:
        """When the hours that we are in end; or, outside of them, when the last ones ended."""
        today = datetime.fromtimestamp(now / SECOND, self.zone).date()
        spans = [self._span(today + timedelta(days=days)) for days in (-2, -1, 0)]
        return max(closes for opens, closes in spans if opens <= now)

    def _span(self, day: date) -> tuple[Instant, Instant]:
        last = day if self.closes > self.opens else day + timedelta(days=1)
        return self._instant(day, self.opens), self._instant(last, self.closes)

    def _instant(self, day: date, at: time) -> Instant:
        return Instant(round(datetime.combine(day, at, self.zone).timestamp()) * SECOND)


def read_hours(text: str, zone: str = "") -> Hours:
    """``22:00-07:00``. Raises UsageError("config.hours")."""
    found = _FORM.fullmatch(text.strip())
    try:
        opens_h, opens_m, closes_h, closes_m = map(int, found.groups()) if found else (24, 0, 24, 0)
        hours = Hours(time(opens_h, opens_m), time(closes_h, closes_m), ZoneInfo(zone) if zone else None)
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise UsageError(
            "config.hours",
            f"provider.hours is HH:MM-HH:MM, such as 22:00-07:00, and time_zone a name such as Europe/Berlin, "
            f"not {text!r} {zone!r}",
        ) from None
    if hours.opens == hours.closes:
        raise UsageError("config.hours", "provider.hours begin and end at the same time: leave them out")
    return hours


class HoursLoop:
    """Tells the mind what the calendar says."""

    def __init__(self, driver: Driver[Provider], hours: Hours, clock: Clock) -> None:
        self._driver, self._hours, self._clock = driver, hours, clock

    async def look(self) -> None:
        closes_at = self._hours.closes_at(self._clock.now())
        if closes_at != self._driver.state.closes_at:
            await self._driver.post(told.HoursSeen(closes_at))
