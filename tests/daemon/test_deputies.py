"""A deputy carries on while the tenant's daemon is away, and gives back when it returns: whole nodes, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from daemon.nodes import BUSY, CONFIG, FREE_POLICY, NEED, POLICY, Peer, World, funded_by_mining, until
from daemon.test_control import control
from daemon.test_keeping import kept, provider
from dockage.adapters.images import ImageSender, LeftImages
from dockage.daemon.config import Tenant
from dockage.daemon.deputies import Deputies
from dockage.daemon.deputising import FENCE_SEC, TIDY_SEC
from dockage.daemon.renting import silently
from dockage.daemon.updating import attend
from dockage.domain.errors import DockageError, Unavailable, UsageError
from dockage.domain.identity import LeaseId
from dockage.domain.lease import LeaseState
from dockage.domain.offer import RELAY
from dockage.domain.units import HOUR, SECOND, Duration, Instant, Sat, after
from dockage.node.kept import Stage
from dockage.node.rented import RentedLease
from dockage.ports.machine import Clock
from dockage.protocol import mandates, streams
from dockage.protocol.docker.recipe import RecipeVolume, decode
from dockage.protocol.grants import Grant, sign_grant
from dockage.protocol.images import Manifest
from dockage.protocol.mandates import AskTerm, Give, Refused, sign_mandate
from dockage.testing.copies import FakeCopies
from dockage.wire.frames import read_frame, write_frame
from images.test_left import ONE, OTHER, Shelf, image_of

WEEK = Duration(7 * 24 * HOUR)
NAME = "web"
GENEROUS = replace(CONFIG, tenant=Tenant(deputy_sat=1000))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


class SetClock:
    """One that somebody may set."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self.ahead = clock, Duration(0)

    def now(self) -> Instant:
        return after(self._clock.now(), self.ahead)


class Pair:
    """A laptop and a desk that are linked, and a deployment of the laptop at one of two strangers."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def build(self, policy: Any = FREE_POLICY, coins: tuple[int, ...] = ()) -> Pair:
        world = self.world
        self.providers = [await provider(world, number, policy) for number in (1, 3)]
        self.clocks = SetClock(world.clock), SetClock(world.clock)
        self.laptop = await world.tenant(2, coins=coins, clock=self.clocks[0])
        self.desk = await world.tenant(5, coins=(100_000,), config=GENEROUS, clock=self.clocks[1])
        shown = self.desk.node.linking.offer()
        await self.laptop.node.linking.accept(shown.password)
        await until(lambda: shown.state == "linked", 5)
        self.mine, self.theirs = kept(self.laptop), kept(self.desk)
        renting = world.spawn(self.laptop.rent(NAME))
        await funded_by_mining(world, renting)
        self.lease = renting.result()
        self.mine.deploy(NAME, self.lease, NEED, {})
        await asyncio.sleep(3)
        return self

    async def deputise(self, budget: int = 0) -> None:
        await self.laptop.node.deputies.add(NAME, "machine-5", Sat(budget), None, WEEK)

    def at(self, lease: LeaseId) -> Peer:
        node = self.laptop.rented(lease).provider
        return next(x for x in self.providers if x.keys.node == node)

    @property
    def web(self) -> Any:
        return self.laptop.node.keeping.state.deployments.get(NAME)

    @property
    def charge(self) -> Any:
        return next(iter(self.desk.node.deputising.state.charges.values()), None)

    @property
    def run(self) -> Any:
        """As the deputy's controller knows it."""
        return self.desk.node.keeping.state.deployments.get(self.charge.name) if self.charge else None

    @property
    def tenant_acts(self) -> bool:
        state = self.laptop.node.keeping.state
        return state.acts(state.deployments[NAME], self.laptop.clock.now())

    def deputy_serves(self) -> bool:
        return self.run is not None and [x.stage for x in self.run.replicas.values()] == [Stage.SERVING]

    async def leave(self) -> None:
        """The laptop is closed."""
        await self.laptop.stop()
        await until(self.deputy_serves)

    async def come_back(self) -> FakeCopies:
        self.laptop.start()
        copies = kept(self.laptop)
        copies.recipes, copies.leads = self.mine.recipes, self.mine.leads
        copies.made, copies.running = self.mine.made, set()
        self.mine = copies
        return copies


