"""How long a deployment answers while home machines come and go: thirty days of churn around the controller's own mind.

    python -m dockage.sim.availability [--apps 100] [--days 30] [--providers 10000] [--json]

Machines vanish without a word, as in Salad's own test of 2025 (100 instances, a week: one loss in 92 h each), and come
back without what ran on them. What is assumed besides is in ``Model``. Deterministic: a seed gives the same table.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.pricing import PRESETS, price, usual
from dockage.domain.reason import Reason
from dockage.domain.resources import Resources
from dockage.domain.spread import Place
from dockage.domain.units import GIB, HOUR, MIB, SECOND, Duration, Instant, Msat
from dockage.domain.usage import Usage
from dockage.node import controller as mind
from dockage.node import controller_words as say
from dockage.node.kept import Controller, Goal, Stage

NEED = Resources(1000, 512 * MIB, 1 * GIB)
REBOOTED = Reason("provider.restarted", "the machine came back without what ran on it")
NOTHING = Reason("market.nothing-fits", "nobody is up")
APP = "app"


class Model(NamedTuple):
    """Hours, and seconds."""

    up_hours: float = 92.0
    down_hours: float = 6.0
    providers: int = 10_000
    networks: int = 4_000
    """/24s that they are spread over."""
    find: float = 3.0
    """A quote and a channel on credit."""
    fit: float = 32.0
    """Median for the image: 200 MB at 50 Mbit/s; it varies by a factor of e."""
    start: float = 0.5
    turn: float = 0.2
    beat: float = 0.8


class Kind(NamedTuple):
    name: str
    goal: Goal


KINDS = (
    Kind("1 replica", Goal(1, 0, 1, 1, recipe="r", ready=True)),
    Kind("1 + standby", Goal(1, 1, 1, 1, recipe="r", ready=True)),
    Kind("2 replicas", Goal(2, 0, 2, 2, recipe="r", ready=True)),
    Kind("2 + standby", Goal(2, 1, 2, 2, recipe="r", ready=True)),
    Kind("3 replicas", Goal(3, 0, 3, 3, recipe="r", ready=True)),
)


class Result(NamedTuple):
    kind: str
    availability: float
    """Share of the time in which what ids and ports lead to answered."""
    outages: int
    outage_p50_s: float
    outage_p95_s: float
    failovers: int
    sat_month: int
    """At the fair preset, for all leases together, of an app that uses a tenth of its CPU and half its memory."""


class Machines:
    """Which provider is up when; each is thrown once, when it is first asked about."""

    def __init__(self, seed: str, model: Model, until: Instant) -> None:
        self._seed, self._model, self._until = seed, model, until
        self._switches: dict[int, tuple[bool, list[int]]] = {}

    def _of(self, n: int) -> tuple[bool, list[int]]:
        if n not in self._switches:
            rand, model = Random(f"{self._seed}/{n}"), self._model
            first = up = rand.random() < model.up_hours / (model.up_hours + model.down_hours)
            at, switches = 0, list[int]()
            while at < self._until:
                hours = model.up_hours if up else model.down_hours
                at += 1 + int(rand.expovariate(1 / hours) * HOUR)
                switches.append(at)
                up = not up
            self._switches[n] = first, switches
        return self._switches[n]

    def is_up(self, n: int, now: int) -> bool:
        first, switches = self._of(n)
        return first ^ (bisect_right(switches, now) % 2 == 1)

    def next_switch(self, n: int, now: int) -> int:
        _, switches = self._of(n)
        i = bisect_right(switches, now)
        return switches[i] if i < len(switches) else self._until


class Life:
    """One deployment's days."""

    def __init__(self, kind: Kind, seed: str, model: Model, until: Instant) -> None:
        self.model, self.until, self.now = model, until, Instant(0)
        self._rand, self._machines = Random(seed), Machines(seed, model, until)
        self._beat = int(model.beat * SECOND)
        self._heap: list[tuple[int, int, object]] = []
        self._serial = 0
        self._leases: dict[LeaseId, tuple[int, int]] = {}
        """Provider, and when its machine goes down next."""
        self.state, self.primary = Controller(NodeKey(b"t" * 32)), LeaseId(b"")
        self.outages: list[float] = []
        self._down_since: int | None = None
        self.paid_msat = self.failovers = 0
        self.tell(say.Wanted(APP, kind.goal, *self._rented()))
        self.primary = next(iter(self.state.deployments[APP].replicas))

    # -- the market ----------------------------------------------------------------------------------
    def _place(self, n: int) -> Place:
        return Place(NodeKey(n.to_bytes(32, "big")), frozenset({str(n % self.model.networks)}))

    def _rented(self, beside: Sequence[Place] = ()) -> tuple[LeaseId, Place, Msat]:
        while True:
            n = self._rand.randrange(self.model.providers)
            apart = all(not self._place(n).lines & x.lines for x in beside)
            if apart and self._machines.is_up(n, self.now):
                break
        self._serial += 1
        lease = LeaseId(self._serial.to_bytes(16, "big"))
        self._leases[lease] = n, self._machines.next_switch(n, self.now)
        return lease, self._place(n), Msat(1)

    def _alive(self, lease: LeaseId) -> bool:
        return lease in self._leases and self.now < self._leases[lease][1]

    # -- hands ---------------------------------------------------------------------------------------
    def tell(self, event: object) -> None:
        self.state, effects = mind.step(self.state, event, self.now)
        for effect in effects:
            self._do(effect)

    def _do(self, effect: say.AnyWant) -> None:
        match effect:
            case say.FindPlace(ticket=ticket):
                placed = say.Placed(APP, ticket, *self._rented(effect.beside))
                self._later(self.model.find, placed)
            case say.Fit(lease=lease):
                self._later(self.model.fit * self._rand.lognormvariate(0, 0.5), say.Fitted(lease, "r"))
            case say.Start(lease=lease):
                self.failovers += 1
                self._later(self.model.start, say.Started(lease))
            case say.Stop(lease=lease):
                self._later(self.model.start, say.Stopped(lease))
            case say.Turn(lease=lease):
                self._later(self.model.turn, lease)
            case _:
                pass

    def _later(self, seconds: float, event: object) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (self.now + int(seconds * SECOND), self._serial, event))

    # -- time ----------------------------------------------------------------------------------------
    def run(self) -> None:
        while self.now < self.until:
            self._advance(self._next())
            self._happen_all()
            if self.now % self._beat == 0:
                self._look()
        self._note()

    def _happen_all(self) -> None:
        while self._heap and self._heap[0][0] <= self.now:
            self._happen(heapq.heappop(self._heap)[2])

    def _next(self) -> int:
        """While all is well nothing is told: the mind waits for nothing then."""
        switches = [self._leases[x][1] for x in self._replicas() if self._alive(x)]
        moments = [self.until, *switches, *(x[0] for x in self._heap[:1])]
        if not self._is_calm():
            moments.append((self.now // self._beat + 1) * self._beat)
        return min(moments)

    def _is_calm(self) -> bool:
        of = self.state.deployments[APP]
        settled = all(x.stage in (Stage.SERVING, Stage.READY) and x.fitted for x in of.replicas.values())
        well = all(self._alive(x) for x in of.replicas)
        whole = len(of.replicas) == of.wanted + of.goal.standby
        return settled and well and whole and not of.asks and not of.hindrance

    def _replicas(self) -> list[LeaseId]:
        return list(self.state.deployments[APP].replicas)

    def _advance(self, to: int) -> None:
        passed = Duration(to - self.now)
        for x in self.state.deployments[APP].replicas.values():
            self.paid_msat += _cost(x.stage, passed) if self._alive(x.lease) else 0
        self._note()
        self.now = Instant(to)
        self._note()

    def _note(self) -> None:
        """Whether it answers now."""
        x = self.state.deployments[APP].replicas.get(self.primary)
        answers = x is not None and x.stage is Stage.SERVING and self._alive(self.primary)
        if answers and self._down_since is not None:
            if self.now > self._down_since:
                self.outages.append((self.now - self._down_since) / SECOND)
            self._down_since = None
        elif not answers and self._down_since is None:
            self._down_since = self.now

    def _happen(self, event: object) -> None:
        if isinstance(event, bytes):
            self.primary = LeaseId(event)
        elif isinstance(event, say.Placed) or self._alive(event.lease):  # type: ignore[attr-defined]
            self.tell(event)
        self._note()

    def _look(self) -> None:
        looks = [self._seen(lease) for lease in self._replicas()]
        self.tell(say.Looked(tuple(looks)))
        self._note()

    def _seen(self, lease: LeaseId) -> say.Look:
        n, down_at = self._leases[lease]
        if self._alive(lease):
            return say.Look(lease, True, self.now)
        back = self._machines.is_up(n, self.now)
        return say.Look(lease, back, Instant(down_at), over=REBOOTED if back else None)


def _cost(stage: Stage, time: Duration) -> int:
    """A thousandth of a millisatoshi is lost here for each second or so; the table rounds far more."""
    if stage in (Stage.FITTING, Stage.READY):
        disk = Usage(disk_mib_ms=(NEED.disk_bytes >> 20) * (time // 1_000_000) // 10)
        return price(disk, PRESETS["fair"])
    return usual(NEED, PRESETS["fair"], time)


def measure(kind: Kind, seed: int, apps: int, days: float, model: Model) -> Result:
    until, lives = Instant(int(days * 24 * HOUR)), list[Life]()
    for app in range(apps):
        life = Life(kind, f"{seed}/{app}", model, until)
        life.run()
        lives.append(life)
    outages = sorted(x for life in lives for x in life.outages)
    whole = apps * until / SECOND
    paid = sum(life.paid_msat for life in lives) / apps / days * 30 / 1000
    return Result(
        kind.name,
        1 - sum(outages) / whole,
        len(outages),
        _at(outages, 0.5),
        _at(outages, 0.95),
        sum(life.failovers for life in lives),
        round(paid),
    )


def _at(values: Sequence[float], share: float) -> float:
    return round(values[min(len(values) - 1, int(share * len(values)))], 2) if values else 0.0


def table(results: Sequence[Result]) -> str:
    head = f"{'':14}{'available':>13}{'outages':>9}{'p50 s':>8}{'p95 s':>8}{'sat/month':>11}"
    rows = [
        f"{x.kind:14}{100 * x.availability:>12.5f}%{x.outages:>9}{x.outage_p50_s:>8.1f}{x.outage_p95_s:>8.1f}"
        f"{x.sat_month:>11}"
        for x in results
    ]
    return "\n".join([head, *rows])


R = TypeVar("R", bound=NamedTuple)


def options(what: str | None, apps: int) -> argparse.ArgumentParser:
    """Of every command that measures months of *apps* deployments."""
    args = argparse.ArgumentParser(description=what)
    args.add_argument("--apps", type=int, default=apps)
    args.add_argument("--days", type=float, default=30.0)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--json", action="store_true")
    return args


def show(results: Sequence[R], table: Callable[[Sequence[R]], str], *, as_json: bool) -> None:
    text = json.dumps([x._asdict() for x in results]) if as_json else table(results)
    sys.stdout.write(text + "\n")


def main() -> None:
    args = options(__doc__, apps=100)
    args.add_argument("--providers", type=int, default=10_000)
    given = args.parse_args()
    model = Model(providers=given.providers)
    results = [measure(kind, given.seed, given.apps, given.days, model) for kind in KINDS]
    show(results, table, as_json=given.json)


if __name__ == "__main__":
    main()
