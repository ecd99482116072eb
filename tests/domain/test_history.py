"""The history of a lease: whatever is left out as it ages, the spans add up to the statement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dockage.domain.history import DAY, KEPT, Line, Moment, Total, aged, series
from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.units import HOUR, MINUTE, Duration, Instant, Msat

A, B = LeaseId(b"a" * 16), LeaseId(b"b" * 16)
PEER = NodeKey(b"p" * 32)
NOON = Instant(20_000 * DAY + 12 * HOUR)


def total(due: int) -> Total:
    return Total(
        PEER, "shop", Msat(due), {"cpu": Line(10 * due, Msat(due - due // 3)), "disk": Line(7, due // 3)}
    )


def rows(lease: LeaseId, *pairs: tuple[int, int]) -> list[tuple[Moment, Total]]:
    """(nanoseconds before noon, due by then)."""
    return [(Moment(lease, Instant(NOON - ago)), total(due)) for ago, due in pairs]


lives = st.lists(
    st.tuples(st.integers(0, 200_000).map(lambda minutes: minutes * MINUTE), st.integers(0, 10_000)),
    min_size=1,
    max_size=40,
    unique_by=lambda pair: pair[0],
).map(
    lambda pairs: list(
        zip(sorted((a for a, _ in pairs), reverse=True), sorted(d for _, d in pairs), strict=True)
    )
)


@given(lives, lives, st.sampled_from([MINUTE, HOUR, DAY, Duration(7 * DAY)]))
def test_the_spans_add_up_to_the_last_statement_before_and_after_thinning(
    one: list[tuple[int, int]], two: list[tuple[int, int]], step: Duration
) -> None:
    whole = rows(A, *one) + rows(B, *two)
    gone = set(aged((moment for moment, _ in whole), NOON))
    thinned = [(moment, total) for moment, total in whole if moment not in gone]
    for kept in (whole, thinned):
        spans = list(series(reversed(kept), step))
        assert sum(x.due for x in spans) == one[-1][1] + two[-1][1]
        for name in ("cpu", "disk"):
            for lease, life in ((A, one), (B, two)):
                mine = [x.lines[name] for x in spans if x.lease == lease]
                last = total(life[-1][1]).lines[name]
                assert (sum(x.used for x in mine), sum(x.cost for x in mine)) == last
        assert all(x.due >= 0 for x in spans)


@given(lives)
def test_what_is_kept_is_bounded_and_thinning_again_changes_nothing(life: list[tuple[int, int]]) -> None:
    moments = [moment for moment, _ in rows(A, *life)]
    gone = set(aged(moments, NOON))
    kept = [one for one in moments if one not in gone]
    assert moments[-1] in kept
    assert aged(kept, NOON) == []
    for age, width in KEPT[:2]:
        young = [one.minute // width for one in kept if NOON - one.minute < age - width]
        assert len(young) <= age // width + 1


def test_the_last_row_of_an_old_hour_is_kept() -> None:
    old = 5 * DAY
    hour = [Moment(A, Instant(NOON - old + n * MINUTE)) for n in (0, 20, 59, 60)]
    assert aged(hour, NOON) == hour[:2]
    young = [Moment(A, Instant(NOON - n * MINUTE)) for n in range(30)]
    assert aged(young, NOON) == []


def test_a_span_begins_where_the_row_before_it_ended_also_before_what_was_asked_for() -> None:
    life = rows(A, (3 * HOUR, 100), (2 * HOUR, 130), (HOUR + MINUTE, 150), (0, 180))
    spans = list(series(life, HOUR, Instant(NOON - 2 * HOUR + MINUTE)))
    assert [(x.start, x.due) for x in spans] == [(NOON - 2 * HOUR, 50), (NOON, 30)]
    assert spans[0].lines["cpu"] == Line(500, Msat(100 - 67))


def test_what_was_stated_before_the_first_row_belongs_to_it() -> None:
    assert [x.due for x in series(rows(A, (0, 7)), MINUTE)] == [7]
    assert list(series([], HOUR)) == []
