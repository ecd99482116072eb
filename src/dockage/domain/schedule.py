"""So many replicas at certain hours of the week: ``mon-fri 08:00-20:00 3; sat,sun 10:00-18:00 2; Europe/Berlin``.

Counterpart: ``daemon/calendar.py``, which knows what o'clock it is where. The one rule: of windows that overlap the
first one counts, and outside of all of them whatever counts without a schedule.
"""

from __future__ import annotations

import re

import msgspec

from .errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY
WINDOWS_MAX = 32
TEXT_MAX = 1024
REPLICAS_MAX = 32
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}")
_HOURS = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")


class Window(msgspec.Struct, frozen=True):
    days: frozenset[int]
    """0 = Monday: those on which it begins."""
    opens: int
    """Minute of the day."""
    lasts: int
    """Minutes, at most a day: it may end on the next one."""
    replicas: int

    def holds(self, minute: int) -> bool:
        """*minute* of the week, from Monday 0:00."""
        return any((minute - day * DAY - self.opens) % WEEK < self.lasts for day in self.days)


class Schedule(msgspec.Struct, frozen=True):
    windows: tuple[Window, ...]
    zone: str = "UTC"

    def replicas(self, minute: int) -> int | None:
        """None outside of all windows."""
        return next((x.replicas for x in self.windows if x.holds(minute % WEEK)), None)

    def wakes(self, minute: int) -> int | None:
        """Of the week: the next one after *minute* at which it asks for something else than 0. None: never."""
        edges = {
            day * DAY + at for x in self.windows for day in x.days for at in (x.opens, x.opens + x.lasts)
        }
        later = sorted((edge - minute - 1) % WEEK + 1 for edge in edges)
        return next(((minute + x) % WEEK for x in later if self.replicas(minute + x) != 0), None)


def read_schedule(text: str) -> Schedule:
    """Raises UsageError("label.schedule") with the place of what is wrong. The zone is not looked up here."""
    if len(text) > TEXT_MAX:
        raise _wrong(TEXT_MAX, f"it is longer than {TEXT_MAX} characters")
    windows, zone, at = list[Window](), "", 0
    for piece in text.split(";"):
        start = at + len(piece) - len(piece.lstrip())
        at += len(piece) + 1
        words = piece.split()
        if not words:
            if len(text.strip()) and at > len(text):  # a semicolon at the end
                continue
            raise _wrong(start, "a window is missing")
        if len(words) == 1 and _ZONE.fullmatch(words[0]) and words[0].lower()[:3] not in DAYS:
            if zone:
                raise _wrong(start, "there is a second time zone")
            zone = words[0]
            continue
        windows.append(_window(piece, start))
        if len(windows) > WINDOWS_MAX:
            raise _wrong(start, f"there are more than {WINDOWS_MAX} windows")
    if not windows:
        raise _wrong(0, "there is no window")
    return Schedule(tuple(windows), zone or "UTC")


def _window(piece: str, start: int) -> Window:
    words = [
        (start + found.start() - len(piece) + len(piece.lstrip()), found[0])
        for found in re.finditer(r"\S+", piece)
    ]
    end = start + len(piece.strip())
    days = frozenset(range(7))
    if not words[0][1][0].isdigit():
        days = _days(*words.pop(0))
    if not words:
        raise _wrong(end, "the hours are missing, such as 08:00-20:00")
    opens, lasts = _hours(*words.pop(0))
    if not words:
        raise _wrong(end, "the number of replicas is missing")
    at, count = words.pop(0)
    if not (count.isascii() and count.isdigit()) or len(count) > 3 or int(count) > REPLICAS_MAX:
        raise _wrong(at, f"{count[:20]!r} is no number from 0 to {REPLICAS_MAX}")
    if words:
        raise _wrong(words[0][0], f"{words[0][1][:20]!r} is too much: a semicolon goes between windows")
    return Window(days, opens, lasts, int(count))


def _days(at: int, text: str) -> frozenset[int]:
    found = set[int]()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.lower() not in DAYS or (dash and last.lower() not in DAYS):
            raise _wrong(at, f"{part[:20]!r} is no day: they are {', '.join(DAYS)}, and mon-fri, and sat,sun")
        begin = DAYS.index(first.lower())
        count = (DAYS.index(last.lower()) - begin) % 7 if dash else 0
        found |= {(begin + n) % 7 for n in range(count + 1)}
        at += len(part) + 1
    return frozenset(found)


def _hours(at: int, text: str) -> tuple[int, int]:
    """(the minute of the day at which it begins, minutes)."""
    found = _HOURS.fullmatch(text)
    opens_h, opens_m, closes_h, closes_m = map(int, found.groups()) if found else (99, 0, 0, 0)
    opens, closes = opens_h * 60 + opens_m, closes_h * 60 + closes_m
    if opens_m > 59 or closes_m > 59 or opens >= DAY or closes > DAY:
        raise _wrong(at, f"{text[:20]!r} are no hours: HH:MM-HH:MM, such as 08:00-20:00")
    if opens == closes:
        raise _wrong(at, f"{text[:20]!r} begin and end at the same time: 00:00-24:00 is the whole day")
    return opens, (closes - opens) % DAY or DAY


def _wrong(at: int, what: str) -> UsageError:
    return UsageError("label.schedule", f"dockage.schedule, character {at + 1}: {what}")
