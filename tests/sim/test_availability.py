"""Churn as measured of home machines, around the controller's own mind: a small instance of the month in the docs."""

from __future__ import annotations

from functools import cache

from dockage.sim.availability import KINDS, Model, Result, measure, table

MODEL = Model(up_hours=20.0, down_hours=4.6, providers=500, networks=250)
ONE, STANDBY, TWO, *_ = KINDS


@cache
def run(kind: int) -> Result:
    return measure(KINDS[kind], 1, apps=3, days=10, model=MODEL)


def test_a_standby_answers_again_within_five_seconds() -> None:
    alone, standby = run(0), run(1)
    assert standby.outages >= 20
    assert standby.outage_p95_s <= 5.0
    assert standby.availability > alone.availability
    assert standby.availability > 0.9998
    assert alone.sat_month <= standby.sat_month < alone.sat_month * 1.2


def test_two_replicas_hide_almost_every_loss_and_cost_twice_as_much() -> None:
    one, two = run(1), run(2)
    assert two.availability > one.availability
    assert two.outage_p50_s < 2.0
    assert two.sat_month > 1.8 * one.sat_month


def test_a_seed_gives_the_same_table() -> None:
    one, other = (measure(STANDBY, 7, apps=2, days=4, model=MODEL) for _ in range(2))
    assert one.outages
    assert table([one]) == table([other])
