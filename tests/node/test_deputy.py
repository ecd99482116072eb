"""A deputy: what it takes, when it takes over, and that it gives back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dockage.domain.deployment import is_name
from dockage.domain.errors import PeerError
from dockage.domain.identity import NodeKey
from dockage.domain.term import SOLE
from dockage.domain.units import MINUTE, SECOND, Msat
from dockage.node import controller_words as say
from dockage.node.deputy import BY_DEPUTY, CHARGES_MAX, Deputy, Mandated, TermAsked, own_name, refusal, step
from dockage.node.kept import Goal

from .controllerlab import ME, SHOP, World, lease, provider
from .deputylab import ALLOWANCE, DEPUTY, KEY, START, Pair, mandate


def held(pair: Pair, seconds: int, **how: bool) -> None:
    for _ in range(seconds // 4):
        pair.ask(**how)
        pair.second(4)


def gone(pair: Pair) -> None:
    """The tenant's daemon is away until the deputy acts."""
    held(pair, 8)
    pair.second(40)
    assert pair.charge.acts


def test_a_tenant_that_renews_keeps_the_term() -> None:
    pair = Pair()
    held(pair, 600)
    assert pair.tenant_acts
    assert not pair.charge.runs


def test_a_silent_tenant_stops_before_the_deputy_begins() -> None:
    pair = Pair()
    held(pair, 8)
    pair.second(10)
    assert not pair.tenant_acts
    assert not pair.charge.runs
    pair.second(20)
    assert pair.charge.acts


def test_the_tenant_that_comes_back_has_it_at_once_and_our_copies_wait_for_its_own() -> None:
    pair = Pair()
    gone(pair)
    pair.ask()
    pair.ask()
    assert pair.tenant_acts
    assert pair.charge.runs
    assert not pair.charge.acts
    held(pair, 60)
    assert pair.charge.runs
    pair.ask(serves=True)
    assert not pair.charge.runs


def test_with_data_our_copies_do_not_wait() -> None:
    """Two that run would be two writers."""
    pair = Pair()
    pair.hear(Mandated(mandate(version=2), holds_data=True))
    gone(pair)
    pair.ask()
    pair.ask()
    assert pair.tenant_acts
    assert not pair.charge.runs
    pair.second(40)
    assert pair.charge.acts, "it vanished again"


def test_our_copies_do_not_wait_for_ever() -> None:
    pair = Pair()
    gone(pair)
    held(pair, 140)
    assert not pair.charge.runs
    assert pair.tenant_acts


def test_a_tenant_that_vanishes_again_before_it_serves_finds_our_copies_where_they_were() -> None:
    pair = Pair()
    gone(pair)
    pair.ask()
    pair.ask()
    pair.second(31)
    assert pair.charge.acts
    assert not pair.charge.yielded_at


def test_with_the_term_back_older_grants_are_void() -> None:
    pair = Pair()
    held(pair, 4)
    before = pair.state.deployments[SHOP].epoch
    gone(pair)
    pair.ask()
    epoch, asked_at = pair.epoch, pair.state.terms[SHOP].asked_at
    pair.tell(say.TermAsked(SHOP, epoch))
    asked_at = pair.state.terms[SHOP].asked_at
    pair.hear(TermAsked(ME, SHOP, epoch, serves=False))
    wants = pair.tell(say.TermGranted(SHOP, DEPUTY, epoch, asked_at, (DEPUTY,)))
    assert say.LiftFence(SHOP, lease(1)) in wants
    assert pair.state.deployments[SHOP].epoch == before + 1


def test_a_restarted_tenant_does_nothing_before_it_has_asked() -> None:
    pair = Pair()
    held(pair, 8)
    pair.restart_tenant()
    assert not pair.tenant_acts
    pair.ask()
    assert pair.tenant_acts


def test_a_restarted_deputy_leaves_the_tenant_a_whole_term_and_goes_on_with_what_it_ran() -> None:
    pair = Pair()
    held(pair, 8)
    pair.now += 3600 * SECOND  # type: ignore[assignment]
    pair.restart_deputy()
    pair.second(29)
    assert not pair.charge.runs
    pair.second(2)
    assert pair.charge.acts
    pair.restart_deputy()
    assert pair.charge.acts