@pytest.fixture
async def pair(world: World) -> Pair:
    return await Pair(world).build()


async def test_the_deputy_carries_on_and_the_tenant_takes_it_back(pair: Pair) -> None:
    await pair.deputise()
    assert pair.tenant_acts
    assert pair.run is None
    at = pair.at(pair.lease)
    await pair.leave()
    await until(lambda: at.sold(pair.lease).state is LeaseState.ENDED)
    assert at.sold(pair.lease).reason.code == "lease.deputy"
    [theirs] = pair.run.replicas
    assert [spot.lease for spot in pair.theirs.running] == [theirs]
    copies = await pair.come_back()
    await until(lambda: pair.laptop.node.keeping.state.deployments and pair.tenant_acts)
    assert not pair.charge.acts
    await until(
        lambda: any(x.stage is Stage.SERVING and x.lease != pair.lease for x in pair.web.replicas.values())
    )
    await until(lambda: pair.run is None)
    assert all(x.is_over for x in pair.desk.node.tenant.state.leases.values())
    assert {spot.lease for spot in copies.running} == set(pair.web.replicas)


async def test_a_lost_replica_is_replaced_by_the_deputy_and_paid_for_at_its_own_providers(pair: Pair) -> None:
    await pair.deputise()
    await pair.leave()
    [first] = pair.run.replicas.values()
    host = next(x for x in pair.providers if x.keys.node == first.place.provider)
    await host.stop()
    await until(lambda: first.lease not in pair.run.replicas and pair.deputy_serves())


async def test_cut_off_from_its_deputy_the_tenant_does_not_act(pair: Pair) -> None:
    await pair.deputise()
    await pair.desk.stop()
    await asyncio.sleep(20)
    assert not pair.tenant_acts
    before = set(pair.web.replicas)
    await pair.at(pair.lease).stop()
    await asyncio.sleep(60)
    assert set(pair.web.replicas) == before
    assert pair.web.hindrance.code == "controller.term"
    changes: Any = SimpleNamespace()
    attend(pair.laptop.node, changes)
    with pytest.raises(Unavailable, match="its deputy"):  # soon, and nothing is begun
        await changes.begin(NAME, {}, silently)
    assert pair.web.rollout is None
    with pytest.raises(DockageError, match="--force"):
        await pair.laptop.node.deputies.remove(NAME, force=False)
    await pair.laptop.node.deputies.remove(NAME, force=True)
    await until(lambda: pair.lease not in pair.web.replicas)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_makes_no_term_longer_and_no_deputy_hasty(world: World, hours: int) -> None:
    pair = await Pair(world).build()
    await pair.deputise()
    for clock in pair.clocks:
        clock.ahead = Duration(hours * HOUR)
    await asyncio.sleep(60)
    assert pair.tenant_acts
    assert not pair.charge.runs
    await pair.desk.stop()
    await asyncio.sleep(20)
    assert not pair.tenant_acts


async def test_both_restart_and_nothing_is_forgotten(pair: Pair) -> None:
    await pair.deputise()
    await pair.leave()
    lease = next(iter(pair.run.replicas))
    theirs = pair.theirs
    await pair.desk.restart()
    copies = kept(pair.desk)
    copies.made, copies.running = theirs.made, theirs.running
    await until(pair.deputy_serves)
    assert set(pair.run.replicas) == {lease}


async def test_removed_it_has_no_say_any_more(pair: Pair) -> None:
    await pair.deputise()
    await pair.laptop.node.deputies.remove(NAME, force=False)
    assert pair.charge.mandate.is_withdrawn
    await pair.laptop.stop()
    await asyncio.sleep(120)
    assert pair.run is None


async def test_taken_down_by_the_tenant_the_deputy_is_told(pair: Pair) -> None:
    await pair.deputise()
    pair.mine.recipes.clear()
    await pair.laptop.node.renting.release(pair.lease)
    await until(lambda: not pair.laptop.node.deputies.all())
    assert pair.charge.mandate.is_withdrawn


