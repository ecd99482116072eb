"""A laptop that is closed and opened, a desk that is its deputy, and a line that breaks: around their own minds.

Whenever one of the two wants something of the world (a lease, a start, an end) the other must have no term. The
seed gives the same history. ``Figures`` says what the deputy was good for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.spread import Place
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, Msat, Sat
from dockage.node import controller as acting
from dockage.node import controller_words as say
from dockage.node import deputy as mind
from dockage.node.deputy import Charge, Mandated, TermAsked, Ticked
from dockage.node.kept import Controller, Goal, Stage, durable, restore
from dockage.protocol.mandates import Mandate

from .world import World

APP = "app"
GOAL = Goal(recipe="r", ready=True)
GONE = Reason("lease.ended", "it was not paid, or ended by the deputy")
LAPTOP, DESK = NodeKey(b"l" * 32), NodeKey(b"d" * 32)
LOOK, ASK = 2 * SECOND, 4 * SECOND
UNPAID = Duration(60 * SECOND)
"""A lease of a node that is down ends after so long."""


class Plan(NamedTuple):
    """Mean times."""

    open: Duration = Duration(40 * MINUTE)
    closed: Duration = Duration(20 * MINUTE)
    line_up: Duration = Duration(20 * MINUTE)
    line_down: Duration = Duration(40 * SECOND)
    crash: Duration = Duration(2 * HOUR)
    """Of the desk's daemon; it is back within a minute."""
    provider: Duration = Duration(12 * HOUR)
    """Until a lease is lost."""
    slip: int = 0
    """How far the desk's clock is ahead, in seconds."""


class Figures(NamedTuple):
    takings: int
    """By the deputy."""
    returns: int
    acts: int
    """What either wanted of the world."""
    served: float
    """Share of the time in which a copy ran."""


class Node:
    """One side's controller and its leases."""

    def __init__(self, world: World, key: NodeKey, acted: Callable[[Node], None], slip: int = 0) -> None:
        self.world, self.acted, self.slip, self.up = world, acted, slip, True
        self.state, self.down_since = Controller(key), world.now
        self.leases: dict[LeaseId, Instant] = {}
        """Until when each lives."""
        self._key, self._serial = key, 0

    @property
    def now(self) -> Instant:
        return Instant(self.world.now + self.slip * SECOND)

    @property
    def name(self) -> str:
        return next(iter(self.state.deployments), APP)

    @property
    def has_term(self) -> bool:
        return self.up and any(self.state.acts(x, self.now) for x in self.state.deployments.values())

    def serves(self) -> bool:
        replicas = [x for of in self.state.deployments.values() for x in of.replicas.values()]
        return any(x.stage is Stage.SERVING and self.alive(x.lease) for x in replicas)

    def alive(self, lease: LeaseId) -> bool:
        unpaid = not self.up and self.world.now - self.down_since > UNPAID
        return self.world.now < self.leases.get(lease, Instant(0)) and not unpaid

    def new_lease(self, plan: Plan) -> tuple[LeaseId, Place, Msat]:
        self._serial += 1
        lease = LeaseId(self._key[:8] + self._serial.to_bytes(8, "big"))
        self.leases[lease] = Instant(self.world.now + int(self.world.random.expovariate(1 / plan.provider)))
        return lease, Place(NodeKey(lease * 2), frozenset({lease.hex()})), Msat(1)

    def tell(self, event: object, plan: Plan) -> None:
        self.state, wants = acting.step(self.state, event, self.now)
        for want in wants:
            self._do(want, plan)

    def _do(self, want: say.AnyWant, plan: Plan) -> None:
        match want:
            case say.FindPlace(deployment=name, ticket=ticket):
                self._later(3, lambda: say.Placed(name, ticket, *self.new_lease(plan)), plan)
            case say.Fit(lease=lease):
                self._later(10, lambda: say.Fitted(lease, "r"), plan)
            case say.Start(lease=lease):
                self._later(1, lambda: say.Started(lease), plan)
            case say.Stop(lease=lease):
                self._later(1, lambda: say.Stopped(lease), plan)
            case say.End(lease=lease) | say.Fence(lease=lease):
                self.leases.pop(lease, None)
            case _:
                return
        if isinstance(want, say.FindPlace | say.Fit | say.Start):
            self.acted(self)

    def _later(self, seconds: int, event: Callable[[], object], plan: Plan) -> None:
        """What was under way when a daemon stopped comes to nothing."""
        since = self.down_since

        def happen() -> None:
            if self.up and self.down_since == since:
                self.tell(event(), plan)

        self.world.later(int(seconds * SECOND * self.world.random.uniform(0.5, 2)), happen)

    def look(self, plan: Plan) -> None:
        if not self.up:
            return
        leases = [x for of in self.state.deployments.values() for x in of.replicas]
        looks = [
            say.Look(
                x,
                self.alive(x),
                self.now if self.alive(x) else Instant(1),
                over=None if self.alive(x) else GONE,
            )
            for x in leases
        ]
        self.tell(say.Looked(tuple(looks)), plan)

    def stop(self) -> None:
        self.up, self.down_since = False, self.world.now

    def start(self) -> None:
        for lease in [x for x in self.leases if not self.alive(x)]:
            del self.leases[lease]
        self.up, self.down_since = True, self.world.now
        self.state = restore(self._key, [durable(x) for x in self.state.deployments.values()])