@pytest.mark.parametrize("shared", [True, False])
def test_a_provider_that_did_as_the_deputy_said_is_rented_from_again(shared: bool) -> None:
    """But only of a deployment that has one: else anybody could say so."""
    world = World(Goal(recipe="r", ready=True))
    world.tell(say.Shared(SHOP, shared=shared))
    world.state = replace(world.state, terms={SHOP: SOLE})
    world.over = {1: BY_DEPUTY}
    world.second(3)
    assert world.stage(1) is None
    assert (provider(1) in world.shop.avoid) is not shared


# -- lies and limits ---------------------------------------------------------------------------------
def test_an_older_mandate_is_refused_also_after_it_was_withdrawn() -> None:
    pair = Pair(given=mandate(version=5))
    assert refusal(pair.deputy, mandate(version=4)).code == "mandate.old"  # type: ignore[union-attr]
    pair.hear(Mandated(mandate(version=6, recipe=b"")))
    assert refusal(pair.deputy, mandate(version=5)).code == "mandate.old"  # type: ignore[union-attr]
    pair.second(60)
    assert not pair.charge.runs
    assert refusal(pair.deputy, mandate(version=7)) is None


def test_withdrawn_it_ends_what_it_runs() -> None:
    pair = Pair()
    gone(pair)
    pair.hear(Mandated(mandate(version=2, recipe=b"")))
    assert not pair.charge.runs
    pair.second(60)
    assert not pair.charge.runs


def test_given_anew_after_it_was_withdrawn_it_counts_from_nothing() -> None:
    pair = Pair()
    pair.spend(99_000)
    pair.hear(Mandated(mandate(version=2, recipe=b"")))
    pair.hear(Mandated(mandate(version=3), Msat(99_000)))
    assert pair.charge.spent == 0
    pair.spend(99_500)
    assert pair.charge.spent == 500


def test_a_budget_beyond_what_our_own_user_allows_is_refused() -> None:
    assert refusal(Deputy(DEPUTY, ALLOWANCE), mandate(budget=ALLOWANCE)) is None
    assert refusal(Deputy(DEPUTY, ALLOWANCE), mandate(budget=ALLOWANCE + 1)).code == "mandate.budget"  # type: ignore[union-attr]


def test_at_the_budget_it_ends_and_does_not_begin_again() -> None:
    pair = Pair()
    gone(pair)
    pair.spend(99_999)
    assert pair.charge.acts
    pair.spend(100_000)
    assert not pair.charge.runs
    pair.second(100)
    assert not pair.charge.runs
    pair.hear(Mandated(mandate(version=2, budget=200)))
    pair.second()
    assert pair.charge.acts


def test_a_budget_of_nothing_is_enough_for_what_is_free() -> None:
    pair = Pair(given=mandate(budget=0))
    gone(pair)
    pair.spend(0)
    assert pair.charge.acts
    pair.spend(1)
    assert not pair.charge.runs


def test_when_the_mandate_expires_it_has_no_say_any_more() -> None:
    pair = Pair(given=mandate(expires=2 * MINUTE))
    gone(pair)
    pair.second(120)
    assert KEY not in pair.deputy.charges


def test_who_gave_no_mandate_gets_no_term() -> None:
    pair = Pair()
    with pytest.raises(PeerError, match="not the deputy"):
        pair.hear(TermAsked(NodeKey(b"x" * 32), SHOP, 9, serves=False))
    assert pair.charge.witness.holder == ME


def test_so_many_deployments_and_no_more() -> None:
    state = Deputy(DEPUTY, ALLOWANCE)
    for n in range(CHARGES_MAX):
        state, _ = step(state, Mandated(replace(mandate(), name=f"shop-{n}")), START)
    assert refusal(state, replace(mandate(), name="one-more")).code == "deputy.full"  # type: ignore[union-attr]
    assert refusal(state, replace(mandate(version=2), name="shop-1")) is None


def test_two_long_names_that_begin_alike_are_two_deployments_here() -> None:
    long = "n" * 63
    names = {own_name(replace(mandate(1), name=name)) for name in (long + "a", long + "b", long)}
    assert len(names) == 3
    assert all(is_name(x) and x.endswith(own_name(mandate(1))[-9:]) for x in names)
