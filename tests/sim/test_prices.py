"""Moving for a better price, in a market whose prices jump every hour."""

from __future__ import annotations

from dockage.domain.units import HOUR
from dockage.sim.availability import Model
from dockage.sim.prices import PAUSE, ROOM, measure

MODEL = Model(up_hours=60.0, down_hours=6.0, providers=500, networks=250)


def test_it_pays_less_never_flaps_and_never_passes_its_ceiling() -> None:
    stays, moves = (measure(percent, 1, apps=2, days=6, model=MODEL) for percent in (0, 20))
    assert stays.moves == 0
    assert moves.price < 0.85 * stays.price
    assert 1 < moves.moves <= 30 * 24 * HOUR / PAUSE
    assert moves.shortest_hours * HOUR >= PAUSE
    assert moves.dearest <= ROOM * 1.5
    assert moves.availability > stays.availability - 0.0005
