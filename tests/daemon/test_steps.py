"""What the daemon is doing for a deployment, for whoever waits."""

from __future__ import annotations

from dockage.daemon.steps import REMEMBERED, Steps


def test_the_newest_line_of_each_deployment_until_it_is_done() -> None:
    steps = Steps()
    for deployment, line in (("shop", "looking"), ("blog", "sending"), ("shop", "opening"), ("blog", "")):
        steps.tell(deployment, line)
    assert steps.all() == {"shop": "opening"}


def test_only_so_many_are_remembered() -> None:
    steps = Steps()
    for number in range(REMEMBERED + 10):
        steps.tell(str(number), "waiting")
    assert len(steps.all()) == REMEMBERED
    assert "0" not in steps.all()
