"""Who gets requests: the controller's stages, as gateways are told them."""

from __future__ import annotations

from dockage.domain.identity import LeaseId, NodeKey
from dockage.domain.spread import Place
from dockage.domain.units import Instant
from dockage.node.kept import Deployment, Replica, Stage, with_replica
from dockage.node.shown import shown


def states(*replicas: tuple[Stage, int]) -> list[str]:
    """Of (stage, since when it is lost)."""
    of = Deployment("shop")
    for number, (stage, lost) in enumerate(replicas):
        place = Place(NodeKey(bytes([number]) * 32))
        x = Replica(LeaseId(bytes([number]) * 16), place, stage=stage, lost_at=Instant(lost))
        of = with_replica(of, x)
    return [x.state for x in shown(of)]


def test_what_serves_gets_requests_and_what_drains_no_new_ones() -> None:
    stages = (Stage.SERVING, Stage.DRAINING, Stage.READY, Stage.FITTING, Stage.STOPPING)
    assert states(*((stage, 0) for stage in stages)) == ["serving", "draining", *["standby"] * 3]


def test_what_is_lost_gets_none_once_another_serves_or_starts() -> None:
    assert states((Stage.SERVING, 5), (Stage.SERVING, 0)) == ["standby", "serving"]
    assert states((Stage.SERVING, 5), (Stage.STARTING, 0)) == ["standby", "standby"]


def test_the_last_one_is_never_taken_out() -> None:
    assert states((Stage.SERVING, 5), (Stage.READY, 0)) == ["serving", "standby"]