async def test_it_pays_from_its_own_channel_up_to_the_budget_and_then_ends(world: World) -> None:
    """Ten satoshis a second, and sixty to spend."""
    pair = await Pair(world).build(POLICY, coins=(100_000,))
    await pair.deputise(budget=60)
    await pair.laptop.stop()
    async with asyncio.TaskGroup() as tasks:
        await funded_by_mining(world, tasks.create_task(until(pair.deputy_serves)))
    [lease] = pair.run.replicas
    assert pair.desk.rented(lease).deployment == pair.charge.name
    at = next(x for x in pair.providers if x.keys.node == pair.desk.rented(lease).provider)
    at.host.start(lease, "busy", BUSY)
    await until(lambda: pair.charge.spent_out)
    await until(lambda: pair.desk.rented(lease).is_over)
    assert 60_000 <= pair.charge.spent <= 90_000, "what a look and the last bill come to"
    assert pair.desk.paying.paid <= 90
    await asyncio.sleep(60)
    assert pair.run is None


async def test_a_budget_beyond_its_users_word_is_refused_and_the_tenant_acts_on(pair: Pair) -> None:
    with pytest.raises(UsageError) as caught:
        await pair.deputise(budget=1001)
    assert caught.value.code == "mandate.budget"
    assert pair.tenant_acts
    assert pair.laptop.node.deputies.all() == []


async def test_with_data_it_is_refused(pair: Pair) -> None:
    volumes = replace(pair.mine.recipes[NAME], volumes=(RecipeVolume("data"),))
    pair.mine.recipes[NAME] = volumes
    await until(lambda: NAME not in pair.laptop.node.keeping.hands.recipes or pair.web.goal.holds_data)
    with pytest.raises(UsageError, match="named volumes"):
        await pair.deputise()


# -- data ----------------------------------------------------------------------------------------------
class Writers:
    """Looks, as often as anything can change, who may be writing."""

    def __init__(self, pair: Pair) -> None:
        recipe = pair.mine.recipes[NAME]
        body = msgspec.json.encode({"Image": "app", "Labels": {"dockage.data": "expendable"}})
        new = replace(recipe.containers[0], body=body)
        volumes = (RecipeVolume("data"),)
        pair.mine.recipes[NAME] = replace(recipe, containers=(new,), volumes=volumes)
        self.pair, self.seen = pair, set[frozenset[str]]()

    async def watch(self) -> None:
        while True:
            self.seen.add(frozenset(self.now()))
            await asyncio.sleep(0.05)

    def now(self) -> list[str]:
        """A copy that runs at a lease which is not over at its provider."""
        pair = self.pair
        live = {
            lease
            for x in pair.providers
            for lease, sold in x.node.provider.state.leases.items()
            if sold.state is not LeaseState.ENDED
        }
        sides = {"tenant": pair.mine.running, "deputy": pair.theirs.running}
        return [who for who, running in sides.items() if any(x.lease in live for x in running)]


@pytest.mark.parametrize("cut", [False, True])
async def test_with_data_one_of_the_two_writes_and_never_both(pair: Pair, cut: bool) -> None:
    """*cut*: the tenant's provider hears neither of them."""
    writers = Writers(pair)
    await pair.deputise()
    await until(lambda: pair.web.goal.holds_data and pair.charge.holds_data)
    watching = pair.world.spawn(writers.watch())
    try:
        await taken_and_given_back(pair, writers, cut=cut)
    finally:
        watching.cancel()


async def taken_and_given_back(pair: Pair, writers: Writers, *, cut: bool) -> None:
    if cut:
        await pair.at(pair.lease).stop()
    await pair.laptop.stop()
    await until(lambda: pair.charge.acts)
    begun = asyncio.get_running_loop().time()
    await until(pair.deputy_serves)
    assert (asyncio.get_running_loop().time() - begun >= FENCE_SEC) is cut
    if cut:
        return
    await pair.come_back()
    await until(lambda: writers.now() == ["tenant"])
    assert {frozenset({"tenant"}), frozenset({"deputy"})} <= writers.seen
    assert frozenset({"tenant", "deputy"}) not in writers.seen


async def test_with_data_the_tenant_waits_for_a_copy_of_its_deputy_that_nobody_reaches(pair: Pair) -> None:
    Writers(pair)
    await pair.deputise()
    await until(lambda: pair.web.goal.holds_data and pair.charge.holds_data)
    await pair.leave()
    [theirs] = pair.run.replicas
    held = pair.desk.rented(theirs)
    await next(x for x in pair.providers if x.keys.node == held.provider).stop()
    await pair.come_back()
    begun = asyncio.get_running_loop().time()
    await until(lambda: NAME in pair.laptop.node.keeping.state.deployments and pair.tenant_acts)
    passed = asyncio.get_running_loop().time() - begun
    assert passed >= pair.desk.node.tenant.state.policy.end_within / SECOND


