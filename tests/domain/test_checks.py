"""What a look shows: a liar is found, and no honest machine is, whatever its load and its tenants' load do."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.domain import checks as ch
from dockage.domain.checks import (
    NONE,
    Base,
    Beside,
    Checks,
    Counted,
    Look,
    Mark,
    Probe,
    is_short,
    overstatement,
)
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.units import GIB, MIB, MILLISECOND, SECOND, Instant

LIMITS = Resources(1000, 1 * GIB, 1 * GIB)
loads = st.lists(st.integers(0, 1000), min_size=6, max_size=60)
"""Milli-cores used in each second."""


def counted(cpu: float, memory: int = 0, name: str = "web", started: str = "now") -> Counted:
    return Counted(name, started, int(cpu * SECOND), memory)


def at(seconds: float) -> Instant:
    return Instant(int(seconds * SECOND))


def marked(cpu: float, seconds: float, memory: int = 0) -> Mark:
    return Mark(int(cpu * SECOND), memory, at(seconds))


def judged(
    base: tuple[float, float],
    stated: tuple[float, float],
    look: tuple[float, float],
    begun: tuple[float, float],
) -> Reason | bool | None:
    """Each is (cpu seconds, at)."""
    before = Base((counted(base[0]),), at(base[1]), at(base[1] + 1), marked(*stated))
    return overstatement(before, Look((counted(look[0]),)), marked(*begun), at(look[1]))


def used(load: list[int], until: float) -> float:
    whole = int(until)
    return (sum(load[:whole]) + (until - whole) * (load[whole] if whole < len(load) else 0)) / 1000


# -- too much is stated ------------------------------------------------------------------------------
def test_twice_the_cpu_is_found() -> None:
    found = judged((0, 0), (4, 2), (10, 10), (18, 9))
    assert isinstance(found, Reason)
    assert found.text == "14.00 core-seconds were stated while the containers used 10.00"


def test_the_truth_is_well_once_the_statements_cover_the_window() -> None:
    assert judged((0, 0), (2, 2), (10, 10), (9.5, 9.5)) is False
    assert judged((0, 0), (2, 2), (10, 10), (5, 5)) is None
    assert judged((0, 0), (2, 2), (0.1, 10), (2.1, 9.5)) is None, "too little to tell"


@settings(max_examples=300)
@given(loads, st.data())
def test_no_honest_bill_is_too_much_whatever_the_load_does(load: list[int], data: st.DataObject) -> None:
    """The provider reads when it likes and messages are late: only the order of the readings is given."""
    moments = sorted(data.draw(st.lists(st.floats(0, len(load)), min_size=4, max_size=4)))
    base, first, last, look = moments
    found = judged(
        (used(load, base), base),
        (used(load, first), first),
        (used(load, look), look),
        (used(load, last), last),
    )
    assert not isinstance(found, Reason)


@given(st.integers(50, 1000), st.floats(1.5, 4), st.floats(20, 100))
def test_who_states_half_as_much_again_is_never_well(milli: int, lie: float, seconds: float) -> None:
    load = milli / 1000
    found = judged(
        (0, 0), (2 * load * lie, 2), (seconds * load, seconds), ((seconds - 1) * load * lie, seconds - 1)
    )
    assert isinstance(found, Reason)


def test_memory_that_is_not_there() -> None:
    base = Base((counted(0, 100 * MIB),), at(0), at(1), marked(0, 2, 100 * MIB))
    look = Look((counted(10, 100 * MIB),))
    assert isinstance(overstatement(base, look, marked(9.5, 9.5, 200 * MIB), at(10)), Reason)
    assert overstatement(base, look, marked(9.5, 9.5, 189 * MIB), at(10)) is False


def test_what_cannot_be_compared_accuses_nobody() -> None:
    base = Base((counted(0),), at(0), at(1), marked(0, 2))
    lie = marked(99, 9.5)
    for look in (
        Look(()),
        Look((counted(1),), complete=False),
        Look((counted(1, started="again"),)),
        Look((counted(1, name="other"),)),
        Look((counted(1), counted(1, name="other"))),
    ):
        assert overstatement(base, look, lie, at(10)) is None
    unheard = msgspec.structs.replace(base, stated=None)
    assert overstatement(unheard, Look((counted(1),)), lie, at(10)) is None


def test_a_base_is_stated_only_by_what_was_read_after_it() -> None:
    begun = msgspec.structs.replace(NONE, begun=marked(5, 100), began_at=at(200.5), heard_at=at(200))
    checks, _ = ch.after_look(begun, Look((counted(5),)), LIMITS, at(202))
    assert checks.base is not None
    assert checks.base.later == at(100 + 2 + 2), (
        "the newest statement's age, the look, the second it was read in and the way"
    )


# -- a core is a core --------------------------------------------------------------------------------
def probe(delivered: float, theirs: float = 0.0, around: float = 3.0, shares: int = 1024) -> Probe:
    wall = 500 * MILLISECOND
    beside = Beside(int(theirs * wall * around), int(around * wall), shares)
    return Probe(wall, int(delivered * wall), 1, beside=beside)


def test_half_a_core_is_short_and_a_core_is_not() -> None:
    assert is_short(probe(0.5), LIMITS) is True
    assert is_short(probe(0.25, theirs=0.4), LIMITS) is True, (
        "our own containers were busy: half a core all the same"
    )
    assert is_short(probe(0.97), LIMITS) is False
    assert is_short(msgspec.structs.replace(probe(0.1), beside=None), LIMITS) is None


def test_what_was_not_reserved_was_not_promised() -> None:
    half = LIMITS.reserving(LIMITS.cpu_milli // 2, 0)
    assert is_short(probe(0.5), LIMITS) is True
    assert is_short(probe(0.5), half) is False
    assert is_short(probe(0.25), half) is True


@settings(max_examples=300)
@given(
    cores=st.sampled_from([100, 500, 1000, 2000, 8000]),
    wanted=st.floats(0, 2),
    steal=st.floats(0, 0.3),
    containers=st.integers(1, 8),
    around=st.floats(1, 6),
)
def test_a_busy_honest_machine_is_not_short(
    cores: int, wanted: float, steal: float, containers: int, around: float
) -> None:
    """Its hypervisor takes up to 30 %, and our own containers want whatever they want, steadily."""
    limits = msgspec.structs.replace(LIMITS, cpu_milli=cores)
    there = cores / 1000 * (1 - steal)
    want = cores / 1000 * wanted
    ours = max(there - want, there / (containers + 1))
    theirs = min(want, there - ours) / around + min(want, there) * (1 - 1 / around)
    assert is_short(probe(ours, theirs, around, 1024 * containers), limits) is False


def test_one_bad_minute_is_no_finding() -> None:
    checks = NONE
    for delivered in (0.2, 0.2, 0.2, 1, 0.2, 1, 1, 1, 1):
        checks, _ = ch.after_look(checks, Look((), probe=probe(delivered)), LIMITS, at(0))
        if sum(checks.bad) < ch.BAD_MAX:
            assert ch.starvation(checks, LIMITS) is None
    assert not any(checks.bad[1:])


def test_four_of_five_bad_probes_are() -> None:
    checks = Checks(bad=(True, False, True, True, True))
    found = ch.starvation(checks, LIMITS)
    assert found is not None
    assert found.text == "4 of 5 probes got under 65 % of 1 cores"
