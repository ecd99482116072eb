"""What moving for a better price brings, and that it never flaps: thirty days of churn in a market whose prices jump.

    python -m dockage.sim.prices [--apps 10] [--days 30] [--seed 1] [--json]

Each provider asks for something between half and one and a half of the usual price, thrown anew every hour: far wilder
than people are. A lease keeps its price. Around the same mind as ``availability.py``, whose churn and times it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.saving import Saving
from dockage.domain.spread import Place
from dockage.domain.units import HOUR, MINUTE, SECOND, Duration, Instant, Msat
from dockage.node import controller_words as say
from dockage.node.kept import Goal

from .availability import APP, NOTHING, Kind, Life, Model, options, show

USUAL = 1_000
"""msat an hour."""
ROOM = 3
"""The deployment may cost so many times the dearest lease: room for two and a bit."""
LOOKED_AT = 16
"""Offers that a look on the market shows."""
LOOK = Duration(30 * MINUTE)
"""A node looks each minute; prices here are thrown each hour."""
PAUSE = Duration(6 * HOUR)


class Result(NamedTuple):
    percent: int
    availability: float
    price: float
    """Of the serving replica, on average over time; 1.0 is the usual one."""
    moves: float
    """For each app in thirty days, for the price."""
    shortest_hours: float
    """Between two such moves of one app."""
    dearest: float
    """All leases of one app at one moment, at most; the ceiling is 4.5."""


class Market(Life):
    def __init__(self, percent: int, seed: str, model: Model, until: Instant) -> None:
        self._prices = crc32(seed.encode())
        self.price_time = self.served = 0
        self.dearest = 0
        self.moves: list[int] = []
        ceiling = Msat(ROOM * USUAL * 3 // 2)
        saving = Saving(percent or None, PAUSE)
        goal = Goal(1, 0, 1, 1, max_msat_hour=ceiling, recipe="r", ready=True, saving=saving)
        super().__init__(Kind(f"{percent} %", goal), seed, model, until)

    def _price(self, n: int) -> Msat:
        dice = crc32(n.to_bytes(4, "big") + (self.now // HOUR).to_bytes(4, "big"), self._prices)
        return Msat(USUAL // 2 + dice % USUAL)

    def _rented(self, beside: Sequence[Place] = ()) -> tuple[LeaseId, Place, Msat]:
        lease, place, _ = super()._rented(beside)
        return lease, place, self._price(self._leases[lease][0])

    def _do(self, effect: say.AnyWant) -> None:
        if isinstance(effect, say.FindPlace) and effect.to is not None:
            self._rent_at(effect, int.from_bytes(effect.to, "big"))
        else:
            super()._do(effect)

    def _rent_at(self, effect: say.FindPlace, n: int) -> None:
        if not self._machines.is_up(n, self.now):
            return self._later(self.model.find, say.PlaceFailed(APP, effect.ticket, NOTHING))
        self._serial += 1
        lease = LeaseId(self._serial.to_bytes(16, "big"))
        self._leases[lease] = n, self._machines.next_switch(n, self.now)
        self._later(self.model.find, say.Placed(APP, effect.ticket, lease, self._place(n), self._price(n)))

    def _next(self) -> int:
        return min(super()._next(), (self.now // LOOK + 1) * LOOK)

    def _advance(self, to: int) -> None:
        of = self.state.deployments[APP]
        for x in of.serving[:1]:
            self.price_time += x.msat_hour * (to - self.now)
            self.served += to - self.now
        self.dearest = max(self.dearest, of.msat_hour)
        super()._advance(to)

    def look_around(self) -> None:
        """What the market shows: the cheapest of some that are up and apart."""
        of = self.state.deployments[APP]
        if of.goal.saving.percent is None:
            return
        taken = {line for x in of.replicas.values() for line in x.place.lines}
        seen = [self._rand.randrange(self.model.providers) for _ in range(LOOKED_AT)]
        up = [n for n in seen if self._machines.is_up(n, self.now) and not self._place(n).lines & taken]
        if up:
            best = min(up, key=self._price)
            before = of.moved_at
            self.tell(say.CheaperSeen(APP, NodeKey(best.to_bytes(32, "big")), self._price(best)))
            after = self.state.deployments[APP].moved_at
            if after != before:
                self.moves.append(after)

    def run(self) -> None:
        while self.now < self.until:
            self._advance(self._next())
            self._happen_all()
            if self.now % self._beat == 0:
                self._look()
            if self.now % LOOK == 0:
                self._look()
                self.look_around()
        self._note()


def measure(percent: int, seed: int, apps: int, days: float, model: Model) -> Result:
    until, lives = Instant(int(days * 24 * HOUR)), list[Market]()
    for app in range(apps):
        life = Market(percent, f"{seed}/{app}", model, until)
        life.run()
        lives.append(life)
    gaps = [b - a for x in lives for a, b in zip(x.moves, x.moves[1:], strict=False)]
    down = sum(sum(x.outages) for x in lives)
    return Result(
        percent,
        1 - down / (apps * until / SECOND),
        sum(x.price_time for x in lives) / sum(x.served for x in lives) / USUAL,
        sum(len(x.moves) for x in lives) / apps / days * 30,
        min(gaps, default=0) / HOUR,
        max(x.dearest for x in lives) / USUAL,
    )


def table(results: Sequence[Result]) -> str:
    head = f"{'saving':>8}{'available':>12}{'price':>8}{'moves':>8}{'shortest h':>12}{'dearest':>9}"
    rows = [
        f"{(str(x.percent) + ' %') if x.percent else 'none':>8}{100 * x.availability:>11.4f}%{x.price:>8.2f}"
        f"{x.moves:>8.1f}{x.shortest_hours:>12.1f}{x.dearest:>9.2f}"
        for x in results
    ]
    return "\n".join([head, *rows])


def main() -> None:
    given = options(__doc__, apps=10).parse_args()
    results = [measure(percent, given.seed, given.apps, given.days, Model()) for percent in (0, 10, 20, 40)]
    show(results, table, as_json=given.json)


if __name__ == "__main__":
    main()