# -- a change under way --------------------------------------------------------------------------------
class Change:
    """Our user's docker changes what runs, behind the gate; *well* is what a look at what is new shows."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.well = pair, False
        self.old, self.front = mandated(pair), cast("Any", SimpleNamespace())

    async def make(self, **labels: str) -> None:
        attend(self.pair.laptop.node, self.front)
        self.pair.laptop.node.keeping._wellness = self.look
        wishes = {f"dockage.{name}": labels[name] for name in labels}
        assert await self.front.begin(NAME, wishes, silently)
        recipe = self.pair.mine.recipes[NAME]
        body = msgspec.json.encode({"Image": "app", "Labels": wishes})
        new = replace(recipe.containers[0], name="new", body=body)
        self.pair.mine.recipes[NAME] = replace(recipe, containers=(new,))
        await self.front.through(NAME)
        await until(lambda: self.pair.web.rollout.known)
        assert self.pair.laptop.node.keeping.hands.recipes[NAME].containers[0].name == "new"

    async def look(self, lease: LeaseId) -> bool | None:
        return self.well or (
            None if self.pair.web.replicas[lease].fitted == self.pair.web.goal.recipe else True
        )


def mandated(pair: Pair) -> str:
    """What its one container is called."""
    [one] = decode(pair.charge.mandate.recipe).containers
    return one.name


async def test_a_change_is_the_deputys_once_it_is_rolled_out(pair: Pair) -> None:
    await pair.deputise()
    change = Change(pair)
    await change.make()
    await asyncio.sleep(20)
    assert mandated(pair) == change.old
    change.well = True
    await until(lambda: pair.web.rollout is None)
    assert pair.web.setback is None
    await until(lambda: mandated(pair) == "new")


async def test_a_change_that_the_closing_laptop_left_half_done_is_taken_back_by_the_deputy(
    pair: Pair,
) -> None:
    await pair.deputise()
    change = Change(pair)
    await change.make()
    leases = set(pair.web.replicas)
    assert len(leases) == 2
    await asyncio.sleep(5)  # by now it has been told of both leases
    await pair.leave()
    assert mandated(pair) == change.old
    await until(lambda: all(pair.at(x).sold(x).state is LeaseState.ENDED for x in leases))


async def test_a_change_that_failed_and_waits_is_not_what_a_deputy_runs(pair: Pair) -> None:
    await pair.deputise()
    change = Change(pair)
    await change.make(**{"update-failure": "pause", "update-within": "10"})
    await until(lambda: pair.web.rollout.paused)
    await asyncio.sleep(10)
    assert mandated(pair) == change.old


async def test_a_deputy_that_is_named_amid_a_change_is_told_what_ran_before(pair: Pair) -> None:
    before = pair.mine.recipes[NAME].containers[0].name
    change_front: Any = SimpleNamespace()
    await pair.laptop.node.keeping.engage(NAME)
    attend(pair.laptop.node, change_front)
    assert await change_front.begin(NAME, {}, silently)
    recipe = pair.mine.recipes[NAME]
    pair.mine.recipes[NAME] = replace(recipe, containers=())  # compose has removed it, and has yet to make it
    await pair.deputise()
    assert mandated(pair) == before


# -- images --------------------------------------------------------------------------------------------
class Luggage:
    """The desk has no images but what is left with it; the laptop has the two that ``tests/images`` makes."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        async def all_of_them(images: Any) -> list[str]:
            return list(images)

        self.pair, self.shelf = pair, Shelf(ONE, OTHER)
        self.left = pair.desk.node.deputising.left = LeftImages(folder, pair.desk.clock)
        pair.desk.node.deputising.lacks = all_of_them
        pair.laptop.node.deputies.leaving.sender = ImageSender(self.shelf, "the deputy")
        self.runs(ONE)

    def runs(self, image: Manifest) -> None:
        recipe = self.pair.mine.recipes[NAME]
        [one] = recipe.containers
        self.pair.mine.recipes[NAME] = replace(recipe, containers=(replace(one, image=image.image),))

    def mandate_names(self, image: Manifest) -> bool:
        return image.image in decode(self.pair.charge.mandate.recipe).images


