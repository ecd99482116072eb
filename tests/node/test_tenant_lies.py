# ruff: noqa: F403, F405
"""Lies that need two of something: bytes of one class stated as another's, one lease's bill as another's, an old
epoch's as the present one's. None is paid, and what is true beside it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain.offer import GATEWAY, RELAY
from dockage.domain.pricing import PRESETS
from dockage.domain.statement import OF_CONTAINERS, contradiction
from dockage.domain.unseen import IN_FLIGHT, INTERNET_BURST, INTERNET_RATE, REPLICA_RATE
from node.parts import *

TARIFF = Tariff(cpu_hour=1, net_in_gib=10, net_out_gib=20_000, internet_out_gib=40_000, replica_out_gib=5)
QUOTE = quote(tariff=TARIFF)
SENT, RECEIVED = 3000 * MIB, 2000 * MIB
TRUE = Usage(
    net_in_bytes=SENT, net_out_bytes=RECEIVED, internet_out_bytes=10 * MIB, replica_out_bytes=10 * MIB
)
CLASSES = ("net_in_bytes", "net_out_bytes", "internet_out_bytes", "replica_out_bytes")
AFTER = 2
"""Seconds of lease, in the tests of classes."""
ROOM = {
    "net_in_bytes": IN_FLIGHT,
    "net_out_bytes": IN_FLIGHT,
    "internet_out_bytes": INTERNET_BURST + INTERNET_RATE * (AFTER + 5) - 10 * MIB,
    "replica_out_bytes": REPLICA_RATE * (AFTER + 5) - 10 * MIB,
}
"""How much more than the truth may be stated of each; of the last two we count nothing ourselves."""


def held(*leases: tuple[LeaseId, Quote]) -> Any:
    mind = renting()
    first = mind.state.leases[LEASE]
    both = {of: replace(first, id=of, quote=by) for of, by in leases}
    changed(mind, leases=both)
    return mind


def hears(mind: Any, said: Statement) -> Any:
    """The lease that *said* is about, afterwards."""
    feed(mind, states(said, sent=SENT, received=RECEIVED), now=at(AFTER))
    return mind.state.leases[said.lease]


def moved(source: str, to: str, amount: int) -> Usage:
    return replace(TRUE, **{source: getattr(TRUE, source) - amount, to: getattr(TRUE, to) + amount})


def test_the_truth_is_believed() -> None:
    found = hears(held((LEASE, QUOTE)), statement(usage=TRUE, by=QUOTE))
    assert (found.dispute, found.faults, found.due) == (None, 0, price(TRUE, TARIFF))


@pytest.mark.parametrize("to", CLASSES)
@pytest.mark.parametrize("source", ["net_in_bytes", "net_out_bytes"])
def test_bytes_of_one_class_are_not_paid_as_anothers(source: str, to: str) -> None:
    """Beyond what is on its way, or what such a line can carry: in both directions, and at the brim."""
    if source == to:
        return
    amount = ROOM[to] + 1
    if amount <= getattr(TRUE, source):
        found = hears(held((LEASE, QUOTE)), statement(usage=moved(source, to, amount), by=QUOTE))
        assert found.dispute.code == "statement.impossible"
        assert found.last is None
    amount = min(ROOM[to], getattr(TRUE, source))
    assert hears(held((LEASE, QUOTE)), statement(usage=moved(source, to, amount), by=QUOTE)).dispute is None


@given(st.sampled_from(CLASSES), st.sampled_from(CLASSES), st.integers(1, 10 * MIB))
def test_what_is_moved_after_the_sum_was_made_is_wrong_arithmetic(source: str, to: str, amount: int) -> None:
    lie = moved(source, to, amount)
    if price(lie, TARIFF) == price(TRUE, TARIFF):
        return
    found = hears(held((LEASE, QUOTE)), statement(usage=lie, by=QUOTE, due=price(TRUE, TARIFF)))
    assert found.dispute.code == "statement.sum"


@pytest.mark.parametrize("service", [GATEWAY, RELAY])
@pytest.mark.parametrize("name", OF_CONTAINERS)
def test_where_no_container_runs_nothing_is_paid_but_what_passed_and_what_was_kept(
    name: str, service: str
) -> None:
    """A gateway's or a relay's tariff may name prices of what no place has: bytes to the internet cost most unseen."""
    mind, true = held((LEASE, QUOTE)), Usage(net_in_bytes=SENT, net_out_bytes=RECEIVED, cpu_reserved_ns=1)
    changed(mind, leases={LEASE: replace(mind.state.leases[LEASE], service=service)})
    first = statement(usage=true, by=QUOTE)
    assert hears(mind, first).dispute is None
    found = hears(mind, statement(2, last=first, usage=replace(true, **{name: 1}), by=QUOTE))
    assert (found.dispute.code, found.last) == ("statement.impossible", first)


# -- two leases --------------------------------------------------------------------------------------
DEAR = quote(LEASE2, tariff=replace(TARIFF, cpu_hour=7_200_000))
CHEAP_ONE = statement(1, by=QUOTE)
DEAR_ONE = statement(1, 2, by=DEAR, lease=LEASE2)
MIXED = {
    "this lease by the other's tariff": (
        statement(2, last=CHEAP_ONE, by=DEAR, lease=LEASE),
        "statement.terms",
    ),
    "the other's bill under this one's name": (replace(DEAR_ONE, lease=LEASE, seq=2), "statement.forked"),
    "this one's chain, the other's terms": (
        replace(DEAR_ONE, lease=LEASE, seq=2, previous=digest(CHEAP_ONE), at=at(2)),
        "statement.terms",
    ),
    "following the other's chain": (statement(2, 3, last=DEAR_ONE, by=QUOTE), "statement.forked"),
    "both leases' usage on one bill": (
        statement(2, last=CHEAP_ONE, by=QUOTE, usage=Usage(cpu_ns=1000 * SECOND)),
        "statement.impossible",
    ),
    "the same number, of a lease's earlier life": (
        replace(CHEAP_ONE, terms=digest(quote(tariff=TARIFF, now=at(-99)))),
        "statement.forked",
    ),
    "a counter that began anew with the machine": (
        statement(2, 0.25, last=CHEAP_ONE, by=QUOTE),
        "statement.backwards",
    ),
    "a clock that began anew with the machine": (
        statement(2, 2, last=CHEAP_ONE, by=QUOTE, at=at(-99)),
        "statement.backwards",
    ),
}


@pytest.mark.parametrize(("lie", "code"), MIXED.values(), ids=MIXED.keys())
def test_one_leases_bill_is_not_anothers(lie: Statement, code: str) -> None:
    mind = held((LEASE, QUOTE), (LEASE2, DEAR))
    hears(mind, CHEAP_ONE)
    other = hears(mind, DEAR_ONE)
    found = hears(mind, lie)
    assert found.dispute.code == code
    assert (found.last, found.due) == (CHEAP_ONE, CHEAP_ONE.due)
    assert mind.state.leases[LEASE2] == other


def test_bills_of_two_leases_or_two_lives_of_one_contradict_nothing() -> None:
    """Who is honest cannot be accused by putting together what does not belong together."""
    assert contradiction(CHEAP_ONE, replace(CHEAP_ONE, lease=LEASE2)) is None
    assert contradiction(CHEAP_ONE, replace(CHEAP_ONE, terms=digest(DEAR), at=at(5))) is None
    assert contradiction(CHEAP_ONE, replace(CHEAP_ONE, at=at(5))) is not None


# -- presets -----------------------------------------------------------------------------------------
def test_cheap_is_half_of_fair_in_every_line_and_free_is_nothing() -> None:
    fair, cheap = PRESETS["fair"], PRESETS["cheap"]
    assert all(getattr(cheap, line) * 2 == getattr(fair, line) for line in Tariff.__struct_fields__)
    assert fair.exceeds(cheap)
    assert PRESETS["free"].is_free


def test_free_for_a_key_is_free_for_that_key_and_nobody_else() -> None:
    mind = provider(replace(POLICY, tariff=PRESETS["fair"], free_for=(OTHER,)))
    for who, expected in ((OTHER, Tariff()), (TENANT, PRESETS["fair"])):
        (answer,) = mind.handle(says(say.AskQuote(LEASE, LIMITS), who), START)
        assert (answer.message.tariff, answer.message.network) == (
            expected,
            "" if who == OTHER else "regtest",
        )
