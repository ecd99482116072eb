"""What the controller never does, whatever happens in whatever order."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dockage.domain import term as terms
from dockage.domain.identity import NodeKey
from dockage.domain.reason import Reason
from dockage.domain.units import SECOND, Instant, Msat
from dockage.domain.update import Update
from dockage.node import controller_words as say
from dockage.node.controller_acting import is_cut_off
from dockage.node.kept import Goal
from dockage.node.shown import shown

from .controllerlab import ME, PRICE, SHOP, World, lease, place, provider

WHY = Reason("provider.leaving", "somebody said so")
TROUBLES = [
    None,
    Reason("statement.sum", "the sum is wrong"),
    Reason("channel.exhausted", "the channel is used up"),
]
some = st.integers(1, 5)
EVENTS = st.one_of(
    st.tuples(st.just("dark"), some),
    st.tuples(st.just("bright"), some),
    st.tuples(st.just("second"), st.integers(1, 40)),
    st.tuples(st.just("gateway"), st.tuples(some, st.integers(0, 4))),
    st.tuples(st.just("trouble"), st.tuples(some, st.sampled_from(TROUBLES))),
    st.tuples(st.just("over"), some),
    st.tuples(st.just("leaving"), some),
    st.tuples(st.just("scale"), st.integers(0, 9)),
    st.tuples(st.just("load"), st.integers(0, 9)),
    st.tuples(st.just("move"), some),
    st.tuples(st.just("failed"), some),
    st.tuples(st.just("started"), some),
    st.tuples(st.just("stopped"), some),
    st.tuples(st.just("fitted"), some),
    st.tuples(st.just("slow"), st.sets(st.sampled_from([say.Fit, say.Start, say.Stop, say.FindPlace]))),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("cheaper"), st.tuples(st.integers(1, 9), st.integers(0, 1200))),
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("through"), st.sampled_from(["r1", "r2", "r3"])),
    st.tuples(
        st.just("well"), st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from([True, False, None]))
    ),
)
CUTS = st.lists(
    st.one_of(
        st.tuples(st.just("dark"), some),
        st.tuples(st.just("bright"), some),
        st.tuples(st.just("second"), st.integers(1, 40)),
    ),
    max_size=15,
)
HAPPENINGS = st.lists(EVENTS, max_size=20)
GOALS = st.builds(
    lambda replicas, standby, more, least: Goal(
        replicas, standby, min(least, replicas), replicas + more, recipe="r1", ready=True
    ),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 2),
)


def happen(world: World, kind: str, what: Any) -> None:
    match kind:
        case "dark":
            world.dark.add(what)
        case "bright":
            world.dark.discard(what)
        case "second":
            world.second(what)
        case "gateway":
            world.gateway(*what)
        case "trouble":
            world.trouble[what[0]] = what[1]
        case "over":
            world.over[what] = WHY
        case "leaving":
            world.tell(say.LeaseEnding(lease(what), WHY))
        case "scale":
            world.tell(say.ScaleAsked(SHOP, what))
        case "load":
            world.tell(say.LoadSeen(SHOP, what, WHY))
        case "move":
            world.tell(say.MoveAsked(SHOP, WHY, provider(what)))
        case "failed":
            world.tell(say.Failed(lease(what), WHY))
        case "started":
            world.tell(say.Started(lease(what)))
        case "stopped":
            world.tell(say.Stopped(lease(what)))
        case "fitted":
            world.tell(say.Fitted(lease(what), "r1"))
        case "slow":
            world.undone = set(what)
        case "restart":
            world.restart()
        case "cheaper":
            n, price = what
            world.tell(say.CheaperSeen(SHOP, provider(n), Msat(price)))
        case "begin":
            world.tell(say.ChangeBegun(SHOP, world.shop.goal.update))
        case "through":
            if world.may_change():
                world.through(replace(world.shop.goal, recipe=what))
        case "well":
            recipe, well = what
            world.well = lambda x: well if x.fitted == recipe else True


class Writers:
    """Which leases may hold a running copy: from the moment a start is wanted until the lease is over or the stop was
    confirmed."""

    def __init__(self) -> None:
        self.running = {lease(1)}

    def check(self, world: World, effect: say.AnyWant) -> None:
        match effect:
            case say.Start(lease=id_):
                others = self.running - {id_}
                assert not others, f"{id_[0]} starts while {[x[0] for x in others]} may run"
                self.running.add(id_)
            case say.End(lease=id_) | say.Fence(lease=id_):
                self.running.discard(id_)
            case _:
                pass

    def stopped(self, n: int) -> None:
        self.running.discard(lease(n))


@settings(max_examples=50, deadline=None)
@given(HAPPENINGS, st.booleans(), st.integers(0, 2))
def test_a_deployment_with_data_never_has_two_writers(
    happenings: list[Any], expendable: bool, standby: int
) -> None:
    world = World(Goal(1, standby, holds_data=True, expendable=expendable, recipe="r1", ready=True))
    writers = Writers()
    world.checks.append(writers.check)
    tell = world.tell

    def heard(event: object) -> list[say.AnyWant]:
        if isinstance(event, say.Stopped) and world.stage(event.lease[0]) == "stopping":
            writers.stopped(event.lease[0])
        return tell(event)

    world.tell = heard  # type: ignore[method-assign]
    for kind, what in happenings:
        happen(world, kind, what)


@settings(max_examples=50, deadline=None)
@given(HAPPENINGS, GOALS)
def test_there_are_never_more_that_serve_than_the_most(happenings: list[Any], goal: Goal) -> None:
    """Beyond it only what is on its way out: draining, lost, or being replaced."""
    world = World(goal)
    for kind, what in happenings:
        happen(world, kind, what)
        shop = world.shop
        settled = [
            x
            for x in shop.serving
            if x.epoch == shop.epoch and x.verdict(world.now).serves and not x.verdict(world.now).should_leave
        ]
        rollout = shop.rollout
        aside = rollout.place if rollout is not None and not rollout.admitted else b""
        kept = [x for x in settled if x.moving is None and not x.lost_at and not x.sick_at]
        kept = [x for x in kept if x.lease != aside]  # a copy that gets no requests
        assert len(kept) <= max(shop.goal.most, 1)
        assert len({x.place.provider for x in shop.replicas.values()}) == len(shop.replicas)


@settings(max_examples=30, deadline=None)
@given(HAPPENINGS, GOALS)
def test_nothing_is_done_without_the_term(happenings: list[Any], goal: Goal) -> None:
    world = World(goal)
    world.tell(say.Shared(SHOP, shared=True))
    before = len(world.wanted)
    for kind, what in happenings:
        happen(world, kind, what)
    assert len(world.wanted) == before


@settings(max_examples=60, deadline=None)
@given(CUTS, GOALS)
def test_nothing_is_replaced_while_we_may_be_cut_off(cuts: list[Any], goal: Goal) -> None:
    """No gateway says anything: more than two of five providers lost at once are not lost, we are."""
    world, epochs = World(goal), [1]

    def check(world: World, effect: say.AnyWant) -> None:
        replaces = isinstance(effect, say.Start) and effect.epoch > epochs[-1]
        if replaces or isinstance(effect, say.Fence):
            assert not is_cut_off(world.state, world.now)

    world.checks.append(check)
    for kind, what in cuts:
        epochs.append(world.shop.epoch)
        happen(world, kind, what)


@settings(max_examples=50, deadline=None)
@given(HAPPENINGS, GOALS, st.integers(1, 6))
def test_the_ceiling_is_never_passed(happenings: list[Any], goal: Goal, leases: int) -> None:
    ceiling = Msat(PRICE * leases)
    world = World(replace(goal, max_msat_hour=ceiling))
    for kind, what in happenings:
        happen(world, kind, what)
        assert world.shop.msat_hour <= ceiling


@settings(max_examples=30, deadline=None)
@given(HAPPENINGS, GOALS, st.sampled_from(["start-first", "stop-first"]))
def test_what_is_new_gets_no_request_before_it_was_well(
    happenings: list[Any], goal: Goal, order: Literal["start-first", "stop-first"]
) -> None:
    world = World(replace(goal, update=Update(order)))
    known = {"r1"}
    for kind, what in happenings:
        happen(world, kind, what)
        for x in world.shop.replicas.values():
            if x.signs.well and x.fitted == world.shop.goal.recipe:
                known.add(x.fitted)
        shown_ones = {x.lease for x in shown(world.shop) if x.state == "serving"}
        assert {world.shop.replicas[x].fitted for x in shown_ones} <= known


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(0, 2),
    st.lists(st.tuples(st.sampled_from(["r2", "r3"]), st.booleans(), st.integers(0, 60)), max_size=4),
)
def test_with_start_first_never_fewer_serve_than_wanted(
    replicas: int, standby: int, changes: list[tuple[str, bool, int]]
) -> None:
    """Whatever is changed, whenever, and whether it is well or not, as long as providers keep to theirs."""
    world = World(Goal(replicas, standby, replicas, replicas, recipe="r1", ready=True))
    world.public = True
    bad = set[str]()
    world.well = lambda x: x.fitted not in bad
    world.second(3)
    for number, (recipe, well, seconds) in enumerate(changes):
        name = f"{recipe}/{number}"
        if not well:
            bad.add(name)
        world.tell(say.ChangeBegun(SHOP))
        for second in range(seconds + 30):
            if second == seconds or (second > seconds and world.shop.is_changing):
                _as_the_front_would(world, name)
            world.second()
            serve = [x for x in shown(world.shop) if x.state == "serving"]
            assert len(serve) >= replicas, world.shop.story
            assert len(world.shop.replicas) <= replicas + standby + 2


def _as_the_front_would(world: World, recipe: str) -> None:
    shop = world.shop
    if shop.rollout is not None and shop.rollout.failed is not None:
        back = replace(shop.goal, recipe=shop.rollout.before)
        world.tell(say.Wanted(SHOP, back, shop.primary, place(shop.primary[0]), PRICE))
    elif world.may_change() and shop.rollout is not None and not shop.rollout.through:
        world.through(replace(shop.goal, recipe=recipe))


# -- the term ----------------------------------------------------------------------------------------
WITNESSES = tuple(NodeKey(bytes([n]) * 32) for n in range(200, 203))
HOLDERS = (ME, NodeKey(b"d" * 32))
TURNS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),  # which of the two controllers asks
        st.sampled_from(["renew", "take"]),
        st.sets(st.integers(0, 2)),  # which witnesses hear it
        st.sets(st.integers(0, 2)),  # whose answers come back
        st.integers(0, 20),  # seconds that pass
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(TURNS, st.lists(st.integers(-1, 1), min_size=3, max_size=3))
def test_two_controllers_never_both_hold_the_term(turns: list[Any], slips: list[int]) -> None:
    """Whoever hears whom, and however late: clocks of the witnesses may slip by a second."""
    now, mine = Instant(1_000 * SECOND), [terms.Term(), terms.Term()]
    witnesses = {key: terms.Witness() for key in WITNESSES}
    for who, how, heard, answered, passed in turns:
        epoch = mine[who].epoch if how == "renew" else max(w.epoch for w in witnesses.values()) + 1
        mine[who] = terms.ask(mine[who], epoch, now)
        for n in heard:
            key = WITNESSES[n]
            at = Instant(now + (1 + slips[n]) * SECOND)
            witnesses[key], yes = terms.consider(witnesses[key], HOLDERS[who], epoch, at)
            if yes and n in answered:
                mine[who] = terms.granted(mine[who], key, epoch, now, WITNESSES)
        for step in range(passed + 1):
            assert not all(term.allows(Instant(now + step * SECOND)) for term in mine)
        now = Instant(now + passed * SECOND)


def test_a_holder_keeps_its_term_as_long_as_most_witnesses_answer() -> None:
    now, term = Instant(1_000 * SECOND), terms.Term()
    witnesses = {key: terms.Witness() for key in WITNESSES}
    for _ in range(20):
        term = terms.ask(term, 1, now)
        for key in WITNESSES[:2]:
            witnesses[key], yes = terms.consider(witnesses[key], ME, 1, now)
            term = terms.granted(term, key, 1, now, WITNESSES) if yes else term
        assert term.allows(now)
        now = Instant(now + 10 * SECOND)
    assert not term.allows(Instant(now + 20 * SECOND))


def test_a_deputy_takes_over_once_the_term_is_over_and_not_before() -> None:
    now = Instant(1_000 * SECOND)
    witness, yes = terms.consider(terms.Witness(), ME, 1, now)
    assert yes
    assert not terms.consider(witness, HOLDERS[1], 2, Instant(now + 10 * SECOND))[1]
    later = Instant(now + terms.LENGTH)
    witness, yes = terms.consider(witness, HOLDERS[1], 2, later)
    assert yes
    assert not terms.consider(witness, ME, 1, later)[1]


def test_an_answer_of_a_stranger_or_to_an_older_question_counts_for_nothing() -> None:
    now = Instant(1_000 * SECOND)
    term = terms.ask(terms.Term(), 1, now)
    assert terms.granted(term, HOLDERS[1], 1, now, WITNESSES) == term
    assert terms.granted(term, WITNESSES[0], 2, now, WITNESSES) == term
    again = terms.ask(term, 1, Instant(now + SECOND))
    assert terms.granted(again, WITNESSES[0], 1, now, WITNESSES) == again
