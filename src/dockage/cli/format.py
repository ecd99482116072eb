"""Numbers for people: money always with its unit, integers to the last step, binary sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockage.domain.resources import Resources

MONTH_HOURS = 720
"""A month of 30 days."""
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def sat(msat: int) -> str:
    """``0.042 sat``, ``12.35 sat``, ``1,234 sat``: as many decimals as are worth reading."""
    decimals = 3 if abs(msat) < 10_000 else 2 if abs(msat) < 100_000 else 0
    step = 10 ** (3 - decimals)
    rounded = (2 * abs(msat) + step) // (2 * step)
    whole, rest = divmod(rounded, 10**decimals)
    fraction = f"{rest:0{decimals}d}".rstrip("0") if decimals else ""
    sign = "-" if msat < 0 and rounded else ""
    return f"{sign}{whole:,}{'.' if fraction else ''}{fraction} sat"


def whole_sat(amount: int) -> str:
    return f"{amount:,} sat"


def hourly(msat_hour: int) -> str:
    return f"{sat(msat_hour)}/h" if msat_hour else "free"


def monthly(msat_hour: int) -> str:
    """What *msat_hour* comes to in a month of 30 days, rounded up."""
    return whole_sat(-(-msat_hour * MONTH_HOURS // 1000))


def size(count: int) -> str:
    """``512 MiB``, ``1.5 GiB``."""
    power = 0
    while power < len(_SIZES) - 1 and count >= 1024 ** (power + 1):
        power += 1
    tenths = (count * 10 + 1024**power // 2) // 1024**power
    whole, rest = divmod(tenths, 10)
    return f"{whole}.{rest} {_SIZES[power]}" if rest and whole < 100 else f"{whole} {_SIZES[power]}"


def limits(of: Resources) -> str:
    """What is reserved is only said where it is not all of it."""
    kept, text = of.reserved, f"{in_cores(of.cpu_milli)}, {size(of.memory_bytes)} memory"
    if kept != of:
        text += f" ({cores(kept.cpu_milli)} and {size(kept.memory_bytes)} reserved)"
    return f"{text}, {size(of.disk_bytes)} disk"


def traffic(used: Mapping[str, int]) -> str:
    """Into the containers, and out of them to anywhere."""
    out = used["net_out_bytes"] + used["internet_out_bytes"] + used["replica_out_bytes"]
    return f"{size(used['net_in_bytes'])} / {size(out)}"


def cores(milli: int) -> str:
    return f"{milli / 1000:g}"


def in_cores(milli: int) -> str:
    return f"{cores(milli)} core{'' if milli == 1000 else 's'}"


def cpu_time(ns: int) -> str:
    """Core-seconds, or core-hours once there are many."""
    seconds = ns / 1e9
    return f"{seconds:.1f} core-s" if seconds < 3600 else f"{seconds / 3600:.2f} core-h"


def space_time(mib_ms: int) -> str:
    """What a GiB held for an hour is one of."""
    hours = mib_ms / (1024 * 3_600_000)
    return f"{hours:.2f} GiB-h" if hours >= 1 else f"{hours * 1024:.1f} MiB-h"


def duration(seconds: int) -> str:
    """As exact as one wants to know: ``45 s``, ``3 min 05 s``, ``42 min``, ``2 h 10 min``, ``3 d 4 h``."""
    minutes, sec = divmod(max(0, seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {sec:02d} s" if minutes else f"{sec} s"


def short(name: str) -> str:
    """The first eight hex digits of a key or an id; enough for a person, and for the control API to find it."""
    return name[:8] or "-"


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