async def test_images_are_left_with_the_deputy_before_its_mandate_and_after_a_change(
    pair: Pair, tmp_path: Path
) -> None:
    luggage = Luggage(pair, tmp_path)
    await pair.deputise()
    assert not luggage.left.lacks([ONE.image])
    assert luggage.mandate_names(ONE)
    luggage.runs(OTHER)
    await until(lambda: luggage.mandate_names(OTHER))
    assert not luggage.left.lacks([ONE.image, OTHER.image])
    assert [x.refused for _, x in pair.laptop.node.deputies.all()] == [None]
    assert pair.tenant_acts
    pair.clocks[1].ahead = Duration(2 * HOUR)
    pair.desk.node.deputising.tidied = -TIDY_SEC
    await until(lambda: luggage.left.lacks([ONE.image]), 5)
    assert not luggage.left.lacks([OTHER.image]), "a mandate names it"


async def test_an_image_that_takes_long_costs_no_term(pair: Pair, tmp_path: Path) -> None:
    luggage = Luggage(pair, tmp_path)
    await pair.deputise()
    send, slow = pair.laptop.node.deputies.leaving.sender, asyncio.Event()

    class Slow:
        async def send(self, *how: Any) -> str:
            await slow.wait()
            return await send.send(*how)

    pair.laptop.node.deputies.leaving.sender = Slow()
    luggage.runs(OTHER)
    await asyncio.sleep(120)
    [(_, standing)] = pair.laptop.node.deputies.all()
    assert standing.refused.code == "deputy.images"
    assert pair.tenant_acts
    assert luggage.mandate_names(ONE), "what it would run until then"
    slow.set()
    await until(lambda: luggage.mandate_names(OTHER))


async def test_an_image_that_is_nowhere_is_said_and_nobody_is_deputy(pair: Pair, tmp_path: Path) -> None:
    luggage = Luggage(pair, tmp_path)
    luggage.runs(image_of(b"x" * 512))
    with pytest.raises(UsageError) as caught:
        await pair.deputise()
    assert caught.value.code == "image.unknown"
    assert pair.laptop.node.deputies.all() == []
    assert not pair.web.shared


async def test_strangers_leave_nothing(pair: Pair, tmp_path: Path) -> None:
    luggage = Luggage(pair, tmp_path)
    thief = await pair.world.tenant(9, coins=(), wallet=False)
    thief.node.link.learn(pair.desk.keys.node, pair.desk.node.link.address())
    leaving = thief.node.deputies.leaving
    leaving.sender = ImageSender(luggage.shelf)
    with pytest.raises(UsageError, match="linked machines only"):
        await leaving.leave(NAME, pair.desk.keys.node, pair.mine.recipes[NAME])
    with pytest.raises(DockageError):
        await leaving._leave(NAME, pair.desk.keys.node, ONE.image, "app")
    assert luggage.left.lacks([ONE.image])
    assert luggage.shelf.opened == []


async def test_over_the_control_api(pair: Pair, tmp_path: Path) -> None:
    async with control(pair.laptop, tmp_path) as laptop, control(pair.desk, tmp_path) as desk:
        body = {"deployment": NAME, "machine": "machine-5", "budget_sat": 9, "max_spend_sat": 2, "days": 1}
        mine = await laptop.post("/deputies", body)
        assert (mine["machine"], mine["budget_sat"], mine["msat_hour_max"]) == ("machine-5", 9, 2000)
        assert mine["ours"]
        assert mine["trouble"] is None
        [charge] = (await desk.get("/deputies"))["charges"]
        assert (charge["machine"], charge["deployment"], charge["runs"]) == ("machine-2", NAME, False)
        assert charge["called"] == f"web-{pair.laptop.keys.node.hex()[:8]}"
        assert (await laptop.ask("POST", "/deputies", {**body, "days": 31}))[0] == 400
        assert (await laptop.post(f"/deputies/{NAME}/remove"))["deployment"] == NAME
        assert (await desk.get("/deputies"))["charges"] == []


