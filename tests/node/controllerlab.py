"""A controller's mind with hands that do what it wants at once, and leave out what a test says."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.reason import Reason
from dockage.domain.spread import Place
from dockage.domain.units import SECOND, Instant, Msat
from dockage.node import controller as mind
from dockage.node import controller_words as say
from dockage.node.kept import Controller, Deployment, Goal, Replica, Stage

START = Instant(1_800_000_000 * SECOND)
ME = NodeKey(b"m" * 32)
GATEWAY = NodeKey(b"g" * 32)
SHOP = "shop"
PRICE = Msat(1000)


def lease(n: int) -> LeaseId:
    return LeaseId(bytes([n]) * 16)


def provider(n: int) -> NodeKey:
    return NodeKey(bytes([n]) * 32)


def place(n: int) -> Place:
    return Place(provider(n), frozenset({f"line-{n}"}))


class World:
    """Provider *n* has lease *n*. What the mind wants is done at once, unless its kind is in ``undone``."""

    def __init__(self, goal: Goal, supply: int = 9) -> None:
        self.state, self.now = Controller(ME), START
        self.supply, self.next = supply, 2
        self.dark: set[int] = set()
        """Providers that we do not reach."""
        self.trouble: dict[int, Reason] = {}
        self.over: dict[int, Reason] = {}
        self.undone: set[type] = set()
        self.prices: dict[int, Msat] = {}
        """What provider *n* really wants; the others want ``PRICE``."""
        self.well: Callable[[Replica], bool | None] = lambda _: True
        """What a look at its containers says."""
        self.public = False
        """A gateway asks all that serve, and they answer as they are."""
        self.wanted: list[say.AnyWant] = []
        self.checks: list[Callable[[World, say.AnyWant], None]] = []
        self.tell(say.Wanted(SHOP, goal, lease(1), place(1), PRICE))

    @property
    def shop(self) -> Deployment:
        return self.state.deployments[SHOP]

    def replica(self, n: int) -> Replica:
        return self.shop.replicas[lease(n)]

    def stage(self, n: int) -> Stage | None:
        found = self.shop.replicas.get(lease(n))
        return found.stage if found else None

    def tell(self, event: object) -> list[say.AnyWant]:
        self.state, effects = mind.step(self.state, event, self.now)
        for effect in effects:
            for check in self.checks:
                check(self, effect)
        self.wanted += effects
        for effect in effects:
            if type(effect) not in self.undone:
                self._do(effect)
        return list(effects)

    def _do(self, effect: say.AnyWant) -> None:
        match effect:
            case say.FindPlace(ticket=ticket, budget=budget):
                self._place(ticket, effect.to, budget)
            case say.Fit(lease=id_, deployment=name):
                if id_[0] not in self.dark:
                    self.tell(say.Fitted(id_, self.state.deployments[name].recipe))
            case say.Start(lease=id_):
                if id_[0] not in self.dark:
                    self.tell(say.Started(id_))
            case say.Stop(lease=id_):
                if id_[0] not in self.dark:
                    self.tell(say.Stopped(id_))
            case _:
                pass

    def _place(self, ticket: int, to: NodeKey | None, budget: Msat | None) -> None:
        n = to[0] if to else self.next
        if n > self.supply or (budget is not None and budget < PRICE and n not in self.prices):
            none = Reason("market.nothing-fits", "nobody sells that")
            self.tell(say.PlaceFailed(SHOP, ticket, none))
            return
        self.next = max(self.next, n + 1)
        self.tell(say.Placed(SHOP, ticket, lease(n), place(n), self.prices.get(n, PRICE)))

    def second(self, count: int = 1) -> list[say.AnyWant]:
        """So many rounds of looks; a statement a second from whom we reach."""
        before = len(self.wanted)
        for _ in range(count):
            self.now = Instant(self.now + SECOND)
            self.tell(say.Looked(tuple(self._look(x) for x in self.shop.replicas.values())))
            for x in list(self.shop.replicas.values()) if self.public else ():
                if x.stage in (Stage.SERVING, Stage.DRAINING):
                    up = x.lease[0] not in self.dark and self.well(x) is not False
                    self.gateway(
                        x.lease[0],
                        0 if up else x.signs.gateways[GATEWAY].missed + 1 if x.signs.gateways else 1,
                    )
        return self.wanted[before:]

    def _look(self, x: Replica) -> say.Look:
        n = x.lease[0]
        seen = n not in self.dark
        heard = self.now if seen else (x.signs.heard_at or Instant(self.now - SECOND))
        return say.Look(
            x.lease, seen, heard, self.trouble.get(n), self.over.get(n), well=self.well(x) if seen else None
        )

    # -- a change by our user ------------------------------------------------------------------------
    def change(self, goal: Goal) -> None:
        """As compose does it: it waits until it may, then makes things anew, and all is as *goal* says."""
        self.tell(say.ChangeBegun(SHOP, goal.update))
        for _ in range(1200):
            if self.may_change():
                break
            self.second()
        else:
            raise AssertionError("the way is never made")
        self.through(goal)

    def may_change(self) -> bool:
        rollout = self.shop.rollout
        place = self.shop.replicas.get(rollout.place) if rollout else None
        return place is not None and place.stage in (Stage.PROVING, Stage.CHANGING)

    def through(self, goal: Goal) -> None:
        self.tell(say.ChangeThrough(SHOP))
        primary = self.shop.primary
        self.tell(say.Wanted(SHOP, goal, primary, place(primary[0]), PRICE))

    def gateway(self, n: int, missed: int, busy: int = 0, *, is_reached: bool = True) -> list[say.AnyWant]:
        return self.tell(say.GatewaySaw(lease(n), GATEWAY, missed, busy, is_reached))

    def restart(self) -> None:
        from dockage.node.kept import durable, restore

        stored = [durable(x) for x in self.state.deployments.values()]
        self.state = replace(restore(ME, stored), terms=self.state.terms)


GOAL = Goal(replicas=1, standby=1, most=1, recipe="r1", ready=True)


def kinds(effects: list[say.AnyWant]) -> list[str]:
    return [type(x).__name__ for x in effects]
