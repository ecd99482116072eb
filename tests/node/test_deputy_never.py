"""A tenant and its deputy never both act, whatever is lost, late, restarted or spent."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dockage.node.deputy import Mandated, refusal

from .deputylab import KEY, Pair, mandate

HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.tuples(st.booleans(), st.booleans(), st.booleans())),
        st.tuples(st.just("second"), st.integers(1, 40)),
        st.tuples(st.just("mandate"), st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 200))),
        st.tuples(st.just("spend"), st.integers(0, 300_000)),
        st.tuples(st.just("restart tenant"), st.none()),
        st.tuples(st.just("restart deputy"), st.none()),
    ),
    max_size=40,
)


def happen(pair: Pair, kind: str, what: Any) -> None:
    match kind:
        case "ask":
            heard, answered, serves = what
            pair.ask(heard=heard, answered=answered, serves=serves)
        case "second":
            pair.second(what)
        case "mandate":
            version, withdrawn, budget = what
            new = mandate(version, budget=budget, recipe=b"" if withdrawn else b"recipe")
            if refusal(pair.deputy, new) is None:
                pair.hear(Mandated(new))
        case "spend":
            if KEY in pair.deputy.charges:
                pair.spend(what)
        case "restart tenant":
            pair.restart_tenant()
        case "restart deputy":
            pair.restart_deputy()


@settings(max_examples=150, deadline=None)
@given(HAPPENINGS, st.integers(-3600, 3600))
def test_never_both(happenings: list[Any], slip: int) -> None:
    """How far apart the clocks are is of no account: only their pace is."""
    pair = Pair(slip)
    for kind, what in happenings:
        happen(pair, kind, what)
        pair.check()


@settings(max_examples=50, deadline=None)
@given(HAPPENINGS, st.integers(-3600, 3600))
def test_whoever_is_left_alone_acts_in_the_end(happenings: list[Any], slip: int) -> None:
    pair = Pair(slip)
    for kind, what in happenings:
        happen(pair, kind, what)
    pair.hear(Mandated(mandate(9, budget=10_000)))
    alone = pair.charge
    pair.second(120)
    assert pair.charge.acts, alone
    for _ in range(2):
        pair.ask()
    assert pair.tenant_acts