# -- lies ----------------------------------------------------------------------------------------------
async def say(speaker: Peer, to: Peer, request: Any) -> Any:
    speaker.node.link.learn(to.keys.node, to.node.link.address())
    stream = await speaker.node.link.open(to.keys.node)
    try:
        await write_frame(stream, streams.encode_header(streams.Deputy()), mandates.encode_said(request))
        return mandates.decode_answer(await read_frame(stream, mandates.ANSWER_MAX))
    finally:
        stream.abort()


def test_a_deployment_called_relay_does_not_hand_the_nodes_own_relay_to_its_deputy() -> None:
    """It would be ended when the deputy takes over, and with it the way to this machine."""
    site = RentedLease(LeaseId(b"a lease of sites"), RELAY, NEED, (), state=LeaseState.RUNNING)
    relay = replace(site, id=LeaseId(b"the node's relay"), service=RELAY)
    tenant = SimpleNamespace(state=SimpleNamespace(leases={x.id: x for x in (site, relay)}))
    assert Deputies._leases(cast("Any", SimpleNamespace(_tenant=tenant)), RELAY) == [site]


async def test_nobody_but_a_linked_machine_is_listened_to(pair: Pair) -> None:
    await pair.deputise()
    thief = await pair.world.tenant(9, coins=(), wallet=False)
    blob = sign_mandate(pair.charge.mandate, pair.laptop.keys.sign)
    for lie in (Give(blob), AskTerm(NAME, 99, serves=True)):
        answer = await say(thief, pair.desk, lie)
        assert isinstance(answer, Refused)
        assert answer.code == "deputy.stranger"


async def test_another_linked_machine_cannot_speak_for_the_tenant(pair: Pair) -> None:
    await pair.deputise()
    other = await pair.world.tenant(9, coins=(), wallet=False)
    shown = pair.desk.node.linking.offer()
    await other.node.linking.accept(pair.desk.node.linking.long_form(shown))
    before = pair.charge
    assert (await say(other, pair.desk, AskTerm(NAME, 99, serves=True))).code == "mandate.unknown"
    shown_by_other = sign_mandate(before.mandate, pair.laptop.keys.sign)
    signed_by_other = sign_mandate(
        replace(before.mandate, version=before.mandate.version + 1), other.keys.sign
    )
    for blob in (shown_by_other, signed_by_other):
        with pytest.raises(DockageError):
            await say(other, pair.desk, Give(blob))
    assert pair.desk.node.reception.refused["mandate.other"] == 2
    assert pair.charge.mandate == before.mandate


async def test_an_older_mandate_of_the_tenant_itself_is_refused(pair: Pair) -> None:
    await pair.deputise()
    old = replace(pair.charge.mandate, version=pair.charge.mandate.version - 1)
    answer = await say(pair.laptop, pair.desk, Give(sign_mandate(old, pair.laptop.keys.sign)))
    assert answer.code == "mandate.old"


async def test_an_older_terms_order_to_end_a_lease_is_refused_by_its_provider(pair: Pair) -> None:
    """The deputy's grant is from before the tenant took its deployment back."""
    await pair.deputise()
    at, epoch = pair.at(pair.lease), pair.web.epoch
    await until(lambda: pair.charge.mandate.leases)
    now = pair.world.clock.now()
    grant = Grant(
        pair.laptop.keys.node, pair.lease, pair.desk.keys.node, ("end",), epoch - 1, Instant(now + HOUR)
    )
    old = sign_grant(grant, pair.laptop.keys.sign)
    header = streams.encode_header(streams.EndLease(pair.lease, old))
    with pytest.raises(DockageError):
        await order(pair.desk, at, header)
    assert at.node.reception.refused["grant.fenced"] == 1
    assert at.sold(pair.lease).state is LeaseState.RUNNING
    [held] = pair.charge.mandate.leases
    with pytest.raises(DockageError):
        await order(pair.laptop, at, streams.encode_header(streams.EndLease(pair.lease, held.grant)))
    assert at.node.reception.refused["grant.other"] == 1, "it was given to the deputy, not to who shows it"


async def order(speaker: Peer, at: Peer, header: bytes) -> bytes:
    speaker.node.link.learn(at.keys.node, at.node.link.address())
    stream = await speaker.node.link.open(at.keys.node)
    try:
        await write_frame(stream, header)
        return await read_frame(stream, 512)
    finally:
        stream.abort()