class Household:
    def __init__(self, seed: int, plan: Plan = Plan()) -> None:  # noqa: B008
        self.world, self.plan = World(seed), plan
        self.laptop = Node(self.world, LAPTOP, self._acted)
        self.desk = Node(self.world, DESK, self._acted, plan.slip)
        self.deputy, self.line, self.epoch = mind.Deputy(DESK), True, 1
        self.takings = self.returns = self.acts = self._version = self._served = self._looks = 0
        self.laptop.tell(say.Wanted(APP, GOAL, *self.laptop.new_lease(plan)), plan)
        self.laptop.tell(say.Shared(APP, shared=True), plan)
        self._give()
        world = self.world
        world.every(LOOK, self._look)
        world.every(ASK, self._ask)
        self._flip(plan.open, plan.closed, self.laptop.stop, self.laptop.start)
        self._flip(plan.line_up, plan.line_down, lambda: self._cut(line=False), lambda: self._cut(line=True))
        self._flip(plan.crash, Duration(30 * SECOND), self.desk.stop, self._revive)

    def run(self, time: Duration) -> Figures:
        self.world.run(time)
        return Figures(self.takings, self.returns, self.acts, self._served / max(1, self._looks))

    @property
    def charge(self) -> Charge | None:
        return self.deputy.charges.get((LAPTOP, APP))

    def _acted(self, who: Node) -> None:
        """The one thing that must hold."""
        self.acts += 1
        other = self.desk if who is self.laptop else self.laptop
        assert not other.has_term, f"both act at {self.world.elapsed / SECOND:.0f} s, seed {self.world.seed}"
        self.world.note(b"%d %d" % (self.world.now, who is self.laptop))

    # -- accidents -------------------------------------------------------------------------------------
    def _flip(self, up: Duration, down: Duration, off: Callable[[], None], on: Callable[[], None]) -> None:
        def fall() -> None:
            off()
            self.world.later(int(self.world.random.expovariate(1 / down)), rise)

        def rise() -> None:
            on()
            self.world.later(int(self.world.random.expovariate(1 / up)), fall)

        self.world.later(int(self.world.random.expovariate(1 / up)), fall)

    def _cut(self, *, line: bool) -> None:
        self.line = line

    def _revive(self) -> None:
        self.desk.start()
        stored = self.deputy.charges.values()
        self.deputy = mind.restore(DESK, Sat(0), stored, self.desk.now)

    # -- what both do ----------------------------------------------------------------------------------
    def _look(self) -> None:
        for node in (self.laptop, self.desk):
            node.look(self.plan)
        if self.desk.up:
            self._hear(Ticked())
        self._looks += 1
        self._served += self.laptop.serves() or self.desk.serves()

    def _hear(self, event: object) -> None:
        """As ``daemon/deputising.py``: the controller is made to agree with the mind."""
        before = self.charge
        self.deputy, _ = mind.step(self.deputy, event, self.desk.now)
        charge, desk = self.charge, self.desk
        if charge is None:
            return
        if charge.acts and not (before and before.acts):
            self.takings += 1
            for held in charge.mandate.leases:
                self.laptop.leases.pop(held.lease, None)
        known = charge.name in desk.state.deployments
        if charge.acts and not (known and desk.has_term):
            desk.tell(say.Charged(charge.name, GOAL, charge.witness.epoch), self.plan)
        elif not charge.acts and charge.name in desk.state.terms:
            desk.tell(say.TermLost(charge.name), self.plan)
        if not charge.runs and known:
            desk.tell(say.Unwanted(charge.name), self.plan)

    def _ask(self) -> None:
        """A question and its answer; either is lost where the line is down, the answer now and then by itself."""
        if not self.laptop.up:
            return
        for _ in range(2):
            self.laptop.tell(say.TermAsked(APP, self.epoch), self.plan)
            asked_at = self.laptop.state.terms[APP].asked_at
            if not (self.line and self.desk.up) or self.charge is None:
                return
            self._hear(TermAsked(LAPTOP, APP, self.epoch, self.laptop.serves()))
            if self.world.random.random() < 0.05:
                return
            witness = self.charge.witness
            if witness.holder == LAPTOP and witness.epoch == self.epoch:
                self.laptop.tell(say.TermGranted(APP, DESK, self.epoch, asked_at, (DESK,)), self.plan)
                break
            self.returns += 1
            self.epoch = witness.epoch + 1
        self._give()

    def _give(self) -> None:
        self._version += 1
        until = Instant(self.desk.now + 7 * 24 * HOUR)
        self._hear(Mandated(Mandate(LAPTOP, DESK, APP, self._version, until, Sat(0), None, (), b"recipe")))
