"""What leases used and what that cost, over time.

A row holds *totals*, as of the last statement in its minute; what a span of time used is the difference to the row
before it. So rows may be left out as they age (``aged``): what a missing one held falls to the row after it, and the
sum over all spans is always the last statement's total, to the msat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec

from .identity import LeaseId, NodeKey
from .units import HOUR, MINUTE, Duration, Instant, Msat

DAY = Duration(24 * HOUR)
KEPT: tuple[tuple[Duration, Duration], ...] = (
    (Duration(4 * HOUR), MINUTE),
    (Duration(92 * DAY), HOUR),
    (Duration(1 << 62), DAY),
)
"""Up to this age, one row is kept for each span of that length: minutes for a plot, hours for three months of
accounts, days for ever. The last row of a lease is always kept."""


EVER = Instant(0)


class Line(NamedTuple):
    """One resource: how much of it, in the unit of its field of ``Usage``, and its part of the price."""

    used: int
    cost: Msat

    def __sub__(self, other: Line) -> Line:
        return Line(self.used - other.used, Msat(self.cost - other.cost))


NO_LINE = Line(0, Msat(0))
Lines = Mapping[str, Line]


class Total(msgspec.Struct, frozen=True, array_like=True):
    """A lease's whole bill at one moment, with what is needed to read it when the lease is long forgotten."""

    peer: NodeKey
    """Who provides it, or whose it is."""
    deployment: str
    """"" on the provider's side."""
    due: Msat
    lines: dict[str, Line]
    """By resource; those that are 0 are left out."""


class Moment(NamedTuple):
    lease: LeaseId
    minute: Instant
    """Its beginning."""


class Spent(NamedTuple):
    """What one lease used in one span."""

    start: Instant
    lease: LeaseId
    peer: NodeKey
    deployment: str
    due: Msat
    lines: Lines


def floor(instant: int, span: int) -> Instant:
    return Instant(instant - instant % span)


def aged(moments: Iterable[Moment], now: Instant) -> list[Moment]:
    """Those of *moments* that need not be kept any longer: in each span only the last one counts."""
    ordered = sorted(moments)
    return [
        one
        for one, later in pairwise(ordered)
        if one.lease == later.lease and _together(one.minute, later.minute, now)
    ]


def _together(minute: Instant, later: Instant, now: Instant) -> bool:
    width = next(span for age, span in KEPT if now - minute < age)
    return floor(minute, width) == floor(later, width)


def series(totals: Iterable[tuple[Moment, Total]], step: Duration, since: Instant = EVER) -> Iterator[Spent]:
    """Each lease's spans of *step* in which anything was stated, from the one that holds *since* on; lease by lease.

    Where rows have aged, what a longer span used is shown at its end."""
    ordered = sorted(totals, key=lambda pair: pair[0])
    for lease, mine in groupby(ordered, key=lambda pair: pair[0].lease):
        before: Total | None = None
        for start, span in groupby(mine, key=lambda pair: floor(pair[0].minute, step)):
            *_, (_, last) = span
            if start >= floor(since, step):
                yield _spent(start, lease, last, before)
            before = last


def _spent(start: Instant, lease: LeaseId, last: Total, before: Total | None) -> Spent:
    was: Lines = before.lines if before else {}
    lines = {name: line - was.get(name, NO_LINE) for name, line in last.lines.items()}
    due = Msat(last.due - (before.due if before else 0))
    return Spent(start, lease, last.peer, last.deployment, due, lines)
